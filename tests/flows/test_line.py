"""The whole line, tiny: `dvc repro`, a second time, and after a change."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
import zarr
from conftest import command, environment, tree_digest

from tasks.verify import verify_tree


def test_it_ends_with_a_release_and_a_report(line: Path) -> None:
    release = line / "data" / "release"
    manifest = pq.read_table(release / "manifest.parquet")
    clips = zarr.open_group(release / "clips.zarr", mode="r")
    assert manifest.num_rows == clips["frames"].shape[0] > 0
    assert clips["frames"].shape[1:] == (4, 16, 16, 1)
    assert clips["masks"].shape[1:] == (4, 16, 16)
    page = (line / "data" / "reports" / "report.html").read_text()
    assert "simulated" in page.lower()
    checked, problems = verify_tree(line / "data")
    assert checked >= 6
    assert problems == []


def test_what_it_took_is_said_beside_the_outputs(line: Path) -> None:
    """Two runs take different times, so no output of a stage may hold them."""
    took = json.loads((line / "data" / "timing" / "sample" / "sfvd.json").read_text())
    assert took["clips"] == 6 and took["shards"] == 3
    assert took["model_seconds"] < took["wall_seconds"] * took["workers"]
    assert took["overhead"] == pytest.approx(1 - took["model_seconds"] / (took["workers"] * took["wall_seconds"]))
    assert json.loads((line / "data" / "timing" / "curate" / "sfvd.json").read_text())["clips"] == 6
    assert "timing" not in (line / "dvc.lock").read_text()


def test_a_second_time_does_nothing(line: Path, api: str) -> None:
    before = tree_digest(line / "data")
    out = command(line, api, "dvc", "repro")
    assert "Data and pipelines are up to date" in out
    assert tree_digest(line / "data") == before


def test_resample_gives_the_same_pixels(line: Path, api: str) -> None:
    clip = pq.read_table(line / "data" / "release" / "provenance.parquet")["clip_id"][0].as_py()
    assert "the same pixels" in command(line, api, "python", "-m", "flows", "resample", clip[:12], "--out", "clip.webp")
    assert (line / "clip.webp").stat().st_size > 0


def test_verify_names_a_flipped_bit(line: Path, api: str, tmp_path: Path) -> None:
    shard = next(
        path
        for path in (line / "data" / "clips" / "sfvd" / "clips.zarr" / "frames").rglob("*")
        if path.name != "zarr.json" and path.is_file()
    )
    whole = shard.read_bytes()
    broken = bytearray(whole)
    broken[len(broken) // 3] ^= 4
    shard.unlink()  # it may be a hardlink into DVC's cache
    shard.write_bytes(bytes(broken))
    try:
        done = subprocess.run(
            ["python", "-m", "flows", "verify", "data/clips"], cwd=line, env=environment(api), capture_output=True, text=True
        )
        assert done.returncode == 1
        assert str(shard.relative_to(line / "data" / "clips" / "sfvd" / "clips.zarr")) in done.stdout
    finally:
        shard.unlink()
        shard.write_bytes(whole)


def test_a_wrong_parameter_is_one_line(line: Path, api: str, tmp_path: Path) -> None:
    bad = yaml.safe_load((line / "params.yaml").read_text())
    bad["dataset"]["split"]["train"] = 0.9
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(bad))
    done = subprocess.run(
        ["python", "-m", "flows", "prepare", "--params", str(tmp_path / "params.yaml")],
        cwd=line,
        env=environment(api),
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "train + val + test is 1.4, but must be 1" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_changed_parameter_redoes_what_depends_on_it(line: Path, api: str, tmp_path: Path) -> None:
    """Outputs persist between runs, so old shards are there: none of them may be kept."""
    folder = tmp_path / "checkout"
    shutil.copytree(line, folder)
    table = folder / "data" / "clips" / "sfvd" / "provenance.parquet"
    old = pq.read_table(table)["digest"].to_pylist()
    tree = yaml.safe_load((folder / "params.yaml").read_text())
    tree["samples"]["sfvd"]["sampling"]["steps"] = 3
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    out = command(folder, api, "dvc", "repro", "sample@sfvd")
    assert "Running stage 'sample@sfvd'" in out
    assert "Running stage 'train@sfvd'" not in out
    new = pq.read_table(table)["digest"].to_pylist()
    assert len(new) == len(old) and not set(old) & set(new)

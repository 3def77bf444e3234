"""Stills become clips through the whole line, on two random splits: the banks, both generators, the pooled page, one PNG."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import checkout, command
from PIL import Image

from tasks.profiles import apply_profiles
from tasks.verify import verify_tree


@pytest.mark.slow
def test_random_splits_of_a_line_that_animates_stills(tmp_path: Path, api: str) -> None:
    folder = checkout(tmp_path / "checkout", "manoeuvres")
    apply_profiles(folder / "params.yaml", [Path(__file__).parent / "tiny_stills.yaml"])
    repeats = folder / "data" / "repeats"
    said = command(folder, api, "python", "-m", "flows", "repeat", "train_0.5_seed_1")
    assert "not done yet" in said and not (repeats / "train_0.5_seed_0").exists()
    record = (repeats / "train_0.5_seed_1" / "repeat.json").stat().st_mtime_ns
    assert "repeats.html" in command(folder, api, "python", "-m", "flows", "repeat")
    assert (repeats / "train_0.5_seed_1" / "repeat.json").stat().st_mtime_ns == record  # what is done is left alone
    tests = []
    for seed in (0, 1):
        own = repeats / f"train_0.5_seed_{seed}"
        manifest = pq.read_table(own / "prepared" / "manifest.parquet").to_pylist()
        train = {row["clip_id"]: row for row in manifest if row["split"] == "train"}
        tests.append({row["patient"] for row in manifest if row["split"] == "test"})
        bank = pq.read_table(own / "conditions" / "conditions.parquet").to_pylist()
        assert len(bank) == 8 and all(set(row["clips"]) <= set(train) for row in bank)
        for name in ("lddm", "cinn"):
            plan = pq.read_table(own / "clips" / name / "plan.parquet").to_pylist()
            asked = {row["condition_id"]: row["label"] for row in bank}
            assert all(asked[row["condition_id"]] == row["label"] for row in plan)
            quality = json.loads((own / "control" / name / "animation.json").read_text())
            assert quality["patients"] == len(tests[-1]) and quality["reconstruction"]["psnr"]["repeated"] > 10
        page = (own / "reports" / "report.html").read_text()
        assert "Image to video" in page and "the repeated first frame" in page
        assert verify_tree(own)[1] == []
    assert tests[0] != tests[1]
    words = ("lddm", "--params", str(own / "params.yaml"), "--data", str(own))
    assert "of 8 synthetic clips" in command(folder, api, "python", "-m", "flows", "audit", *words)
    command(folder, api, "python", "-m", "flows", "report", *words[1:])
    assert "Does it copy?" in (own / "reports" / "report.html").read_text() and verify_tree(own)[1] == []
    pooled = json.loads((repeats / "repeats.json").read_text())["0.5"]
    assert [split["seed"] for split in pooled["splits"]] == [0, 1]
    one = pooled["means"]["tdn"]["lddm"]["accuracy"]
    assert len(one["values"]) == 2 and one["mean"] == sum(one["values"]) / 2
    assert set(pooled["means"]["atm"]) == {"real", "lddm", "real_cinn"}
    Image.fromarray(np.arange(40 * 30, dtype=np.uint8).reshape(40, 30)).save(folder / "own.png")
    for name in ("lddm", "cinn"):
        checkpoint = repeats / "train_0.5_seed_0" / "checkpoints" / name
        command(folder, api, "python", "-m", "flows", "animate", "own.png", "--checkpoint", str(checkpoint), "--out", "own.mp4")
        with av.open(str(folder / "own.mp4")) as video:
            assert len(list(video.decode(video=0))) == 4

"""Hostile input: thousands of broken and malicious files, raw data and our own formats; each is accepted, quarantined or
refused. The long form writes docs/results/hostile.md and hostile.json: `make test-long`.
"""

from __future__ import annotations

import json
import os
import platform
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_made import release
from hostile_corpus import SUFFIX, Input, bombs, disguised, mutants, names_others, of_json, of_yaml, seeds
from hostile_judge import MEMORY_GB, READS, SECONDS

from models.generators import Checkpoint
from models.trainer import TrainState
from tasks.checkpoints import FolderStates, _digest, save_checkpoint
from tasks.params import DatasetParams
from tasks.prepare import prepare
from tasks.records import Decision, QuarantineRecord
from tasks.tables import checksum_of, read_table, write_json, write_table

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
BEYOND = 3 * SECONDS
"""Seconds after which an input is said to hang: a decoder has SECONDS, and ends after."""
SMALL, LONG = 3, 130
"""Mutants of each part of our own formats; raw data get four times as many of a format."""


def own(folder: Path) -> dict[str, Path]:
    """One whole file of each of our own formats, where the product looks for it."""
    from diffusers import UNet2DModel
    from transformers import ViTConfig, ViTModel

    folder.mkdir(parents=True)
    made = folder / "release"
    release(made, clips=5, shard_clips=3, side=8, frames=2)
    write_table(folder / "decisions.parquet", [Decision(f"clip{row}", "look", row % 2 == 0, row / 7, "0.5", "as it is")
                                               for row in range(40)], Decision)
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    shutil.copy(ROOT / "profiles" / "phantom.yaml", folder / "phantom.yaml")
    (folder / "profile.yaml").write_text((ROOT / "profiles" / "lung.yaml").read_text())
    torch.manual_seed(0)
    net = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(4,), norm_num_groups=2,
                      layers_per_block=1, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))
    checkpoint = Checkpoint("sfvd", {}, {"scene": net}, {"clip_shape": [2, 1, 8, 8]}, {"scene": [1.0, 0.5]})
    save_checkpoint(folder / "checkpoint", checkpoint, fingerprint="f", trained_on={"split": "train"})
    FolderStates(folder / "state", "mark").save("scene", TrainState(1, {"net.w": torch.ones(3)}, [0.5]))
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=8,
                       patch_size=4)
    ViTModel(config).save_pretrained(folder / "foreign")
    store = made / "clips.zarr"
    shard = next(file for file in sorted((store / "frames").rglob("*")) if file.is_file() and file.name != "zarr.json")
    return {
        "params.yaml": folder / "params.yaml", "profile.yaml": folder / "profile.yaml",
        "manifest.parquet": made / "manifest.parquet", "decisions.parquet": folder / "decisions.parquet",
        "release.json": made / "release.json", "release.json, pulled": made / "release.json",
        "zarr group": store / "zarr.json", "zarr array": store / "frames" / "zarr.json",
        "zarr shard": shard, "zarr shard, verified": shard, "commit record": store / "commits" / "00000.json",
        "checkpoint.json": folder / "checkpoint" / "checkpoint.json",
        "network's config.json": folder / "checkpoint" / "scene" / "config.json",
        "checkpoint weights": folder / "checkpoint" / "scene" / "diffusion_pytorch_model.safetensors",
        "losses.csv": folder / "checkpoint" / "losses.csv", "training state": folder / "state" / "scene.safetensors",
        "foreign weights": folder / "foreign" / "model.safetensors", "foreign config.json": folder / "foreign" / "config.json",
    }


def raw_inputs(count: int, secret: Path, bombs_too: bool) -> Iterator[Input]:
    whole = seeds()
    for format, files in whole.items():
        yield from (Input(format, "whole", content) for content in files)
        yield from mutants(format, files, 4 * count)
    yield from disguised(whole)
    yield from names_others(secret)
    if bombs_too:
        yield from bombs()


def _sealed_layout(tree: Any) -> Any:
    layout = {key: value for key, value in tree["attributes"].items() if key != "checksum"}
    return {**tree, "attributes": {**layout, "checksum": checksum_of(layout)}}


def _sealed(tree: Any) -> Any:
    value = {key: one for key, one in tree.items() if key != "checksum"}
    return {**value, "checksum": checksum_of(value)}


def _sealed_checkpoint(tree: Any) -> Any:
    body = {key: one for key, one in tree.items() if key not in ("digest", "fingerprint", "checksum")}
    return _sealed({**body, "digest": _digest(body), "fingerprint": tree.get("fingerprint")})


SEALS = {"zarr group": _sealed_layout, "commit record": _sealed, "checkpoint.json": _sealed_checkpoint}
"""Anybody can compute a checksum: what a malicious record says is checked as well."""


def own_inputs(format: str, whole: bytes, count: int) -> Iterator[Input]:
    every = 1 if count >= LONG else 5  # of what has as many inputs in the small form
    yield Input(format, "whole", whole)
    yield from mutants(format, [whole], count)
    if format.endswith((".json", "pulled", "record", "group", "array")):
        yield from islice(of_json(format, whole, count, SEALS.get(format)), 0, None, every)
    if format.endswith(".yaml"):
        yield from islice(of_yaml(format, whole, count // 2), 0, None, every)


class Judge:
    """`hostile_judge` as a process, started again when an input ends it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, format: str, path: Path) -> dict[str, Any]:
        if self._process is None:
            path_of_code = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
            command = [sys.executable, str(Path(__file__).with_name("hostile_judge.py"))]
            self._process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path_of_code, "HF_HUB_OFFLINE": "1"},
                                             text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                             stderr=subprocess.DEVNULL)
        judge = self._process
        assert judge.stdin is not None and judge.stdout is not None
        judge.stdin.write(json.dumps({"format": format, "path": str(path)}) + "\n")
        judge.stdin.flush()
        answer = judge.stdout.readline() if select.select([judge.stdout], [], [], BEYOND)[0] else ""
        if not answer:
            judge.kill()
            self._process = None
            return {"outcome": f"ended the process ({judge.wait()})", "said": "", "seconds": BEYOND, "megabytes": 0.0}
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def judged(folder: Path, count: int, bombs_too: bool) -> list[dict[str, Any]]:
    """What came of every input."""
    secret = folder / "secret" / "secret.mp4"
    secret.parent.mkdir(parents=True)
    secret.write_bytes(seeds()["mp4"][0])
    found, judge, inputs = [], Judge(), dict[str, list[tuple[Path, Input]]]()
    for number, one in enumerate(raw_inputs(count, secret, bombs_too)):
        path = folder / "raw" / one.format.replace(" ", "_") / f"p{number:05d}{SUFFIX[one.format]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.content)
        inputs.setdefault(one.format, []).append((path, Input(one.format, one.mutation, b"")))
    try:
        for format, files in inputs.items():
            for path, one in files:
                found.append({"format": format, "mutation": one.mutation, "input": path.name, **judge(format, path)})
        for format, path in own(folder / "own").items():
            whole = path.read_bytes()
            for number, one in enumerate(own_inputs(format, whole, count)):
                path.write_bytes(one.content)
                found.append({"format": format, "mutation": one.mutation, "input": str(number), **judge(format, path)})
                path.write_bytes(whole)
    finally:
        judge.close()
    return found


def prepared(folder: Path, format: str) -> dict[str, int]:
    """All files of a format as one data set: how many `prepare` took and how many it quarantined."""
    location = folder / "raw" / format.replace(" ", "_")
    readers = {"dicom": ("dicom", {}), "mp4": ("video", {}), "png": ("images", {"stills": True})}
    reader, options = readers.get(format, ("nifti", {"images": ".", "masks": None}))
    frames, options = 1 if format == "png" else 2, {**options, "patient_pattern": "(?P<patient>p[0-9]+)"}
    tree = DatasetParams.model_validate({
        "name": "hostile", "reader": reader, "location": location, "options": options, "clip_frames": frames,
        "frame_size": (8, 8), "near_duplicate": 1, "clips_per_source": 1, "split": {"train": 0.5, "val": 0, "test": 0.5},
        "decoder": {"memory_gb": MEMORY_GB, "seconds": SECONDS}})
    made = prepare(tree, 0, folder / "prepared" / location.name)
    refused = read_table(folder / "prepared" / location.name / "quarantine.parquet", QuarantineRecord)
    assert all(record.reason.strip() and "\n" not in record.reason for record in refused)
    return {"files": made["sources"], "used": made["sources_used"], "quarantined": made["quarantined"]}


def failures(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Inputs that did not end as they ought to."""
    return [one for one in found
            if one["outcome"] not in ("accepted", "refused" if one["format"] in READS else "quarantined")
            or one["seconds"] > SECONDS + 10 or one["megabytes"] > 1000 * MEMORY_GB
            or (one["mutation"] == "whole" and one["outcome"] != "accepted")
            or (one["mutation"] == "names other files" and one["outcome"] == "accepted")]


def summary(found: list[dict[str, Any]], prepared: dict[str, dict[str, int]]) -> dict[str, Any]:
    """What the table is written from."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in found:
        groups.setdefault((one["format"], one["mutation"]), []).append(one)
    failed = {id(one) for one in failures(found)}
    rows = [{
        "format": format, "mutation": mutation, "inputs": len(part),
        **{outcome: sum(one["outcome"] == outcome for one in part) for outcome in ("accepted", "quarantined", "refused")},
        "failed": sum(id(one) in failed for one in part), "seconds": max(one["seconds"] for one in part),
        "megabytes": max(one["megabytes"] for one in part),
    } for (format, mutation), part in groups.items()]
    worst = sorted(found, key=lambda one: -one["seconds"])[:10]
    return {"rows": rows, "slowest": [{key: one[key] for key in ("format", "mutation", "outcome", "seconds")} for one in worst],
            "limits": {"memory_gb": MEMORY_GB, "seconds": SECONDS}, "prepared": prepared,
            "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"}


def page(made: dict[str, Any]) -> str:
    """docs/results/hostile.md."""
    rows = made["rows"]
    total = {key: sum(row[key] for row in rows) for key in ("inputs", "accepted", "quarantined", "refused", "failed")}
    columns = ("inputs", "accepted", "quarantined", "refused", "failed", "seconds", "megabytes")
    lines = [
        "# Hostile input: what became of broken and malicious files", "",
        "`make test-long` makes them, has the product read them, and writes this page (`tests/trust/test_hostile.py`).",
        f"{total['inputs']} inputs: {total['accepted']} accepted as valid, {total['quarantined']} quarantined (raw data),",
        f"{total['refused']} refused with one line that names the file (our own formats), {total['failed']} ended otherwise.",
        f"A decoder had {made['limits']['seconds']} s and {made['limits']['memory_gb']} GB here, beside other work on",
        f"the machine ({made['machine']}).", "",
        "Seconds and megabytes are the most that any input of the row took: of raw data the decoder's resident memory, of our",
        "own formats what was resident beyond what the process began with. Accepted are files that are still valid in their",
        "format: a bit of a pixel, a comment, another possible number. Of an input that ended its decoder no memory is",
        "measured; the limit is what bounds it.", "",
        f"| format | mutation | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    lines += [f"| {row['format']} | {row['mutation']} | {' | '.join(str(row[key]) for key in columns)} |" for row in rows]
    lines += ["", "## Slowest", "", "| format | mutation | outcome | seconds |", "|---|---|---|---|"]
    lines += [f"| {one['format']} | {one['mutation']} | {one['outcome']} | {one['seconds']} |" for one in made["slowest"]]
    lines += ["", "## The raw files of a format as one data set", "", "`prepare` over all of them at once went through:", "",
              "| format | files | used | quarantined |", "|---|---|---|---|"]
    lines += [f"| {name} | {one['files']} | {one['used']} | {one['quarantined']} |"
              for name, one in sorted(made["prepared"].items())]
    return "\n".join(lines) + "\n"


def told(found: list[dict[str, Any]]) -> str:
    return "\n".join(f"{one}"[:600] for one in failures(found)[:30])


def test_a_few_of_every_kind(tmp_path: Path) -> None:
    found = judged(tmp_path, SMALL, bombs_too=False)
    assert not failures(found), told(found)
    assert {one["format"] for one in found} == {*SUFFIX, *READS}


@pytest.mark.long
def test_thousands(tmp_path: Path) -> None:
    found = judged(tmp_path, LONG, bombs_too=True)
    made = summary(found, {format: prepared(tmp_path, format) for format in SUFFIX})
    write_json(RESULTS / "hostile.json", made)
    (RESULTS / "hostile.md").write_text(page(made))
    assert len(found) >= 5000
    assert not failures(found), told(found)


def test_the_page_is_what_the_long_run_wrote() -> None:
    made = json.loads((RESULTS / "hostile.json").read_text())
    assert (RESULTS / "hostile.md").read_text() == page(made)
    assert sum(row["inputs"] for row in made["rows"]) >= 5000
    assert not any(row["failed"] for row in made["rows"])
    assert {row["format"] for row in made["rows"]} == {*SUFFIX, *READS}

"""Ctrl-GenAug through the whole line, tiny: labels and texts arrive in the release, control numbers in the report."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import zarr
from conftest import checkout, command

from tasks.verify import verify_tree


def test_labelled_clips_go_through_the_line(tmp_path: Path, api: str) -> None:
    folder = checkout(tmp_path / "checkout", "manoeuvres")
    command(folder, api, "dvc", "repro")
    release = folder / "data" / "release"
    provenance = pq.read_table(release / "provenance.parquet").to_pylist()
    assert zarr.open_group(release / "clips.zarr", mode="r")["frames"].shape[0] == len(provenance) > 0
    assert {row["label"] for row in provenance} <= {"advance", "retract", "rotate", "idle"}
    assert all("guidewire" in row["text"] for row in provenance)
    bank = pq.read_table(folder / "data/conditions/conditions.parquet").to_pylist()
    manifest = pq.read_table(folder / "data/prepared/manifest.parquet").to_pylist()
    train = {row["clip_id"] for row in manifest if row["split"] == "train"}
    assert all(set(row["clips"]) <= train for row in bank)
    control = json.loads((folder / "data/control/ctrl_genaug/control.json").read_text())
    assert set(control) == {"label", "text", "image", "motion"}
    summary = json.loads((folder / "data/decisions/ctrl_genaug/summary.json").read_text())
    for number in control.values():
        assert {name: (one["clips"], one["kept"]) for name, one in number["filters"].items()} == {
            name: (one["in"], one["out"]) for name, one in summary["filters"].items()}
    assert json.loads((folder / "data/control/ctrl_genaug/appearance.json").read_text())["vae_seq"]["value"] > 0
    alike = json.loads((folder / "data/control/ctrl_genaug/likeness.json").read_text())
    assert all(-1 <= alike[name]["value"] <= 1 for name in ("DS", "OS"))
    rounds = json.loads((folder / "data/clips/rare/rounds.json").read_text())
    plan = pq.read_table(folder / "data/clips/rare/plan.parquet").to_pylist()
    assert {name: one["wanted"] for name, one in rounds["classes"].items()} == {"advance": 5, "idle": 2}
    assert 1 <= len(rounds["rounds"]) <= 2 and len(plan) == sum(one["made"] for one in rounds["classes"].values()) >= 8
    assert {row["label"] for row in plan} == {"advance", "idle"}
    judged = pq.read_table(folder / "data/decisions/rare/scores.parquet").to_pylist()
    kept = sum(row["score"] <= 2 for row in judged if row["filter"] == "rejection")
    assert kept == sum(one["kept"] for one in rounds["classes"].values())  # the chain's filter agrees with the rounds' judge
    metrics = json.loads((folder / "data/benchmark/metrics.json").read_text())
    assert "balanced_accuracy" in metrics["c3d"]["joint"]
    facts = json.loads((release / "release.json").read_text())["counts"]
    assert facts["training_clips_by_label"] == Counter(row["label"] for row in manifest if row["split"] == "train")
    page = (folder / "data/reports/report.html").read_text()
    assert "What the filters do to it" in page and "How like are its clips to each other" in page
    assert "How often each class is seen" in page and "Class by class" in page
    assert "Does it look and move like the real clips?" in page and "Does it show what was asked?" in page
    assert "Balanced accuracy" in page and "Rejection sampling: candidates are made in rounds" in page
    assert "Every patient shows one class only" not in page and ">retract</th>" in page
    assert verify_tree(folder / "data")[1] == []
    clip = provenance[0]["clip_id"]
    assert "the same pixels" in command(folder, api, "python", "-m", "flows", "resample", clip[:12], "--out", "clip.webp")

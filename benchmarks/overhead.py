"""Orchestration overhead of sampling a set: 1 - model seconds / wall, as the stage itself reports it and as seen from outside.

    python benchmarks/overhead.py [clips] [folder] [profile]

The networks, frames, steps and shards are those of the demo (`params.yaml`), or of a profile over it. They are trained for one
step only, on ten clips, as weights do not change what a step costs; nothing else is different from `cinefab sample` and, after
it, `curate`. The first figure is that of the stage, the second of the whole command, with the start of Python, torch, Prefect
and its server, which a longer set pays once as well. What the stages recorded is then in the folder's data/timing
(`benchmarks/scale.py take`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from tasks.profiles import apply_profiles

ROOT = Path(__file__).parents[1]


def main(clips: int = 512, folder: str | None = None, profile: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(folder or scratch)
        place.mkdir(parents=True, exist_ok=True)
        params = place / "params.yaml"
        params.write_text((ROOT / "params.yaml").read_text())
        if profile:
            apply_profiles(params, [ROOT / "profiles" / f"{profile}.yaml"])
        tree = yaml.safe_load(params.read_text())
        for trained in (*map(tree["generators"]["sfvd"].get, ("psi", "scene", "motion")), *tree["critics"].values()):
            trained["train"]["steps"] = 1
        tree["dataset"]["options"] |= {"patients": 10, "clips_per_patient": 1}
        tree["dataset"]["annotated_patients"] = None
        tree["conditions"]["count"] = min(tree["conditions"]["count"], clips)
        tree["samples"]["sfvd"]["clips"] = clips
        params.write_text(yaml.safe_dump(tree, sort_keys=False))
        for stage in ("prepare", "condition", "train sfvd"):
            run(place, stage)
        seconds = run(place, "sample sfvd")
        for stage in (*(f"critic {name}" for name in tree["critics"]), "curate sfvd"):
            run(place, stage)
        took = json.loads((place / "data/timing/sample/sfvd.json").read_text())
    sys.stdout.write(
        f"{took['clips']} clips of {took['clip']}, {took['shards']} shards, {took['workers']} at a time; "
        f"{os.cpu_count()} cores, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'unset')}, load {os.getloadavg()[0]:.1f}\n"
        f"model {took['model_seconds']:.1f} s, stage {took['wall_seconds']:.1f} s: overhead {took['overhead']:.2%}\n"
        f"whole command {seconds:.1f} s: overhead {1 - took['model_seconds'] / (took['workers'] * seconds):.2%}\n"
    )


def run(place: Path, stage: str) -> float:
    """Seconds that a stage's command takes."""
    began = time.perf_counter()
    where = ["--params", str(place / "params.yaml"), "--data", str(place / "data")]
    environment = {**os.environ, "PREFECT_HOME": str(place / "prefect")}
    subprocess.run([sys.executable, "-m", "flows", *stage.split(), *where], cwd=ROOT, check=True, env=environment)
    return time.perf_counter() - began


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:4])

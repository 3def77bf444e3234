"""The stages of a line of seconds, for tests of what happens around stages: `sample` makes clips, `release` takes them all.

Its clips are numbers; the release's table and facts are as the line writes them. A file `wait` in the folder holds up the first
stage, `audit.most: 0` has the release refused.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import yaml

TREE = yaml.safe_load(Path("params.yaml").read_text())
CLIPS = TREE["samples"]["sfvd"]["clips"]


def release() -> None:
    out = Path("data/release")
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(f"manifests/{CLIPS}.parquet", out / "manifest.parquet")
    (out / "release.json").write_text(json.dumps({
        "name": TREE["release"]["name"], "version": TREE["release"]["version"], "checkpoints": {"sfvd": "c" * 32},
        "counts": {"clips": CLIPS, "sampled": CLIPS + 2, "dropped": 2, "conditions": 1, "patients": 1},
        "audit": {"copies": 0, "withheld": 0, "clips": CLIPS, "value": 0.0, "low": 0.0, "high": 0.25},
    }))


def refuse() -> None:
    from prefect import flow

    from flows.server import run_linked
    from tasks.release import RefusedError

    @flow(name="release")
    def refused() -> None:
        raise RefusedError("audit: 3 of 4 accepted clips are near copies")

    run_linked(refused)


if __name__ == "__main__":
    Path("data").mkdir(exist_ok=True)
    if sys.argv[1] == "sample":
        Path("data/clips").write_text(str(CLIPS))
        while Path("wait").exists():
            time.sleep(0.1)
    elif TREE["audit"]["most"] == 0:
        refuse()
    else:
        release()

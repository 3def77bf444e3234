"""What making a synthetic set took: seconds inside the generator against the wall, and bytes.

Two runs that make the same bytes take different seconds, so these files lie beside the stages' outputs, not in them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tasks.curate import EVIDENCE
from tasks.devices import compute_threads, first_device
from tasks.sample import Made
from tasks.store import ClipStore
from tasks.tables import write_json


def sampling_time(made: Sequence[Made], wall_seconds: float, workers: int, clips: Path, out: Path) -> dict[str, Any]:
    """Write and return what the shards that one run made took; nothing is written if it made none.

    `overhead` is 1 - model seconds / (workers * wall seconds), in 0..1: all that is not the generator at work, be it planning,
    storing, Prefect, or workers that wait for the last shard.

    Args:
        made: of every shard that was asked for.
        wall_seconds: from the stage's first step to its last.
        workers: shards that can be made at a time.
        clips: the finished set.
        out: the file.
    """
    numbers = {"clips": sum(one.clips for one in made), "shards": sum(one.clips > 0 for one in made), "workers": workers,
               "model_seconds": sum(one.model_seconds for one in made), "cpu_seconds": sum(one.cpu_seconds for one in made),
               "wall_seconds": wall_seconds}
    if not numbers["clips"]:
        return {}
    store = ClipStore.open(clips / "clips.zarr")
    shards = range(-(-len(store) // store.shard_clips))
    stored = sum(file.stat().st_size for shard in shards for file in store.files(shard).values())
    found = {**numbers, **_machine(), "overhead": 1 - numbers["model_seconds"] / (workers * wall_seconds),
             "bytes_a_clip": stored / len(store), "shard_clips": store.shard_clips,
             "clip": dict(zip(("frames", "height", "width", "channels"), store.arrays["frames"].shape, strict=True))}
    write_json(out, found)
    return found


def curation_time(clips: int, wall_seconds: float, workers: int, decisions: Path, out: Path) -> None:
    """Write what scoring and deciding took, of all filters together, before the evidence is cleared.

    `evidence_bytes_a_clip` is what the filter with most of it holds in memory when it decides on the whole set.
    """
    sizes = [sum(file.stat().st_size for file in folder.iterdir()) for folder in (decisions / EVIDENCE).glob("*")]
    write_json(out, {"clips": clips, "workers": workers, "wall_seconds": wall_seconds, **_machine(),
                     "evidence_bytes_a_clip": max(sizes, default=0) / clips})


def _machine() -> dict[str, Any]:
    """What the seconds were spent on; a load above the number of cores says that others were waiting too."""
    device = first_device()
    name = device if device == "cpu" else torch.cuda.get_device_name(device)
    return {"device": name, "cores": os.cpu_count(), "threads": compute_threads(),
            "load": round(os.getloadavg()[0], 1)}

"""What a set costs beside the generator, clip by clip, as it grows: planning, storing, sealing.

    python benchmarks/bookkeeping.py [clips ...] > docs/results/bookkeeping.json

The generator is one that does nothing; the plan, the shards, their records, the provenance and all that reads and writes them
are the line's own, with clips of the demo's size. Every size has a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DModel

sys.path.insert(0, str(Path(__file__).parents[1]))

from models.clip import ClipBatch, Condition
from models.generators import Checkpoint
from tasks import sample
from tasks.checkpoints import save_checkpoint
from tasks.params import SampleParams
from tasks.records import ConditionRecord
from tasks.store import ArraySpec, ClipStore
from tasks.tables import write_table

FRAMES, SIDE, SHARD, DRAWS = 8, 40, 64, 10
"""Clips of FRAMES x SIDE x SIDE, SHARD to a shard, DRAWS of each condition."""


class Idle:
    """A generator whose clips cost nothing: noise, which compresses less than any picture."""

    def draws(self, seeds: Sequence[int], sampling: Any) -> list[dict[str, float]]:
        return [{"gamma": 0.5} for _ in seeds]

    def sample(self, conditions: Condition, seeds: Sequence[int], sampling: Any, device: str = "cpu") -> ClipBatch:
        return ClipBatch(conditions.ids, torch.rand(len(seeds), FRAMES, 1, SIDE, SIDE) * 2 - 1, conditions)


def measure(clips: int, folder: Path) -> dict[str, float]:
    """Seconds of each part, and the peak of memory so far in MB."""
    bank = clips // DRAWS
    arrays = {"masks": ArraySpec((FRAMES, SIDE, SIDE), "uint8")}
    store = ClipStore.create(folder / "conditions" / "bank.zarr", arrays, 1024, "f")
    for shard, start in enumerate(range(0, bank, 1024)):
        size = min(1024, bank - start)
        masks = np.zeros((size, FRAMES, SIDE, SIDE), np.uint8)
        store.write_shard(shard, [f"{start + row:032x}" for row in range(size)], {"masks": masks})
    store.finish(bank)
    rows = [ConditionRecord(f"{row:032x}", ["p"], ["c"], None, "") for row in range(bank)]
    write_table(folder / "conditions" / "conditions.parquet", rows, ConditionRecord)
    net = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4,
                      layers_per_block=1, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))
    checkpoint = Checkpoint("sfvd", {}, {"scene": net}, {"clip_shape": [FRAMES, 1, SIDE, SIDE]}, {})
    save_checkpoint(folder / "g", checkpoint, fingerprint="f", trained_on={})
    sample._generator = lambda *of: Idle()  # type: ignore[assignment]
    wanted = SampleParams(generator="g", clips=clips, shard_clips=SHARD, batch_clips=16)
    found: dict[str, float] = {"clips": clips}
    began = time.perf_counter()
    left = sample.plan_shards(wanted, 0, folder / "g", folder / "conditions", folder / "set")
    found["plan_seconds"] = time.perf_counter() - began
    idle = 0.0
    began = time.perf_counter()
    for shard in left:
        idle += sample.sample_shard(shard, folder / "g", folder / "conditions", folder / "set").model_seconds
    found["store_seconds"] = time.perf_counter() - began - idle
    began = time.perf_counter()
    sample.finish("g", folder / "conditions", folder / "g", folder / "set")
    found["finish_seconds"] = time.perf_counter() - began
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**{name: round(value, 3) for name, value in found.items()}, "clips": clips, "shards": len(left),
            "cores": os.cpu_count() or 1, "load": round(os.getloadavg()[0], 1)}


def main(sizes: Sequence[str]) -> None:
    found = []
    for size in sizes or ("1000", "10000", "100000"):
        with tempfile.TemporaryDirectory() as folder:
            said = subprocess.run([sys.executable, __file__, "one", size, folder], check=True, stdout=subprocess.PIPE).stdout
        found.append(json.loads(said))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        sys.stdout.write(json.dumps(measure(int(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main(sys.argv[1:])

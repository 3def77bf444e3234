"""A random clip: the store's reader against zarr's own default, in one process, on the same files.

    python benchmarks/read_clip.py [clips] [rounds]

Rounds are interleaved, so that a busy machine slows both; the ratio is taken round by round. The page cache is warm.
"""

from __future__ import annotations

import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import zarr
from numcodecs.zstd import compress, decompress
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).parents[1]))

from tasks.store import ArraySpec, ClipStore

SHAPE = (16, 128, 128, 1)
SHARD = 64
READS = 64


def speckle(rng: np.random.Generator, clips: int) -> NDArray[np.uint8]:
    """Clips of smoothed Rayleigh noise inside a fan, about as compressible as ultrasound."""
    noise = gaussian_filter(rng.rayleigh(60, (clips, *SHAPE)), (0, 0.7, 1, 1, 0))
    rows, columns = np.mgrid[: SHAPE[1], : SHAPE[2]]
    fan = np.abs(columns - SHAPE[2] / 2) < 10 + 0.5 * rows
    return (noise.clip(0, 255) * fan[None, None, :, :, None]).astype(np.uint8)


def measure(read: Callable[[int], object], rows: NDArray[np.int64]) -> tuple[float, float]:
    """Microseconds a clip: CPU of the whole process, and wall."""
    cpu, wall = time.process_time(), time.perf_counter()
    for row in rows.tolist():
        read(row)
    return (time.process_time() - cpu) / len(rows) * 1e6, (time.perf_counter() - wall) / len(rows) * 1e6


def main(clips: int = 512, rounds: int = 11) -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        store = ClipStore.create(Path(folder) / "clips.zarr", {"frames": ArraySpec(SHAPE, "uint8")}, SHARD, "benchmark")
        for shard in range(-(-clips // SHARD)):
            count = min(SHARD, clips - shard * SHARD)
            store.write_shard(shard, [f"{shard}/{row}" for row in range(count)], {"frames": speckle(rng, count)})
        store.finish(clips)
        store = ClipStore.open(store.path)
        plain = zarr.open_array(store.path / "frames", mode="r")
        for row in range(clips):  # equal bytes first; this also warms the page cache
            np.testing.assert_array_equal(store.load([row])["frames"][0], plain[row])
        frame = compress(plain[0], 3)  # decoding alone: the floor under both
        ours, theirs, floor = [], [], []
        for _ in range(rounds):
            rows = rng.integers(0, clips, READS)
            ours.append(measure(lambda row: store.load([row]), rows))
            theirs.append(measure(lambda row: plain[row], rows))
            floor.append(measure(lambda row: decompress(frame), rows))
        stored = sum(file.stat().st_size for file in store.path.rglob("c.*"))
        packages = ", ".join(f"{name} {version(name)}" for name in ("zarr", "numcodecs", "numpy"))
        lines = [
            f"{clips} clips {SHAPE} uint8, shards of {SHARD}, zstd 3, crc32c: {clips * np.prod(SHAPE) / stored:.2f}x smaller",
            f"{rounds} rounds of {READS} random clips; {platform.machine()}, Python {platform.python_version()}, {packages}",
        ]
        for place, clock in enumerate(("CPU", "wall")):
            own, other, least = ([one[place] for one in kind] for kind in (ours, theirs, floor))
            ratios = sorted(slow / fast for slow, fast in zip(other, own, strict=True))
            middles = [f"{name} {statistics.median(values):.0f}" for name, values in
                       (("reader", own), ("zarr", other), ("zstd alone", least))]  # fmt: skip
            spread = f"{statistics.median(ratios):.1f} (median of rounds; {ratios[0]:.1f} to {ratios[-1]:.1f})"
            lines.append(f"{clock:4} us a clip: {', '.join(middles)}; ratio {spread}")
        sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))

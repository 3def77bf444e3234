"""A random clip of a released version, nothing checked out: `open_release` against zarr's own default over DVC's file system.

    python benchmarks/read_version.py [clips] [rounds]

The version is a tag of a scratch repository; its files are in DVC's cache. Frames and masks are read, as `open_release` always
does, and compared first. Beside it is zarr on a folder that was checked out, as somebody without either would read it. The
first time a clip is read its digest is compared as well, which is shown apart, from releases opened anew. Rounds are
interleaved, so that a busy machine slows all; ratios are taken round by round. The last line is what one pass in batches adds
to the process.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import zarr
from dvc.api import DVCFileSystem
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from read_clip import SHAPE, SHARD, measure, speckle
from zarr.storage import FsspecStore

sys.path.insert(0, str(Path(__file__).parents[1]))

from tasks.open_release import Release, open_release
from tasks.release import ReleasedClip
from tasks.store import ArraySpec, ClipStore
from tasks.tables import file_digest, write_json, write_table

READS = 32
ARRAYS = {"frames": ArraySpec(SHAPE, "uint8"), "masks": ArraySpec(SHAPE[:-1], "uint8")}
Read = Callable[[int], dict[str, np.ndarray]]


class Ranged(DVCFileSystem):
    """The least that lets zarr read shards through DVC: a range of a file is a seek and a read."""

    cachable = False

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: object) -> bytes:
        with self.open(path, "rb") as file:
            if start is not None:
                file.seek(start, os.SEEK_END if start < 0 else os.SEEK_SET)
            content: bytes = file.read() if end is None else file.read(end - file.tell())
            return content


def make(folder: Path, clips: int) -> None:
    """A repository with one released version of so many clips."""
    release = folder / "data" / "release"
    store = ClipStore.create(release / "clips.zarr", ARRAYS, SHARD, "benchmark")
    rng = np.random.default_rng(0)
    for shard, start in enumerate(range(0, clips, SHARD)):
        frames = speckle(rng, min(SHARD, clips - start))
        pixels = {"frames": frames, "masks": (frames[..., 0] > 90).astype(np.uint8)}
        store.write_shard(shard, [f"clip{start + row}" for row in range(len(frames))], pixels)
    store.finish(clips)
    rows = [ReleasedClip(clip, "condition", [], "sfvd", None, "", [], *SHAPE[:3], digest)
            for clip, digest in zip(store.ids, store.digests, strict=True)]
    write_table(release / "manifest.parquet", rows, ReleasedClip)
    files = {"manifest.parquet": file_digest(release / "manifest.parquet")}
    write_json(release / "release.json", {"store_digest": store.digest, "files": files})
    (folder / "dvc.yaml").write_text('stages: {release: {cmd: "true", outs: [data/release]}}\n')
    for words in ("git init -q", "dvc init -q", "dvc config cache.type hardlink", "dvc commit -q -f", "git add -A",
                  "git -c user.name=b -c user.email=b@b commit -q -m v1",
                  "git -c user.name=b -c user.email=b@b tag -a speckle-v1 -m v1"):
        subprocess.run(words.split(), cwd=folder, check=True)


def by_zarr(open_array: Callable[[str], zarr.Array]) -> Read:
    arrays = {name: open_array(f"data/release/clips.zarr/{name}") for name in ARRAYS}
    return lambda row: {name: array[row] for name, array in arrays.items()}


def growth(release: Release) -> tuple[float, float]:
    """MiB that one pass adds to this process at most, and MiB that it reads."""

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    start, most, read = resident(), 0.0, 0.0
    for batch in release.batches(8, seed=1):
        most, read = max(most, resident() - start), read + batch.frames.nbytes / 2**20
    return most, read


def main(clips: int = 512, rounds: int = 9) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, clips)
        release = open_release("speckle@v1", str(folder))
        files = AsyncFileSystemWrapper(Ranged(str(folder), rev="speckle-v1"), asynchronous=True)
        sides: dict[str, Read] = {
            "open_release": lambda row: {name: values[0] for name, values in release.load([row]).items()},
            "zarr over DVC": by_zarr(lambda where: zarr.open_array(FsspecStore(files, path=where, read_only=True), mode="r")),
            "zarr, checked out": by_zarr(lambda where: zarr.open_array(folder / where, mode="r")),
        }
        for row in range(clips):
            first, *others = (read(row) for read in sides.values())
            for other in others:
                for array in ARRAYS:
                    np.testing.assert_array_equal(first[array], other[array])
        list(release.batches(8, seed=0))
        times: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
        new: list[tuple[float, float]] = []
        rng = np.random.default_rng(1)
        for _ in range(rounds):
            rows = rng.integers(0, clips, READS)
            for side, read in sides.items():
                times[side].append(measure(read, rows))
            unread = open_release("speckle@v1", str(folder))
            new.append(measure(lambda row, unread=unread: unread.load([row]), np.unique(rows)))  # type: ignore[misc]
        packages = ", ".join(f"{name} {version(name)}" for name in ("zarr", "dvc", "numcodecs", "numpy"))
        lines = [f"{clips} clips {SHAPE} uint8 with masks, shards of {SHARD}; {rounds} rounds of {READS} random clips; "
                 f"{platform.machine()}, Python {platform.python_version()}, {packages}"]
        for place, clock in enumerate(("CPU", "wall")):
            by_side = {side: [one[place] for one in measured] for side, measured in times.items()}
            own = by_side.pop("open_release")
            lines.append(f"{clock:4} us a clip: open_release {statistics.median(own):.0f}, "
                         f"{statistics.median(one[place] for one in new):.0f} the first time")
            for side, other in by_side.items():
                ratios = sorted(slow / fast for slow, fast in zip(other, own, strict=True))
                lines.append(f"     {side} {statistics.median(other):.0f}; ratio {statistics.median(ratios):.1f} "
                             f"(median of rounds; {ratios[0]:.1f} to {ratios[-1]:.1f})")
        most, read = growth(release)
        lines.append(f"one pass in batches of 8 reads {read:.0f} MiB of float frames and adds {most:.0f} MiB to the process")
        sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))

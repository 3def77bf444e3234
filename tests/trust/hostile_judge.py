"""A process that reads one input after the other as the product does, and says what came of it, how long it took and how much
memory. Its limits are its own, so that an input that ends it is known.

    lines in: {"format": ..., "path": ...}; lines out: {"outcome": ..., "said": ..., "seconds": ..., "megabytes": ...}
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from models.local_encoders import load_image_encoder
from tasks.checkpoints import FolderStates, load_checkpoint
from tasks.decoder import decoded
from tasks.open_release import open_release
from tasks.params import DecoderParams, load_params
from tasks.profiles import apply_profiles
from tasks.pull import _problems
from tasks.readers import QuarantinedError, Source, dicom, images, nifti, video
from tasks.records import Decision
from tasks.release import ReleasedClip
from tasks.store import ClipStore
from tasks.store_check import verify
from tasks.tables import read_table
from tasks.windows import check_volume

MEMORY_GB, SECONDS = 2.0, 20
"""Limits of a decoder here, and of the judge's own memory beyond what it began with."""


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def megabytes(pid: int, line: str) -> float:
    for one in Path(f"/proc/{pid}/status").read_text().splitlines():
        if one.startswith(line):
            return int(one.split()[1]) / 1000
    return 0.0


class RawData:
    """Files of one format, decoded as `prepare` has it done."""

    def __init__(self, folder: Path, format: str) -> None:
        reader, options = {"dicom": ("dicom", dicom.Params()), "mp4": ("video", video.Params()),
                           "png": ("images", images.Params(stills=True))}.get(
                               format, ("nifti", nifti.Params(images=".", masks=None)))
        self._sources = {one.name: one for one in decoded(reader, folder, options, DecoderParams(memory_gb=MEMORY_GB,
                                                                                                 seconds=SECONDS))}

    def __call__(self, path: Path) -> float:
        source: Source = self._sources[path.name]
        before = self._workers()
        for pid in before:
            reset_peak(pid)
        try:
            if path.stat().st_size == 0:
                raise QuarantinedError("is empty")
            check_volume(source.read(), 0)
        finally:
            peak = max((megabytes(pid, "VmHWM") for pid in before if psutil.pid_exists(pid)), default=0.0)
        return peak

    def _workers(self) -> list[int]:
        return [child.pid for child in psutil.Process().children(recursive=True)]


def _store(path: Path) -> None:
    store = ClipStore.open(path)
    store.load(range(len(store)))


def _verified(path: Path) -> None:
    if problems := verify(path):
        raise ValueError(problems[0])


def _state(path: Path) -> None:
    """A state that is damaged is none: training begins anew."""
    if FolderStates(path.parent, "mark").load(path.stem) is None:
        raise ValueError(f"{path}: is no training state")


def _pulled(path: Path) -> None:
    if problems := _problems(path.parent):
        raise ValueError(f"{path.parent}: {problems[0]}")


def _opened(path: Path) -> None:
    found = open_release(str(path.parent))
    found.load(range(len(found)))


def _profile(path: Path) -> None:
    params = path.with_name("merged.yaml")
    shutil.copy(path.with_name("params.yaml"), params)
    apply_profiles(params, [path])
    load_params(params)


READS: dict[str, Callable[[Path], Any]] = {
    "params.yaml": load_params,
    "profile.yaml": _profile,
    "manifest.parquet": lambda path: read_table(path, ReleasedClip),
    "decisions.parquet": lambda path: read_table(path, Decision),
    "release.json": _opened,
    "release.json, pulled": _pulled,
    "zarr group": lambda path: _store(path.parent),
    "zarr array": lambda path: _verified(path.parents[1]),
    "zarr shard": lambda path: _store(path.parents[1]),
    "zarr shard, verified": lambda path: _verified(path.parents[1]),
    "commit record": lambda path: _store(path.parents[1]),
    "checkpoint.json": lambda path: load_checkpoint(path.parent),
    "network's config.json": lambda path: load_checkpoint(path.parents[1]),
    "checkpoint weights": lambda path: load_checkpoint(path.parents[1]),
    "losses.csv": lambda path: load_checkpoint(path.parent),
    "training state": _state,
    "foreign weights": lambda path: load_image_encoder(path.parent),
    "foreign config.json": lambda path: load_image_encoder(path.parent),
}


def named(error: Exception, path: Path) -> bool:
    """Whether the message is one clear line (of a YAML file: a line a problem) that names the file, or the folder it is of."""
    lines = str(error).splitlines()
    near = {path.name, path.parent.name, path.parents[1].name, path.parents[2].name, "merged.yaml"}
    return bool(lines) and all(len(line) < 2000 and any(name in line for name in near) for line in lines)


def judge(format: str, path: Path, raw: dict[str, RawData]) -> dict[str, Any]:
    began, own = time.perf_counter(), psutil.Process().pid
    reset_peak(own)
    before, peak = megabytes(own, "VmRSS"), 0.0
    try:
        if format in READS:
            READS[format](path)
        else:
            peak = raw[format](path)
        outcome, said = "accepted", ""
    except QuarantinedError as error:
        outcome, said = "quarantined", str(error)
    except (ValueError, FileNotFoundError) as error:
        said = str(error)
        outcome = "refused" if format in READS and named(error, path) else f"raised {type(error).__name__}"
    except Exception as error:
        outcome, said = f"raised {type(error).__name__}", str(error)
    if format in READS:
        peak = megabytes(own, "VmHWM") - before
    return {"outcome": outcome, "said": said, "seconds": round(time.perf_counter() - began, 4), "megabytes": round(peak, 1)}


def main() -> None:
    np.zeros(1)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + int(MEMORY_GB * 1e9), resource.RLIM_INFINITY))
    raw: dict[str, RawData] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        path = Path(asked["path"])
        if asked["format"] not in READS and asked["format"] not in raw:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
            raw[asked["format"]] = RawData(path.parent, asked["format"])
        with suppress(BrokenPipeError):
            print(json.dumps(judge(asked["format"], path, raw)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()

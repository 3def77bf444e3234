"""    python forked_workers.py NAME@vN REPOSITORY RELEASE    exits with 0 if forked workers read the same clips as RELEASE has

A process of its own: one that has run other tests has threads of theirs, which a fork must not end with.
"""

from __future__ import annotations

import sys
from pathlib import Path

from torch.utils.data import DataLoader

from tasks.open_release import open_release
from tasks.store import ClipStore


def main(named: str, repo: str, folder: str) -> None:
    whole = ClipStore.open(Path(folder) / "clips.zarr").read(range(7))
    release = open_release(named, repo)
    release.load([0])  # in this process first, so that the workers inherit what they cannot use: a connection, say
    batches = list(DataLoader(release, batch_size=4, num_workers=2, multiprocessing_context="fork"))
    assert [clip for part in batches for clip in part["clip_id"]] == list(whole.ids)
    assert all((part["frames"] == whole.frames[start : start + 4]).all() for part, start in zip(batches, (0, 4), strict=True))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A release of any size, made without a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.release import ReleasedClip
from tasks.store import ArraySpec, ClipStore
from tasks.tables import file_digest, write_json, write_table


def release(folder: Path, clips: int, shard_clips: int, side: int = 16, frames: int = 4) -> ClipStore:
    """Speckle with masks, every third clip of class "a", written as `tasks.release` does."""
    arrays = {"frames": ArraySpec((frames, side, side, 1), "uint8"), "masks": ArraySpec((frames, side, side), "uint8")}
    store = ClipStore.create(folder / "clips.zarr", arrays, shard_clips, "hand made")
    rng = np.random.default_rng(clips)
    for shard, start in enumerate(range(0, clips, shard_clips)):
        rows = range(start, min(start + shard_clips, clips))
        pixels = {name: rng.integers(0, 256 if name == "frames" else 3, (len(rows), *spec.shape), dtype=np.uint8)
                  for name, spec in arrays.items()}
        store.write_shard(shard, [f"clip{row:06d}" for row in rows], pixels)
    store.finish(clips)
    manifest = [
        ReleasedClip(clip_id, "condition", ["patient"], "sfvd", None if row % 3 else "a", "a wire" if row % 2 else "", ["wire"],
                     frames, side, side, digest)
        for row, (clip_id, digest) in enumerate(zip(store.ids, store.digests, strict=True))
    ]
    write_table(folder / "manifest.parquet", manifest, ReleasedClip)
    files = {"manifest.parquet": file_digest(folder / "manifest.parquet")}
    write_json(folder / "release.json", {"store_digest": store.digest, "files": files})
    return store

"""A release of colour, of odd sides, with everything a manifest may hold: classes, words, masks that are empty or unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tasks.open_release import Release, open_release
from tasks.release import ReleasedClip
from tasks.store import ArraySpec, ClipStore
from tasks.tables import atomic_write, file_digest, write_json, write_table

CLIPS, FRAMES, HEIGHT, WIDTH, CLASSES = 5, 4, 9, 7, ["wire", "tip"]
ABOUT = {"title": "Wires, \"quoted\": né", "authors": ["Doe, Jane", "A Hospital"], "licence": "CC-BY-4.0",
         "url": "https://example.org/wires", "released": "2026-11-26", "modality": "US"}


def release(folder: Path, clip: dict[str, Any] | None = None, about: dict[str, Any] | None = None) -> Release:
    """Written as `tasks.release` does, and opened.

    Args:
        clip: more of `facts["clip"]`.
    """
    rng = np.random.default_rng(4)
    frames = rng.integers(0, 256, (CLIPS, FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    masks = rng.integers(0, 3, frames.shape[:4], dtype=np.uint8)
    masks[1] = 0
    masks[2, 1:3] = 255
    masks[3] = 255
    specs = {"frames": ArraySpec(frames.shape[1:], "uint8"), "masks": ArraySpec(masks.shape[1:], "uint8")}
    store = ClipStore.create(folder / "clips.zarr", specs, 2, "made here")
    for shard, start in enumerate(range(0, CLIPS, 2)):
        part = slice(start, start + 2)
        ids = [f"clip-{row}" for row in range(CLIPS)[part]]
        store.write_shard(shard, ids, {"frames": frames[part], "masks": masks[part]})
    store.finish(CLIPS)
    words = ["", "a wire, \"bent\"\nin two lines", "né à l'hôpital", "=1+1", "; \\ | <b>"]
    rows = [
        ReleasedClip(clip_id, f"condition{row % 2}", [f"p;{row}", "outside:x:y"], "sfvd", f"class {row}" if row else None,
                     words[row], [CLASSES[label - 1] for label in np.unique(masks[row]) if label in (1, 2)],
                     FRAMES, HEIGHT, WIDTH, digest)
        for row, (clip_id, digest) in enumerate(zip(store.ids, store.digests, strict=True))
    ]
    write_table(folder / "manifest.parquet", rows, ReleasedClip)
    atomic_write(folder / "README.md", b"# A card\n\n## How to open it\n\nwith zarr\n")
    write_json(folder / "release.json", {
        "name": "wires", "version": "v3", "store_digest": store.digest, "about": ABOUT if about is None else about,
        "dataset": {"name": "wires_raw", "simulated": False, "licence": "theirs", "classes": CLASSES},
        "clip": {"frames": FRAMES, "height": HEIGHT, "width": WIDTH, "channels": 3} | (clip or {}),
        "counts": {"clips": CLIPS}, "checkpoints": {"sfvd": "c" * 32},
        "files": {name: file_digest(folder / name) for name in ("manifest.parquet", "README.md")},
    })
    return open_release(str(folder))

"""Tar shards for training loops that read from front to back: frames and masks as .npy, what is known of the clip as .json."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from numpy.typing import NDArray

from tasks.exports import Cells, Clip
from tasks.tables import atomic_path

OPENED_BY = """webdataset, or anything that reads tar; in Python:

```python
import glob, webdataset
for clip in webdataset.WebDataset(sorted(glob.glob("shards/*.tar")), shardshuffle=False).decode():
    clip["__key__"], clip["frames.npy"], clip["masks.npy"], clip["json"]  # (T, H, W, C) and (T, H, W) uint8
```

The library's `decode()` opens pickles too, where a shard has some. These have none; `sha256sum -c SHA256SUMS` says whether they
are still these."""
LOSES = "Nothing of the pixels."


def write(part: int, clips: Iterable[Clip], facts: Mapping[str, Any], out: Path) -> list[Cells]:
    shard = f"shards/clips-{part:06d}.tar"
    rows = []
    named = {"user": "cinefab", "group": "cinefab", "mtime": 0, "encoder": False}
    with atomic_path(out / shard) as partial, partial.open("wb") as file, webdataset.TarWriter(file, **named) as tar:
        for clip in clips:
            tar.write({"__key__": clip.clip_id, "frames.npy": _npy(clip.frames), "masks.npy": _npy(clip.masks),
                       "json": json.dumps(clip.known, ensure_ascii=False).encode()})
            rows.append({"file": shard, "mask_file": shard})
    return rows


def heading(facts: Mapping[str, Any], rows: list[Cells]) -> str:
    shards = len({row["file"] for row in rows})
    return (f"{shards} shard{'s' if shards != 1 else ''} in the folder shards/. Clips of one condition stand together in them: "
            "shuffle while reading.")


def _npy(values: NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    np.save(content, values, allow_pickle=False)
    return content.getvalue()

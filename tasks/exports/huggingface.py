"""A folder that `datasets.load_dataset` opens: Parquet shards whose features are declared, the card with its front matter.

Frames and masks are lists of PNG pictures: exact, small, and shown by the hub's viewer.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from datasets import Features, Image, List, Value
from numpy.typing import NDArray
from PIL import Image as Picture

from tasks.exports import Cells, Clip
from tasks.tables import atomic_path

OPENED_BY = """Hugging Face datasets; in Python:

```python
import datasets, numpy as np
clips = datasets.load_dataset("FOLDER", split="train")  # the path of this folder; "." is no name to the library
frames, masks = (np.stack([np.asarray(picture) for picture in clips[0][name]]) for name in ("frames", "masks"))
```"""
LOSES = "Nothing of the pixels; grey frames come without their axis of one channel."

_KNOWN = {
    **dict.fromkeys(("clip_id", "condition_id", "generator", "label", "text", "digest"), Value("string")),
    **dict.fromkeys(("patients", "classes"), List(Value("string"))),
}
_FEATURES = Features(_KNOWN | {"frames": List(Image()), "masks": List(Image())})


def write(part: int, clips: Iterable[Clip], facts: Mapping[str, Any], out: Path) -> list[Cells]:
    shard = f"data/train-{part:06d}.parquet"
    stored, rows = [], []
    for clip in clips:
        known = {name: clip.known[name] for name in _KNOWN}
        stored.append(known | {"frames": _pictures(clip.frames), "masks": _pictures(clip.masks[..., None])})
        rows.append({"file": shard, "mask_file": shard})
    with atomic_path(out / shard) as partial:
        pq.write_table(pa.Table.from_pylist(stored, _FEATURES.arrow_schema), partial)
    return rows


def heading(facts: Mapping[str, Any], rows: list[Cells]) -> str:
    """The card's front matter, which the hub and `load_dataset` read, and a paragraph."""
    about = facts.get("about", {})
    licence = (about.get("licence") or "").lower()
    bound = next((name for most, name in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K")) if len(rows) < most),
                 "100K<n<1M")
    matter = {
        "pretty_name": about.get("title") or f"{facts['name']} {facts['version']}",
        "license": licence or "other",
        **({} if licence else {"license_name": "not-stated"}),
        "tags": ["synthetic", "medical", "video"],
        "size_categories": [bound],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
    }
    paragraph = "One split, `train`: every clip comes of training patients; validation and test are for real clips."
    return f"---\n{yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)}---\n\n{paragraph}"


def _pictures(frames: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """PNG of every (H, W, C) frame, as the feature Image stores it."""
    stored = []
    for frame in frames:
        content = io.BytesIO()
        Picture.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).save(content, "png")
        stored.append({"bytes": content.getvalue(), "path": None})
    return stored

"""Clips through a frozen extractor, measured once: features are kept by what they are features of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models import plugin
from models.clip import spread
from models.features import FeatureExtractor
from tasks.checkpoints import checkpoint_digest, load_checkpoint
from tasks.devices import first_device
from tasks.fingerprint import fingerprint
from tasks.kept import kept
from tasks.params import Entry, pretrained_folders
from tasks.records import ClipRecord
from tasks.store import ClipStore
from tasks.tables import file_digest, read_table

READ_TOGETHER, MEASURED = 32, 256
"""Clips in memory at a time; real clips of a split, spread over it, that are measured at most."""


@dataclass(frozen=True)
class Extractor:
    """An extractor on the device it looks on and, in one word, everything its features depend on besides the clips."""

    look: FeatureExtractor
    mark: str
    device: str

    def __call__(self, frames: Tensor) -> Tensor:
        """Features of clips (B, T, C, H, W), on the CPU."""
        found: Tensor = self.look(frames.to(self.device)).cpu()
        return found


def load_extractor(entry: Entry, critics: Path) -> Extractor:
    """The extractor of an entry of `control.features`.

    Raises:
        ValueError: if its critic is not trained, or its weights are not there.
    """
    params, module = plugin.params("models.features", entry), plugin.load("models.features", entry["kind"])
    weights = [file_digest(path) for folder in pretrained_folders(params)
               for path in sorted(folder.rglob("*")) if path.is_file()]
    folder = critics / params.critic if module.CRITIC else None
    device = first_device()
    look = module.build(params, load_checkpoint(folder) if folder else None).to(device)
    return Extractor(look, fingerprint(look.name, checkpoint_digest(folder) if folder else weights), device)


def real_clips(prepared: Path, split: str, most: int = MEASURED) -> tuple[ClipStore, list[int]]:
    """The prepared clips, and the rows of at most so many of a split, spread over it."""
    rows = [row for row, one in enumerate(read_table(prepared / "manifest.parquet", ClipRecord)) if one.split == split]
    return ClipStore.open(prepared / "clips.zarr"), [rows[at] for at in spread(len(rows), most)] if rows else []


def features(extractor: Extractor, clips: ClipStore, rows: Sequence[int], cache: Path) -> Tensor:
    """(N, P, D) float32 of the clips at these rows: D features at each of P places, the frames or the whole clip.

    From the cache where they are in it, and put there where they are not.
    """

    def look() -> dict[str, Tensor]:
        parts = [extractor(clips.read(rows[start : start + READ_TOGETHER]).frames)
                 for start in range(0, len(rows), READ_TOGETHER)]
        found = torch.cat(parts)
        return {"features": (found[:, None] if found.ndim == 2 else found).contiguous()}

    digests = clips.digests
    return kept(cache, fingerprint(extractor.mark, [digests[row] for row in rows]), look)["features"]

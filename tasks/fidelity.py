"""How far a synthetic set's frames are, as a distribution, from the real training clips' frames.

A distance of single frames: it does not see the order they come in, so it says whether pictures are as good with motion as
without. Its encoder is the line's own VAE of real training frames; it is no FID, whose encoder is Inception.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.clip import ClipSource
from models.critics import vae
from models.generators import Checkpoint
from tasks.checkpoints import load_checkpoint
from tasks.metrics.frechet import Moments, frechet_distance
from tasks.records import ClipRecord
from tasks.statistics import resamples
from tasks.store import ClipStore
from tasks.tables import read_table, write_json
from tasks.train import training_clips

READ_TOGETHER, MEASURED, GRID, DRAWS = 32, 256, 4, 200
"""Clips in memory at a time; real clips that are measured at most; latents are averaged over GRID x GRID parts of the frame;
bootstrap samples."""


def fidelity(critic: Path, prepared: Path, clips: Path, out: Path) -> dict[str, Any]:
    """Write `fidelity.json` of a set: {"frames": {value, low, high, real, clips, what}}.

    `value` is the Fréchet distance to the training clips' frames, with a 95 % bootstrap interval over synthetic clips (which
    lies a little high: a sample drawn with repeats is less varied); `real` is that of held-out patients' clips, as many.
    """
    encoder = load_checkpoint(critic)
    real, _ = training_clips(prepared)
    made = ClipStore.open(clips / "clips.zarr")
    held_out = _held_out(prepared)
    known = _gaussian(_moments(encoder, real, _spread(len(real), MEASURED)))
    own = _moments(encoder, made, range(len(made)))
    draws = frechet_distance(known, own.gaussians(torch.from_numpy(resamples(len(made), DRAWS, np.random.default_rng(0)))))
    low, high = (float(draws.quantile(share)) for share in (0.025, 0.975))
    others = _moments(encoder, held_out, _spread(len(held_out), min(MEASURED, len(made)))) if len(held_out) else None
    found = {"frames": {
        "value": float(frechet_distance(known, _gaussian(own))), "low": low, "high": high,
        "real": float(frechet_distance(known, _gaussian(others))) if others else None, "clips": len(made),
        "what": "Fréchet distance of frames (VAE of real training frames)"}}
    write_json(out / "fidelity.json", found)
    return found


def _held_out(prepared: Path) -> ClipSource:
    records = read_table(prepared / "manifest.parquet", ClipRecord)
    return ClipStore.open(prepared / "clips.zarr").subset(
        [row for row, record in enumerate(records) if record.split == "test"])


def _spread(clips: int, most: int) -> list[int]:
    return torch.linspace(0, clips - 1, min(clips, most)).long().tolist()


def _gaussian(moments: Moments) -> tuple[Tensor, Tensor]:
    return moments.gaussians(torch.ones(1, len(moments.count)))


def _moments(encoder: Checkpoint, clips: ClipSource, rows: Sequence[int]) -> Moments:
    parts = [_features(encoder, clips.read(rows[start : start + READ_TOGETHER]).frames)
             for start in range(0, len(rows), READ_TOGETHER)]
    return Moments.of(torch.cat(parts))


def _features(encoder: Checkpoint, frames: Tensor) -> Tensor:
    """(B, T, C, H, W) -> (B, T, c GRID^2)."""
    latents = vae.latents(encoder, frames)
    return functional.adaptive_avg_pool2d(latents.flatten(0, 1), GRID).flatten(1).unflatten(0, latents.shape[:2])

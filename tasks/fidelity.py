"""How far a synthetic set's frames are, as a distribution, from the real training clips' frames.

A distance of single frames: it does not see the order they come in, so it says whether pictures are as good with motion as
without. It is taken at every place in the clip apart and averaged: pooled, a set whose clips flicker from picture to picture
would have many times more different frames than one whose clips hold together, and be nearer for that alone. Its encoder is the
line's own VAE of real training frames; it is no FID, whose encoder is Inception.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.clip import ClipSource, spread
from models.critics import vae
from models.generators import Checkpoint
from tasks.checkpoints import load_checkpoint
from tasks.metrics.frechet import Moments, frechet_distance
from tasks.statistics import resamples
from tasks.store import ClipStore
from tasks.tables import write_json
from tasks.train import held_out_clips, training_clips

READ_TOGETHER, MEASURED, GRID, DRAWS = 32, 256, 2, 200
"""Clips in memory at a time; real clips measured at most; latents are averaged over GRID x GRID parts of the frame, few
enough that sets of some tens of clips have a covariance; bootstrap samples."""


def fidelity(critic: Path, prepared: Path, clips: Path, out: Path) -> dict[str, Any]:
    """Write `fidelity.json` of a set: {"frames": {value, low, high, real, clips, what}}.

    `value` is the Fréchet distance to the training clips' frames, with a 95 % bootstrap interval over synthetic clips (which
    lies a little high: a sample drawn with repeats is less varied); `real` is that of held-out patients' clips, as many.
    """
    encoder = load_checkpoint(critic)
    real, _ = training_clips(prepared)
    made = ClipStore.open(clips / "clips.zarr")
    unseen, _ = held_out_clips(prepared)
    known = Moments.of(_features(encoder, real, spread(len(real), MEASURED)))
    own = _features(encoder, made, range(len(made)))
    drawn = _distance(known, own, torch.from_numpy(resamples(len(own), DRAWS, np.random.default_rng(0))))
    low, high = (float(drawn.quantile(share)) for share in (0.025, 0.975))
    others = _features(encoder, unseen, spread(len(unseen), len(own))) if len(unseen) > 1 else None
    found = {"frames": {
        "value": float(_distance(known, own, torch.ones(1, len(own)))), "low": low, "high": high,
        "real": float(_distance(known, others, torch.ones(1, len(others)))) if others is not None else None,
        "clips": len(own), "what": "Fréchet distance of frames (VAE of real training frames)"}}
    write_json(out / "fidelity.json", found)
    return found


def _distance(known: Moments, features: Tensor, weights: Tensor) -> Tensor:
    """(W,) of clips taken as often as (W, N) weights say, (N, T, D); the mean over places in the clip."""
    whole = known.gaussians(torch.ones(1, len(known.count)))
    places = [frechet_distance(whole, Moments.of(frame[:, None]).gaussians(weights)) for frame in features.unbind(1)]
    return torch.stack(places).mean(0)


def _features(encoder: Checkpoint, clips: ClipSource, rows: Sequence[int]) -> Tensor:
    """(N, T, c GRID^2 + c) of the frames of N clips: latents averaged over parts of the frame, and how they spread within it,
    which blur and noise change and averages hide."""
    parts = []
    for start in range(0, len(rows), READ_TOGETHER):
        latents = vae.latents(encoder, clips.read(rows[start : start + READ_TOGETHER]).frames)
        means = functional.adaptive_avg_pool2d(latents.flatten(0, 1), GRID).flatten(1).unflatten(0, latents.shape[:2])
        parts.append(torch.cat([means, latents.std((3, 4), correction=0)], 2))
    return torch.cat(parts)

"""How far a synthetic set's frames are, as a distribution, from the real training clips' frames.

A distance of single frames: it does not see the order they come in, so it says whether pictures are as good with motion as
without. It is taken at every place in the clip apart and averaged: pooled, a set whose clips flicker from picture to picture
would have many times more different frames than one whose clips hold together, and be nearer for that alone. Its encoder is the
line's own VAE of real training frames; it is no FID, whose encoder is Inception.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.features import features, load_extractor, real_clips
from tasks.metrics.frechet import Moments, frechet_distance
from tasks.statistics import resamples
from tasks.store import ClipStore
from tasks.tables import write_json

DRAWS = 200
"""Bootstrap samples."""


def fidelity(critic: Path, prepared: Path, clips: Path, cache: Path, out: Path) -> dict[str, Any]:
    """Write `fidelity.json` of a set: {"frames": {value, low, high, real, clips, what}}.

    `value` is the Fréchet distance to the training clips' frames, with a 95 % bootstrap interval over synthetic clips (which
    lies a little high: a sample drawn with repeats is less varied); `real` is that of held-out patients' clips, as many.
    """
    encoder = load_extractor({"kind": "vae", "critic": critic.name}, critic.parent)
    made = ClipStore.open(clips / "clips.zarr")
    known = Moments.of(features(encoder, *real_clips(prepared, "train"), cache))
    own = features(encoder, made, range(len(made)), cache)
    drawn = _distance(known, own, torch.from_numpy(resamples(len(own), DRAWS, np.random.default_rng(0))))
    low, high = (float(drawn.quantile(share)) for share in (0.025, 0.975))
    store, rows = real_clips(prepared, "test", len(own))
    others = features(encoder, store, rows, cache) if len(rows) > 1 else None
    found = {"frames": {
        "value": float(_distance(known, own, torch.ones(1, len(own)))), "low": low, "high": high,
        "real": float(_distance(known, others, torch.ones(1, len(others)))) if others is not None else None,
        "clips": len(own), "what": "Fréchet distance of frames (VAE of real training frames)"}}
    write_json(out / "fidelity.json", found)
    return found


def _distance(known: Moments, seen: Tensor, weights: Tensor) -> Tensor:
    """(W,) of clips taken as often as (W, N) weights say, (N, T, D); the mean over places in the clip."""
    whole = known.gaussians(torch.ones(1, len(known.count)))
    places = [frechet_distance(whole, Moments.of(frame[:, None]).gaussians(weights)) for frame in seen.unbind(1)]
    return torch.stack(places).mean(0)

"""How far a synthetic set is, as a distribution of clips, from the real training clips, in the eyes of several frozen networks.

Beside every number is what other patients' real clips give in the set's place: no set can be expected to be nearer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.features import Extractor, features, load_extractor, real_clips
from tasks.metrics.distribution import METRICS, compare, flags, resampled
from tasks.params import ControlParams
from tasks.statistics import resamples
from tasks.store import ClipStore
from tasks.tables import write_json

DRAWS = 200
"""Bootstrap samples."""


def distribution(params: ControlParams, critics: Path, prepared: Path, clips: Path, cache: Path, out: Path) -> dict[str, Any]:
    """Write `distribution.json` of a set: by name of extractor {clips, frames, features, metrics}.

    `clips` are how many of each set were compared. A metric is {name, value, low, high, real, direction, span, what,
    flags}: `name` is the published one, if the extractor has earned it; the 95 % bootstrap interval is over the clips that
    `tasks.metrics.distribution` says; `real` is the value of held-out patients' clips, as many as the set has, if there are as
    many. None where there is no such number; `flags` say what is doubtful.
    """
    found = {}
    for entry in params.extractors:
        extractor = load_extractor(entry, critics)
        found[extractor.look.name] = _seen(extractor, prepared, clips, cache)
    write_json(out / "distribution.json", found)
    return found


def _seen(extractor: Extractor, prepared: Path, clips: Path, cache: Path) -> dict[str, Any]:
    made = ClipStore.open(clips / "clips.zarr")
    known = features(extractor, *real_clips(prepared, "train"), cache)
    own = features(extractor, made, range(len(made)), cache)
    store, rows = real_clips(prepared, "test", len(own))
    others = features(extractor, store, rows, cache) if rows else None
    sizes = {"training": len(known), "synthetic": len(own), "held-out": len(rows)}
    return {"clips": sizes, "frames": made.arrays["frames"].shape[0], "features": own.shape[2],
            "metrics": {name: {"name": extractor.look.earned.get(name, name), **one}
                        for name, one in measured(known, own, others).items()}}


def measured(known: Tensor, own: Tensor, others: Tensor | None) -> dict[str, dict[str, Any]]:
    """Every metric of features (N, P, D) of training, (M, P, D) synthetic and (K, P, D) held-out clips, as in the file."""
    rng = np.random.default_rng(0)
    drawn = resampled(known, own, *(torch.from_numpy(resamples(len(one), DRAWS, rng)) for one in (known, own)))
    values = compare(known, own)
    beside = compare(known, others) if others is not None else {}
    held_out = 0 if others is None else len(others)
    found = {}
    for name, one in METRICS.items():
        # nan: of a few clips a resample may be one clip alone, again and again, which has no pair
        low, high = drawn[name].nanquantile(torch.tensor([0.025, 0.975]).double()).tolist() if name in drawn else (None, None)
        doubts = flags(name, {"training": len(known), "synthetic": len(own)}, own.shape[2])
        if held_out < len(own):
            doubts.append(f"{held_out} held-out clips stand beside {len(own)} synthetic ones")
        found[name] = {
            "value": float(values[name]) if name in values else None, "low": low, "high": high,
            "real": float(beside[name]) if name in beside else None,
            "direction": one.direction, "span": list(one.span), "what": one.what, "flags": doubts}
    return found

"""Does a synthetic set look and move like the real training clips?

A network can be fooled by clips that flicker or stand still; these numbers cannot. They say nothing of anatomy. None is
better the higher it is: of all clips one that stands still is the smoothest, so what counts is to lie where real clips do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.critics import vae
from models.generators import Checkpoint
from tasks.checkpoints import checkpoint_digest, load_checkpoint
from tasks.devices import first_device
from tasks.features import real_clips
from tasks.fingerprint import fingerprint
from tasks.kept import kept
from tasks.metrics.appearance import MEASURES, SPANS, along_motion, appearance, dynamic_smoothness
from tasks.params import ControlParams
from tasks.records import ProvenanceRecord
from tasks.statistics import few, pooled_mean
from tasks.store import ClipStore
from tasks.tables import read_table, write_json

READ_TOGETHER = 32
"""Clips in memory at a time."""

DIRECTION = "as real is best: within the band"
FEW = 20
"""Fewer real clips than this have no 5 % quantile worth the name."""


def look(params: ControlParams, critics: Path, prepared: Path, clips: Path, cache: Path,
         out: Path) -> dict[str, dict[str, Any]]:
    """Write `appearance.json` of a set: {value, low, high, real, band, inside, clips, frames, direction, span, what, flags} of
    every measure.

    `value` and `real` are means over synthetic and over real training clips; `low` to `high` is the 95 % bootstrap interval of
    `value` over conditions. `band` is where 90 % of the real clips lie, and `inside` the share of synthetic clips that lie
    there too. Clips of two frames have no smoothness, and without `params.vae` there is no VAE-Seq.

    Raises:
        ValueError: if the VAE is not trained.
    """
    folder = critics / params.vae if params.vae else None
    critic = load_checkpoint(folder, first_device()) if folder else None
    mark = checkpoint_digest(folder) if folder else ""
    real, rows = real_clips(prepared, "train")
    made = ClipStore.open(clips / "clips.zarr")
    of_real = _measured(real, rows, critic, mark, cache)
    of_set = _measured(made, range(len(made)), critic, mark, cache)
    conditions = [record.condition_id for record in read_table(clips / "provenance.parquet", ProvenanceRecord)]
    sizes = {"training": len(rows), "synthetic": len(made)}
    doubts = few(len(set(conditions)), "conditions")
    doubts += [f"{len(rows)} real clips: where 90 % of so few lie is rough"] if len(rows) < FEW else []
    found = {}
    for name, own in of_set.items():
        low, high = of_real[name].quantile(torch.tensor([0.05, 0.95]).double()).tolist()
        mean = pooled_mean(own.numpy(), conditions)
        ends = {"low": mean.low, "high": mean.high} if mean.n > 1 else {"low": None, "high": None}
        inside = ((own >= low) & (own <= high)).double().mean()
        found[name] = {"value": mean.mean, **ends, "real": float(of_real[name].mean()), "band": [low, high],
                       "inside": float(inside), "clips": sizes, "frames": made.arrays["frames"].shape[0],
                       "direction": DIRECTION, "span": list(SPANS[name]), "what": MEASURES[name], "flags": doubts}
    write_json(out / "appearance.json", found)
    return found


def _measured(clips: ClipStore, rows: Sequence[int], critic: Checkpoint | None, mark: str, cache: Path) -> dict[str, Tensor]:
    """(N,) float64 of every measure of the clips at these rows; real clips are measured once for all sets."""

    def measure() -> dict[str, Tensor]:
        parts = [_measure(clips.read(rows[start : start + READ_TOGETHER]).frames, critic)
                 for start in range(0, len(rows), READ_TOGETHER)]
        return {name: torch.cat([part[name] for part in parts]).double() for name in parts[0]}

    digests = clips.digests
    there = kept(cache, fingerprint("appearance", mark, [digests[row] for row in rows]), measure)
    return {name: there[name] for name in MEASURES if name in there}


def _measure(frames: Tensor, critic: Checkpoint | None) -> dict[str, Tensor]:
    found = appearance(frames)
    if frames.shape[1] > 2:
        found["dynamic_smoothness"] = dynamic_smoothness(frames)
        found["dynamic_smoothness_flow"] = dynamic_smoothness(frames, along_motion)
    if critic:
        found["vae_seq"] = vae.vae_seq(vae.latents(critic, frames))
    return found

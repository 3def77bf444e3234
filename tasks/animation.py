"""Does a generator that animates stills do so well? Looked at on held-out patients' clips, which it never saw.

Three questions: is a clip that goes through the autoencoder nearer to itself than its first frame, repeated, is; do samples of
one still differ from each other by more than the autoencoder's own noise; and do samples move as the real clips do that those
stills start. All are answered clip by clip, averaged over each patient's clips, with 95 % bootstrap intervals over patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import plugin
from models.clip import ClipBatch, spread, to_uint8
from models.generators import StillAnimator, build
from models.lpips import load_lpips
from models.motion import optical_flow
from models.seeding import derive_seed, generator
from tasks.checkpoints import RECORD, load_checkpoint
from tasks.metrics.appearance import MEASURES, appearance
from tasks.metrics.diversity import motions_apart, pixels_apart
from tasks.nearness import Nearness, measures
from tasks.params import ControlParams, Entry
from tasks.pictures import panels, small_webp, tile
from tasks.statistics import bootstrap_mean, cluster_means
from tasks.tables import atomic_write, read_json, write_json
from tasks.train import held_out_clips
from tasks.variety import Variety

MEASURED, READ_TOGETHER = 48, 4
"""Held-out clips, spread over the test split, that are measured at most; clips at a time, each with all its draws."""

SEEDS = (0, 1, 2, 3)
"""Of the samples of every still; as many reconstructions of every clip are drawn beside them."""

SHOWN, SHOWN_SEEDS = 3, 3
"""Clips in the moving picture, and samples of each."""

DIVERSITY = {
    "pixels": "mean absolute difference of a pixel (in [-1, 1]) between two clips of one still, after the first frame",
    "motion": "mean distance between two such clips' motion fields from frame to frame, pixels (optical flow)",
}
MOTION = ("motion_energy", "frame_change", "warping_error")

Numbers = dict[str, dict[str, Tensor]]
"""measure -> whose -> (N,), one number a clip."""


@dataclass(frozen=True)
class Animated:
    """B real clips and what a generator makes of them, all in [-1, 1] and on the CPU.

    Attributes:
        real, reconstructed: (B, T, C, H, W).
        redrawn: (B, S, T, C, H, W) reconstructions, each with its latent drawn from the encoder's posterior.
        sampled: (B, S, T, C, H, W) samples of the first frame.
    """

    real: Tensor
    reconstructed: Tensor
    redrawn: Tensor
    sampled: Tensor


def animation(params: ControlParams, sampling: Entry, prepared: Path, checkpoint: Path, critics: Path, out: Path,
              device: str = "cpu") -> dict[str, Any]:
    """Write `animation.json` and `animation.webp` of a set whose generator animates stills; {} and no file for another one.

    The numbers: "clips", "patients" and "samples" (of a still) are counts, "sentences" say the first two results in words, and

    - "reconstruction": {value, repeated, margin, low, high, excludes_0, what} of every measure, of the frames after the first;
      `repeated` is that of the first frame in their place, `margin` by how much the reconstruction is nearer;
    - "diversity": {samples, reconstructions, ratio, difference, low, high, excludes_0, what} of pixels, of motion, and of the
      features of every network of `control.features`, by its name;
    - "motion": {samples, reconstructions, real, difference, low, high, excludes_0, what}, difference being samples minus real.

    The picture has a clip a row: real, its reconstruction, samples of its first frame.

    Args:
        params: `vae`, `perceptual` and `lpips` add distances in their eyes.
        sampling: options of the generator's `Sampling`, as the set has them.
        checkpoint: the set's generator.
        device: where the generator runs.
    """
    for name in ("animation.json", "animation.webp"):
        (out / name).unlink(missing_ok=True)  # of a generator that the set had before
    if not animates(checkpoint):
        return {}
    clips, patients = held_out_clips(prepared)
    rows = spread(len(clips), MEASURED)
    if not rows:
        return {}
    made = load_checkpoint(checkpoint)
    animator: Any = build(made.kind, made.params, made)
    options = plugin.params("models.generators", {"kind": made.kind, **sampling}, "Sampling")
    lpips = load_lpips(params.lpips) if params.lpips else None
    near, variety = measures(params, critics, lpips), Variety(params, critics, lpips)
    parts = [_measure(animate(animator, clips.read(rows[start : start + READ_TOGETHER]), options, device), near, variety)
             for start in range(0, len(rows), READ_TOGETHER)]
    numbers = {what: {whose: torch.cat([part[what][whose] for part in parts]) for whose in values}
               for what, values in parts[0].items()}
    found = summary(numbers, near, DIVERSITY | variety.what, [patients[row] for row in rows])
    shown = animate(animator, clips.read([rows[place] for place in spread(len(rows), SHOWN)]), options, device)
    atomic_write(out / "animation.webp", _film(shown))
    write_json(out / "animation.json", found)
    return found


def animates(checkpoint: Path) -> bool:
    """Whether the generator in a folder animates stills; no weights are read."""
    record = read_json(checkpoint / RECORD)
    return isinstance(build(record["kind"], record["params"]), StillAnimator)


def animate(animator: StillAnimator, clips: ClipBatch, sampling: Any, device: str = "cpu") -> Animated:
    """Clips through the autoencoder, and samples of their first frames: of S seeds, the same for every still."""
    real, many = clips.frames, len(SEEDS)
    rng = generator(derive_seed("animation", *clips.ids))
    on_device = real.to(device)
    return Animated(
        real, animator.reconstruct(on_device),
        animator.reconstruct(on_device.repeat_interleave(many, 0), rng).unflatten(0, (-1, many)),
        animator.animate(real[:, 0].repeat_interleave(many, 0), SEEDS * len(clips), sampling, device).unflatten(0, (-1, many)))


def _measure(clips: Animated, near: dict[str, Nearness], variety: Variety) -> Numbers:
    real, found = clips.real[:, 1:], clips.reconstructed[:, 1:]
    repeated = clips.real[:, :1].expand_as(real)
    numbers = {name: {"value": one.measure(found, real), "repeated": one.measure(repeated, real)}
               for name, one in near.items()}
    fields = {whose: optical_flow(draws.flatten(0, 1)).unflatten(0, draws.shape[:2])
              for whose, draws in (("samples", clips.sampled), ("reconstructions", clips.redrawn))}
    numbers["pixels"] = {"samples": pixels_apart(clips.sampled), "reconstructions": pixels_apart(clips.redrawn)}
    numbers["motion"] = {whose: motions_apart(field) for whose, field in fields.items()}
    seen = {"samples": variety(clips.sampled), "reconstructions": variety(clips.redrawn)}
    numbers |= {name: {whose: values[name] for whose, values in seen.items()} for name in variety.what}
    of_samples = appearance(clips.sampled.flatten(0, 1), fields["samples"].flatten(0, 1))
    of_found, of_real = appearance(clips.reconstructed), appearance(clips.real)
    for name in MOTION:
        numbers[name] = {"samples": of_samples[name].unflatten(0, clips.sampled.shape[:2]).mean(1),
                         "reconstructions": of_found[name], "real": of_real[name]}
    return numbers


def summary(numbers: Numbers, near: Mapping[str, Nearness], varied: Mapping[str, str],
            patients: Sequence[str]) -> dict[str, Any]:
    """What `animation` writes, from every clip's numbers; a mean is that of the patients' means.

    Args:
        numbers: of the measures of `near`, of `varied` (those of diversity, in words) and of `MOTION`.
        patients: (N,) whose clip each is.
    """

    def means(name: str) -> dict[str, float]:
        return {whose: float(cluster_means(values, patients)[0].mean()) for whose, values in _arrays(numbers[name]).items()}

    def change(name: str, first: str, second: str, sign: int = 1) -> tuple[float, dict[str, Any]]:
        arrays = _arrays(numbers[name])
        gain = bootstrap_mean(sign * (arrays[first] - arrays[second]), patients)
        low, high = (gain.low, gain.high) if gain.n > 1 else (None, None)  # one patient says nothing of others
        away = low is not None and high is not None and (low > 0 or high < 0)
        return gain.mean, {"low": low, "high": high, "excludes_0": away}

    found: dict[str, Any] = {"clips": len(patients), "patients": len(set(patients)), "samples": len(SEEDS),
                             "reconstruction": {}, "diversity": {}, "motion": {}}
    for name, one in near.items():
        margin, ends = change(name, "value", "repeated", one.sign)
        found["reconstruction"][name] = {**means(name), "margin": margin, **ends, "what": one.what}
    for name, what in varied.items():
        own = means(name)
        difference, ends = change(name, "samples", "reconstructions")
        ratio = own["samples"] / own["reconstructions"] if own["reconstructions"] else None
        found["diversity"][name] = {**own, "ratio": ratio, "difference": difference, **ends, "what": what}
    for name in MOTION:
        difference, ends = change(name, "samples", "real")
        found["motion"][name] = {**means(name), "difference": difference, **ends, "what": MEASURES[name]}
    return {**found, "sentences": {"reconstruction": _nearer(found), "diversity": _more_varied(found)}}


def _arrays(values: dict[str, Tensor]) -> dict[str, NDArray[np.float64]]:
    return {whose: one.double().numpy() for whose, one in values.items()}


def _nearer(found: dict[str, Any]) -> str:
    one = found["reconstruction"]["psnr"]
    way = "nearer to them" if one["margin"] >= 0 else "farther from them"
    verdict = "They beat it" if one["excludes_0"] and one["margin"] > 0 else "They do not beat it beyond chance"
    many = f"{found['patients']} patient{'s' if found['patients'] > 1 else ''}"
    return (f"Reconstructions of {found['clips']} held-out clips of {many} are {abs(one['margin']):.2f} dB (PSNR) {way} than "
            f"the repeated first frame ({_interval(one, 'margin', 2)}). {verdict}.")


def _more_varied(found: dict[str, Any]) -> str:
    one = found["diversity"]["pixels"]
    verdict = "differ more" if one["excludes_0"] and one["difference"] > 0 else "do not differ more, beyond chance,"
    times = "" if one["ratio"] is None else f", {one['ratio']:.2g} times"
    return (f"Samples of one still {verdict} from each other than reconstructions of one clip do: a pixel by "
            f"{one['samples']:.4f} against {one['reconstructions']:.4f}{times} ({_interval(one, 'difference', 4)}).")


def _interval(one: dict[str, Any], what: str, digits: int) -> str:
    if one["low"] is None:
        return "one patient, so no interval"
    return f"95 % CI of the {what} {one['low']:+.{digits}f} to {one['high']:+.{digits}f}"


def _film(clips: Animated) -> bytes:
    """Animated WebP, a row a clip: real, reconstruction, samples."""
    row = torch.cat([clips.real[:, None], clips.reconstructed[:, None], clips.sampled[:, :SHOWN_SEEDS]], 1)
    frames = to_uint8(row.flatten(0, 1)).movedim(2, -1).numpy()
    return small_webp(tile(panels(frames, side=96, most=1), columns=row.shape[1]))

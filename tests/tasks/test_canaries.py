"""Sets whose fault is known: what every metric says of them, in features of whole clips and of single frames.

    python tests/tasks/test_canaries.py     prints the table
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.clip import to_float
from models.features.random3d import Params, build
from tasks.distribution import measured
from tasks.metrics.distribution import METRICS

CLIPS, FRAMES, SIDE = 120, 6, 16
Found = dict[str, dict[str, Any]]


def scenes(number: int, rng: np.random.Generator) -> np.ndarray:
    """Clips (N, T, H, W) of a spot that drifts over an endless ground: any frame of one is as likely at any place in it."""
    places = np.arange(SIDE)
    start, way = rng.uniform(0, SIDE, (2, number, 1, 1)), rng.uniform(-2, 2, (2, number, 1, 1))
    y, x = ((places - start[axis] - way[axis] * np.arange(FRAMES)[:, None] + SIDE / 2) % SIDE - SIDE / 2 for axis in (0, 1))
    ground, light, size = (rng.uniform(*ends, (number, 1, 1, 1)) for ends in ((20, 100), (60, 140), (2, 4)))
    return ground + light * np.exp(-(y[..., :, None] ** 2 + x[..., None, :] ** 2) / (2 * size**2))


def by_clip(clips: np.ndarray) -> Tensor:
    """(N, 1, D) of whole clips, by the line's own extractor."""
    return build(Params(), None)(frames_of(clips))[:, None]


def by_frame(clips: np.ndarray) -> Tensor:
    """(N, T, D) by the same network, which looks at every frame as a clip of its own."""
    frames = frames_of(clips)
    return build(Params(), None)(frames.flatten(0, 1)[:, None]).unflatten(0, frames.shape[:2])


def frames_of(clips: np.ndarray) -> Tensor:
    return to_float(torch.from_numpy(clips.clip(0, 255).astype(np.uint8)))[:, :, None]


@lru_cache(maxsize=1)
def canaries() -> dict[str, dict[str, Found]]:
    """Of every set, in features of clips and of frames: all metrics, against 120 real clips and beside 120 others."""
    rng = np.random.default_rng(0)
    real, held_out, good = (scenes(CLIPS, rng) for _ in range(3))
    order = np.argsort(rng.random((CLIPS, FRAMES)), 1)
    sets = {
        "the real clips themselves": real,
        "as good as real": good,
        "mode collapse": np.repeat(good[:4], CLIPS // 4, 0),
        "noise": good + rng.normal(0, 25, good.shape),
        "frozen frames": np.repeat(good[:, :1], FRAMES, 1),
        "shuffled frames": np.take_along_axis(good, order[..., None, None], 1),
        "copier": np.repeat(real[: CLIPS // 2], 2, 0) + rng.normal(0, 1, real.shape),
    }
    found: dict[str, dict[str, Found]] = {name: {} for name in sets}
    for kind, look in KINDS.items():
        known, others = look(real), look(held_out)
        for name, clips in sets.items():
            found[name][kind] = measured(known, look(clips), others)
    return found


KINDS: dict[str, Callable[[np.ndarray], Tensor]] = {"clips": by_clip, "frames": by_frame}
DISTANCES, SHARES = ("frechet", "kid", "cmmd"), ("precision", "recall", "density", "coverage")


def test_the_real_clips_themselves_are_as_near_as_can_be() -> None:
    for found in canaries()["the real clips themselves"].values():
        assert abs(found["frechet"]["value"]) < 1e-6 and abs(found["cmmd"]["value"]) < 1e-6 and found["kid"]["value"] < 0
        assert [round(found[name]["value"], 6) for name in SHARES] == [1, 1, 1, 1]


def test_clips_as_good_as_real_stand_where_held_out_ones_do() -> None:
    for found in canaries()["as good as real"].values():
        assert all(found[name]["value"] < 2 * abs(found[name]["real"]) + 1e-6 for name in DISTANCES)
        for name in SHARES:
            assert abs(found[name]["value"] - found[name]["real"]) < 0.2, name


def test_mode_collapse_keeps_precision_and_loses_recall_and_coverage() -> None:
    found = canaries()["mode collapse"]["clips"]
    assert found["precision"]["value"] > 0.7
    assert found["recall"]["high"] < 0.2 and found["coverage"]["high"] < 0.5 < found["coverage"]["real"]
    assert all(found[name]["value"] > 2 * found[name]["real"] for name in ("frechet", "cmmd"))
    assert found["kid"]["value"] > 0 > found["kid"]["real"]


def test_noise_and_frozen_frames_are_no_real_clips() -> None:
    for name in ("noise", "frozen frames"):
        found = canaries()[name]["clips"]
        assert all(found[one]["low"] > found[one]["real"] for one in DISTANCES), name
        for one in ("recall", "density", "coverage"):
            assert found[one]["high"] < 0.6 < found[one]["real"], (name, one)


def test_only_features_of_clips_see_that_frames_are_shuffled_or_frozen() -> None:
    intact = canaries()["as good as real"]
    for name in ("shuffled frames", "frozen frames"):
        clips, frames = canaries()[name]["clips"], canaries()[name]["frames"]
        assert all(clips[one]["high"] < intact["clips"][one]["low"] for one in ("density", "coverage"))
        assert all(clips[one]["low"] > intact["clips"][one]["value"] for one in DISTANCES)
        for one in METRICS:
            spread = intact["frames"][one]["high"] - intact["frames"][one]["low"]
            assert abs(frames[one]["value"] - intact["frames"][one]["value"]) < spread + 0.01, (name, one)


def test_no_distance_tells_a_copier_from_the_best_of_generators() -> None:
    """Copies of half the training clips are nearer than other patients' real clips: the audit of copies is for that."""
    found = canaries()["copier"]["clips"]
    assert all(found[name]["value"] < found[name]["real"] for name in ("frechet", "cmmd")) and found["kid"]["value"] < 0
    assert all(found[name]["value"] >= found[name]["real"] for name in ("precision", "coverage"))


def canary_table() -> str:
    """Markdown: every set in both kinds of features; and what other patients' real clips give."""
    lines = ["| set | features of | " + " | ".join(f"{name} ({one.direction})" for name, one in METRICS.items()) + " |",
             "|---" * (len(METRICS) + 2) + "|"]
    for kind in KINDS:
        rows = {name: {one: cell["value"] for one, cell in found[kind].items()} for name, found in canaries().items()}
        rows["held-out real clips"] = {one: cell["real"] for one, cell in canaries()["as good as real"][kind].items()}
        lines += [f"| {name} | {kind} | " + " | ".join(f"{row[one]:z.3f}" for one in METRICS) + " |"
                  for name, row in rows.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    sys.stdout.write(canary_table() + "\n")

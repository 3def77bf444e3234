"""SurV-Gen learns motion from four clips: the recipe for where AnimateDiff's users report that nothing is learned.

Four clips of a spot that moves right, left, down or up. Many passes over few clips, motion modules that learn faster than an
image model would (8e-3), averaged weights: every sampled clip then moves like one of the four, and none does frame by frame.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_trainer import Memory
from torch import Tensor

from models.clip import UNKNOWN, ClipBatch, Condition, MemoryClips
from models.generators.surv_gen import Params, Sampling, build
from tasks.metrics.appearance import appearance

FRAMES, SIDE = 6, 16
DIRECTIONS = {"right": (1.5, 0.0), "left": (-1.5, 0.0), "down": (0.0, 1.5), "up": (0.0, -1.5)}


def spot(right: float, down: float) -> Tensor:
    """A bright spot that moves by so many pixels a frame through the middle, (T, 1, H, W)."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    time = torch.arange(FRAMES)[:, None, None] - (FRAMES - 1) / 2
    away = (x - SIDE / 2 - right * time) ** 2 + (y - SIDE / 2 - down * time) ** 2
    return (1.6 * torch.exp(-away / (2 * 2.2**2)) - 0.8)[:, None]


def travel(frames: Tensor) -> Tensor:
    """(B, 2) how far the spot goes from first to last frame, right and down."""
    weight = (frames[:, :, 0] + 0.8).clamp_min(0) ** 2
    grid = torch.arange(SIDE).float()
    total = weight.sum((2, 3))
    centre = torch.stack([(weight.sum(2) * grid).sum(2), (weight.sum(3) * grid).sum(2)], -1) / total[..., None]
    return centre[:, -1] - centre[:, 0]


def recipe(steps: int, batch: int, rate: float, decay: float) -> dict[str, Any]:
    return {"steps": steps, "batch_size": batch, "learning_rate": rate, "cosine": True, "warmup_steps": 10, "ema_decay": decay}


@pytest.mark.slow
def test_four_clips_are_enough_to_learn_their_motion() -> None:
    real = torch.stack([spot(*direction) for direction in DIRECTIONS.values()])
    ids = tuple(DIRECTIONS)
    asked = Condition(ids, torch.full((4, FRAMES, SIDE, SIDE), UNKNOWN, dtype=torch.uint8), ids, ("a spot",) * 4)
    params = Params.model_validate({
        "codec": {"channels": [16, 16], "train": recipe(150, 8, 3e-3, 0.9)},
        "alignment": {"width": 16, "grid": 2, "train": recipe(10, 4, 1e-3, 0.9)},
        "image": {"channels": [16, 32], "head_width": 8, "train": recipe(200, 16, 3e-3, 0.97)},
        "motion": {"heads": 2, "longest": FRAMES, "train": recipe(600, 4, 8e-3, 0.97)},
    })
    made = build(params, build(params).fit(MemoryClips(ClipBatch(ids, real, asked)), Memory(), seed=0))
    twice, seeds = asked.take([0, 1, 2, 3] * 2), range(1, 9)
    moving, alone = (made.sample(twice, seeds, Sampling(steps=15, temporal=temporal)).frames for temporal in (True, False))

    wanted, learned, apart = ({name: float(value.mean()) for name, value in appearance(one).items()}
                              for one in (real, moving, alone))
    for name in ("motion_energy", "frame_change"):
        assert learned[name] == pytest.approx(wanted[name], rel=0.25), name
        assert apart[name] > 1.6 * wanted[name], name
    assert learned["warping_error"] < 0.3 * apart["warping_error"]
    for name in ("contrast", "sharpness"):  # of frames alone, motion or not: equally good
        assert learned[name] == pytest.approx(wanted[name], rel=0.15) and apart[name] == pytest.approx(wanted[name], rel=0.15)
    gone, directions = travel(moving), (FRAMES - 1) * torch.tensor(list(DIRECTIONS.values()))
    nearest = torch.cdist(gone, directions).min(1).values
    assert (nearest < 2).sum() >= 6  # of 7.5 pixels: a clip goes one of the four ways, straight and all the way

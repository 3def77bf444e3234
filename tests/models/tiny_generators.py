"""Every generator, as small as it can be and still whole, and clips that all of them can learn from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from test_trainer import Memory

from models import plugin
from models.clip import ClipBatch, Condition, MemoryClips
from models.generators import Checkpoint, ClipGenerator, build
from models.seeding import generator
from models.trainer import StateHook

FRAMES, SIDE = 4, 16
STEPS = {"steps": 4, "batch_size": 2, "save_every": 2}
NET = {"channels": [8, 8], "attention": [], "train": STEPS}
IMAGE = {"channels": [16, 16], "head_width": 8, "train": STEPS}
CODEC = {"channels": [8, 8], "train": STEPS}
ALIGNMENT = {"width": 16, "grid": 2, "train": STEPS}
AUTOENCODER = {"width": 8, "features": 8, "train": STEPS}
TINY: dict[str, dict[str, Any]] = {
    "sfvd": {"psi": NET, "scene": NET, "motion": NET},
    "ctrl_genaug": {"codec": CODEC, "alignment": ALIGNMENT, "image": IMAGE, "sequence": STEPS},
    "surv_gen": {"codec": CODEC, "alignment": ALIGNMENT, "image": IMAGE, "motion": {"heads": 2, "longest": 8, "train": STEPS}},
    "vdm": {"video": IMAGE},
    "lvdm": {"codec": CODEC, "video": IMAGE},
    "lddm": {"autoencoder": AUTOENCODER, "denoiser": [16, 16], "diffusion": STEPS},
    "cinn": {"autoencoder": AUTOENCODER, "flow": {"couplings": 2, "width": 16, "train": STEPS}},
}


def batch(count: int = 6) -> ClipBatch:
    """Squares that move, with masks, two classes and two texts."""
    rng = generator(0)
    frames = 0.2 * torch.randn(count, FRAMES, 1, SIDE, SIDE, generator=rng) - 0.5
    masks = torch.zeros(count, FRAMES, SIDE, SIDE, dtype=torch.uint8)
    for clip in range(count):
        for frame in range(FRAMES):
            masks[clip, frame, 4:8, clip + frame : clip + frame + 4] = 1
    frames = torch.where(masks[:, :, None] == 1, 0.8, frames.clamp(-1, 1))
    ids = tuple(f"clip{number}" for number in range(count))
    labels = tuple(("still", "moving")[number % 2] for number in range(count))
    return ClipBatch(ids, frames, Condition(ids, masks, labels, tuple(f"a {label} square" for label in labels)))


def trained(kind: str, hook: StateHook | None = None) -> Checkpoint:
    """After four steps of each phase."""
    params = plugin.params("models.generators", {"kind": kind, **TINY[kind]}).model_dump(mode="json")
    made: Checkpoint = build(kind, params).fit(MemoryClips(batch()), hook or Memory(), seed=0)  # type: ignore[attr-defined]
    return made


def sampled(made: Checkpoint, device: str = "cpu") -> torch.Tensor:
    """Three clips of fixed conditions and seeds."""
    one: ClipGenerator = build(made.kind, made.params, made)
    own = batch(3)
    few = {} if made.kind == "cinn" else {"steps": 3}
    sampling = plugin.params("models.generators", {"kind": made.kind, **few}, "Sampling")
    return one.sample(replace(own.condition, reference=own.frames), [1, 2, 3], sampling, device).frames

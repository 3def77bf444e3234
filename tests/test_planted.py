"""Planted clips and the chain: what is planted is what it says, and real little critics find most of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.planted import KINDS, judge, plant
from models.clip import ClipBatch, Condition, MemoryClips, to_float
from models.critics import classifier, vae
from models.seeding import generator
from models.trainer import TrainParams
from tasks.arms import NoStates
from tasks.checkpoints import save_checkpoint

FRAMES, SIDE = 6, 16


def scenes(number: int, seed: int) -> ClipBatch:
    """A square that drifts down or right over a texture of its own, with some noise in every frame."""
    rng = np.random.default_rng(seed)
    frames = np.zeros((number, FRAMES, SIDE, SIDE, 1), np.uint8)
    labels = tuple("down" if row % 2 else "right" for row in range(number))
    for clip, label in zip(frames, labels, strict=True):
        ground = rng.integers(0, 90, (SIDE, SIDE, 1))
        top, left = rng.integers(0, 5, 2)
        for frame in range(FRAMES):
            y, x = (top + frame, left) if label == "down" else (top, left + frame)
            clip[frame] = ground + rng.integers(0, 12, ground.shape)
            clip[frame, y : y + 6, x : x + 6] += 120
    ids = tuple(f"clip{row}" for row in range(number))
    masks = torch.zeros(number, FRAMES, SIDE, SIDE, dtype=torch.uint8)
    return ClipBatch(ids, to_float(torch.from_numpy(frames)).movedim(-1, 2), Condition(ids, masks, labels))


def test_what_is_planted_is_what_it_says() -> None:
    batch = scenes(40, 0)
    planted = plant(batch, 0.25, generator(0))
    assert {kind: planted.kinds.count(kind) for kind in ("good", *KINDS)} == {"good": 40, **dict.fromkeys(KINDS, 10)}
    assert torch.equal(planted.batch.frames[:40], batch.frames)
    for clip, label, kind, group in zip(planted.batch.frames, planted.batch.condition.labels, planted.kinds, planted.groups,
                                        strict=True):
        assert group.startswith(f"{label}/")
        nearest = (batch.frames - clip).flatten(1).abs().mean(1)
        origin = int(nearest.argmin())
        if kind == "static":
            assert (clip == clip[:1]).all()
        elif kind == "wrong_class":
            assert nearest.min() == 0 and batch.condition.labels[origin] != label
        elif kind == "duplicated":
            assert 0 < nearest.min() < 0.02 and batch.condition.labels[origin] == label
        elif kind == "flickering":
            assert nearest.min() > 0.02


@pytest.fixture(scope="module")
def critics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips, folder = MemoryClips(scenes(64, 1)), tmp_path_factory.mktemp("critics")
    train = TrainParams(steps=80, batch_size=16, learning_rate=3e-3, ema_decay=0.9)
    look = vae.fit(vae.Params(channels=[8, 16], train=train), clips, NoStates(), 0)
    judged = classifier.fit(classifier.Params(network="c3d", width=8, train=train), clips, NoStates(), 0)
    for name, checkpoint in (("vae", look), ("classifier", judged)):
        save_checkpoint(folder / name, checkpoint, fingerprint="f", trained_on={})
    return folder


def test_real_critics_find_most_of_what_was_planted(critics: Path) -> None:
    filters = {"semantic": {"kind": "semantic", "critic": "classifier"}, "vae_seq": {"kind": "vae_seq", "critic": "vae"},
               "similarity": {"kind": "similarity", "critic": "vae", "threshold": 99.5}}
    beside = {"real": {**filters["vae_seq"], "rule": "real"}}
    found = judge(plant(scenes(64, 2), 0.2, generator(0)), filters, critics, beside)
    share = {name: {kind: one["share"] for kind, one in kinds.items()} for name, kinds in found.items()}
    assert share["semantic"]["wrong_class"] > 0.8 and share["semantic"]["wrong_class"] > 2 * share["semantic"]["good"]
    assert share["vae_seq"]["static"] > 0.8 and share["vae_seq"]["flickering"] > max(0.4, share["vae_seq"]["good"])
    assert share["similarity"]["duplicated"] > 0.8 and share["similarity"]["good"] < 0.2
    assert share["real"]["good"] < 0.3 and share["real"]["static"] > 0.8 and share["real"]["flickering"] > 0.8
    for kind in KINDS:
        one = found["chain"][kind]
        assert one["low"] <= one["share"] <= one["high"] and one["share"] > found["chain"]["good"]["share"]

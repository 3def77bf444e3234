"""VDM and LVDM, tiny but whole: they resume, their clips obey seeds and classes, and a class is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_ctrl_genaug import FRAMES, SIDE, asked, clips
from test_trainer import KilledError, Memory

from models import plugin
from models.generators import Checkpoint
from models.nets.volume_unet import VolumeUNet
from models.trainer import TrainState
from tasks.checkpoints import load_checkpoint, save_checkpoint

STEPS = {"steps": 4, "batch_size": 2, "save_every": 2}
TINY: dict[str, dict[str, Any]] = {
    "vdm": {"video": {"channels": [16, 16], "head_width": 8, "train": STEPS}},
    "lvdm": {"codec": {"channels": [8, 8], "train": STEPS}, "video": {"channels": [16, 16], "head_width": 8, "train": STEPS}},
}


def start(kind: str, **video: Any) -> Any:
    tree = {**TINY[kind], "video": {**TINY[kind]["video"], **video}}
    return plugin.load("models.generators", kind).build(plugin.params("models.generators", {"kind": kind, **tree}))


def sampling(kind: str, **options: Any) -> Any:
    return plugin.params("models.generators", {"kind": kind, "steps": 2, **options}, "Sampling")


def again(made: Checkpoint) -> Any:
    module = plugin.load("models.generators", made.kind)
    return module.build(module.Params.model_validate(made.params), made)


@pytest.mark.parametrize("kind", TINY)
def test_a_killed_training_ends_with_the_same_weights(kind: str) -> None:
    class Deadly(Memory):
        """Dies in the last phase, after its first save."""

        def save(self, phase: str, state: TrainState) -> None:
            super().save(phase, state)
            if phase == "video":
                raise KilledError

    whole, states = start(kind).fit(clips(), Memory(), 3), Deadly()
    with pytest.raises(KilledError):
        start(kind).fit(clips(), states, 3)
    states.__class__ = Memory
    resumed = start(kind).fit(clips(), states, 3)
    assert resumed.losses == whole.losses and list(whole.losses)[-1] == "video"
    for name, net in whole.nets.items():
        for key, value in net.state_dict().items():
            assert torch.equal(value, resumed.nets[name].state_dict()[key]), (name, key)


@pytest.mark.parametrize("kind", TINY)
def test_a_clip_is_a_function_of_its_class_and_seed(kind: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, start(kind).fit(clips(), Memory(), 0), fingerprint="f", trained_on={})
    made = again(load_checkpoint(tmp_path))
    together = made.sample(asked([0, 1, 2]), [5, 6, 7], sampling(kind, guidance=2.0)).frames
    other = made.sample(asked([3, 1]), [9, 6], sampling(kind, guidance=2.0)).frames
    torch.testing.assert_close(together[1], other[1], atol=1e-5, rtol=0)
    assert together.shape == (3, FRAMES, 1, SIDE, SIDE) and together.abs().max() <= 1
    by_class = made.sample(asked([0, 1]), [5, 5], sampling(kind)).frames
    assert not torch.allclose(by_class[0], by_class[1], atol=1e-5)
    with pytest.raises(ValueError, match=r"ask for class z, but the checkpoint knows a, b"):
        strange = asked([0])
        made.sample(type(strange)(strange.ids, strange.masks, ("z",), strange.texts), [1], sampling(kind))


def test_every_frame_sees_the_others() -> None:
    torch.manual_seed(0)
    net = VolumeUNet(1, 2, (16, 16), head_width=8)
    x, t, labels = torch.randn(1, 4, 1, 8, 8), torch.tensor([10]), torch.tensor([1])
    moved = x.clone()
    moved[:, 3] += 1
    with torch.no_grad():
        change = (net(moved, t, labels) - net(x, t, labels)).abs().amax((0, 2, 3, 4))
    assert (change > 1e-4).all() and change[3] > change[0]


def test_frames_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match=r"frame_size \[16, 16\] must be divisible by 32"):
        start("vdm", channels=[16] * 6).fit(clips(), Memory(), 0)
    with pytest.raises(ValueError, match="the codec's 2 times 5 levels of video channels"):
        start("lvdm", channels=[16] * 5).fit(clips(), Memory(), 0)


@pytest.mark.parametrize("kind", TINY)
def test_half_a_schedule_of_training_lowers_the_loss(kind: str) -> None:
    losses = start(kind, train={"steps": 60, "batch_size": 4, "learning_rate": 3e-3}).fit(clips(), Memory(), 0).losses["video"]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])

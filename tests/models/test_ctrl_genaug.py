"""Ctrl-GenAug, tiny but whole: conditions are dropped together as they should be, training resumes, clips obey their seeds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_trainer import KilledError, Memory
from torch import Tensor

from models.clip import UNKNOWN, ClipBatch, Condition, MemoryClips
from models.diffusion.joint_conditions import DropParams, Given, drop
from models.diffusion.latent_sampler import denoise_latents, latent_schedule
from models.generators import Checkpoint
from models.generators.ctrl_genaug import CtrlGenAug, Params, Sampling, build
from models.motion import alone, trajectories
from models.seeding import generator
from models.trainer import TrainState

FRAMES, SIDE, CLIPS = 4, 16, 8
STEPS = {"steps": 4, "batch_size": 2, "save_every": 2}
TINY: dict[str, Any] = {
    "codec": {"channels": [8, 8], "train": STEPS}, "alignment": {"width": 16, "grid": 2, "train": STEPS},
    "image": {"channels": [16, 16], "head_width": 8, "train": STEPS}, "sequence": STEPS,
}


def clips() -> MemoryClips:
    """A bright square that drifts right ("a") or down ("b"); the last clip says nothing."""
    frames = torch.full((CLIPS, FRAMES, 1, SIDE, SIDE), -0.8)
    for row in range(CLIPS):
        for frame in range(FRAMES):
            down, right = (2 + 2 * frame, 3 + row % 3) if row % 2 else (3 + row % 3, 2 + 2 * frame)
            frames[row, frame, 0, down : down + 4, right : right + 4] = 0.8
    ids = tuple(f"clip{row}" for row in range(CLIPS))
    labels = ("a", "b") * 3 + ("a", "")
    texts = (*("it goes down" if row % 2 else "it goes right" for row in range(CLIPS - 1)), "")
    masks = torch.full((CLIPS, FRAMES, SIDE, SIDE), UNKNOWN, dtype=torch.uint8)
    return MemoryClips(ClipBatch(ids, frames, Condition(ids, masks, labels, texts)))


def asked(rows: list[int]) -> Condition:
    batch = clips().read(rows)
    return Condition(batch.ids, batch.condition.masks, batch.condition.labels, batch.condition.texts, batch.frames)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """Trained for a few steps, then shaken, so that the zero-initialised parts speak too."""
    made = build(Params.model_validate(TINY)).fit(clips(), Memory(), seed=0)
    torch.manual_seed(0)
    for parameter in made.nets["sequence"].parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return made


def again(checkpoint: Checkpoint) -> CtrlGenAug:
    return build(Params.model_validate(checkpoint.params), checkpoint)


def test_a_killed_training_ends_with_the_same_weights() -> None:
    class Deadly(Memory):
        """Dies in the image phase, after its first save."""

        def save(self, phase: str, state: TrainState) -> None:
            super().save(phase, state)
            if len(self.steps) == 5:
                raise KilledError

    params = Params.model_validate(TINY)
    whole = build(params).fit(clips(), Memory(), seed=3)
    states = Deadly()
    with pytest.raises(KilledError):
        build(params).fit(clips(), states, seed=3)
    resumed = build(params).fit(clips(), states, seed=3)
    assert resumed.losses == whole.losses and list(whole.losses) == ["vae", "alignment", "image", "sequence"]
    for name, net in whole.nets.items():
        for key, value in net.state_dict().items():
            assert torch.equal(value, resumed.nets[name].state_dict()[key]), (name, key)


def test_latents_have_the_measured_scale(checkpoint: Checkpoint) -> None:
    latents = again(checkpoint)._codec().encode(clips().read(range(CLIPS)).frames)
    assert latents.mean((0, 1, 3, 4)).abs().max() < 1e-3
    torch.testing.assert_close(latents.std((0, 1, 3, 4)), torch.ones(4), atol=1e-2, rtol=0)


def test_only_what_the_paper_trains_has_moved() -> None:
    made = build(Params.model_validate(TINY)).fit(clips(), Memory(), seed=0)
    image, sequence = made.nets["image"].state_dict(), made.nets["sequence"].state_dict()
    still = [name for name in image if name in sequence and torch.equal(image[name], sequence[name])]
    moved = [name for name in image if name in sequence and not torch.equal(image[name], sequence[name])]
    assert any("feed_forward" in name for name in still) and any("resnets" in name for name in still)
    assert moved and all("attend_self." in name or ".to_q." in name for name in moved)


def test_a_clip_is_a_function_of_its_own_condition_and_seed(checkpoint: Checkpoint) -> None:
    sampling = Sampling(steps=2, guidance=2.0)
    together = again(checkpoint).sample(asked([0, 1, 2]), [5, 6, 7], sampling).frames
    other = again(checkpoint).sample(asked([1, 3, 4]), [6, 8, 9], sampling).frames
    torch.testing.assert_close(together[1], other[0], atol=1e-5, rtol=0)
    assert not torch.allclose(together[0], together[2], atol=1e-3)
    assert together.shape == (3, FRAMES, 1, SIDE, SIDE) and together.abs().max() <= 1


@pytest.mark.parametrize("what", ["label", "text", "image", "motion"])
def test_each_condition_changes_the_clip_and_none_is_needed(checkpoint: Checkpoint, what: str) -> None:
    made = again(checkpoint)
    every = made.sample(asked([0, 1]), [1, 2], Sampling(steps=2))
    without = made.sample(asked([0, 1]), [1, 2], Sampling(steps=2, use=[one for one in ("label", "text", "image", "motion")
                                                                       if one != what]))  # type: ignore[misc]
    assert not torch.allclose(every.frames, without.frames, atol=1e-4)
    bare = asked([0, 1])
    bare = Condition(bare.ids, bare.masks, bare.labels, bare.texts)
    without = made.sample(bare, [1, 2], Sampling(steps=2, use=["label", "text"]))
    dropped = made.sample(asked([0, 1]), [1, 2], Sampling(steps=2, use=["label", "text"]))
    torch.testing.assert_close(without.frames, dropped.frames)  # what is not asked for does not leak


def test_noise_that_follows_motion_is_each_clip_s_own(checkpoint: Checkpoint) -> None:
    made = build(Params.model_validate({**checkpoint.params, "noise_correlation": 0.9}), checkpoint)
    sampling = Sampling(steps=2, guidance=2.0)
    together = made.sample(asked([0, 1, 2]), [5, 6, 7], sampling).frames
    other = made.sample(asked([1, 3]), [6, 8], sampling).frames
    torch.testing.assert_close(together[1], other[0], atol=1e-5, rtol=0)
    assert not torch.allclose(together, again(checkpoint).sample(asked([0, 1, 2]), [5, 6, 7], sampling).frames, atol=1e-3)
    trained = build(Params.model_validate({**TINY, "noise_correlation": 0.9})).fit(clips(), Memory(), seed=0)
    independent = build(Params.model_validate(TINY)).fit(clips(), Memory(), seed=0)
    assert trained.losses["image"] == independent.losses["image"]
    assert trained.losses["sequence"] != independent.losses["sequence"]


def test_a_codec_s_vectors_are_another_motion_field(checkpoint: Checkpoint) -> None:
    """The same weights, asked by the other field, make another clip."""
    other = build(Params.model_validate({**checkpoint.params, "motion": "codec"}), checkpoint)
    first, second = (made.sample(asked([0, 1]), [1, 2], Sampling(steps=2)).frames for made in (again(checkpoint), other))
    assert not torch.allclose(first, second, atol=1e-4)


def test_what_cannot_be_asked_is_refused(checkpoint: Checkpoint) -> None:
    made, good = again(checkpoint), asked([0])
    with pytest.raises(ValueError, match="class c, but the checkpoint knows a, b"):
        made.sample(Condition(good.ids, good.masks, ("c",), good.texts, good.reference), [0], Sampling())
    with pytest.raises(ValueError, match=r"conditions\.kind: clips"):
        made.sample(Condition(good.ids, good.masks, good.labels, good.texts), [0], Sampling())
    with pytest.raises(ValueError, match="2 seeds"):
        made.sample(good, [0, 1], Sampling())
    with pytest.raises(ValueError, match="divisible by 8"):
        build(Params.model_validate({**TINY, "image": {**TINY["image"], "channels": [16, 16, 16], "attention": [0]}})).fit(
            MemoryClips(ClipBatch(("x",), torch.zeros(1, 2, 1, 12, 12), Condition(("x",), torch.zeros(1, 2, 12, 12)))),
            Memory(), 0)


def given(clips: int) -> Given:
    field = torch.ones(clips, FRAMES - 1, 2, 8, 8)
    return Given(torch.zeros(clips, dtype=torch.long), torch.ones(clips, 3, 5), torch.ones(clips, 2, 5), field,
                 trajectories(field, 1, generator(0)))


def test_conditions_drop_at_the_stated_rates_and_motion_takes_its_trajectories_along() -> None:
    one = given(6000)
    held = drop(one, DropParams(), 9, generator(1))
    label, text, image = held.labels == 0, held.text[:, 0, 0] > 0, held.image[:, 0, 0] > 0
    assert held.field is not None and held.trajectories is not None and one.trajectories is not None
    motion = held.field[:, 0, 0, 0, 0] > 0
    assert (held.labels[~label] == 9).all()
    for rows, rate in ((label, 0.1 + 0.8 * 0.9), (text, 0.5), (image, 0.5), (motion, 0.5)):
        assert abs(rows.float().mean() - rate) < 0.03
    every = label & text & image & motion
    assert abs(every.float().mean() - (0.1 + 0.8 * 0.9 / 8)) < 0.02
    assert abs((~(label | text | image | motion)).float().mean() - (0.1 + 0.8 * 0.1 / 8)) < 0.02
    same = (held.trajectories == one.trajectories).flatten(1).all(1)
    straight = (held.trajectories == alone(one.trajectories)).flatten(1).all(1)
    assert torch.equal(same, motion) and torch.equal(straight, ~motion)


class Gaussian:
    """The exact prediction for data N(mean, std^2): what a perfect network says."""

    def __init__(self, mean: float, std: float) -> None:
        self.mean, self.std = mean, std
        self.schedule = latent_schedule("scaled_linear", "epsilon")

    def epsilon(self, x: Tensor, t: Tensor) -> Tensor:
        abar = self.schedule.alphas_cumprod[t].view(-1, 1, 1, 1, 1)
        variance = abar * self.std**2 + 1 - abar
        return (1 - abar).sqrt() * (x - abar.sqrt() * self.mean) / variance


def noise() -> Tensor:
    return torch.randn(1, 1, 1, 64, 64, generator=generator(0))


@pytest.mark.parametrize(("solver", "steps"), [("ddim", 200), ("fast", 20)])
def test_exact_predictions_give_the_data(solver: Any, steps: int) -> None:
    """Guidance 1 samples the conditional Gaussian itself; the base is not even asked for."""
    wanted = Gaussian(0.7, 0.4)
    calls = []

    def predict(x: Tensor, t: Tensor, guided: bool) -> tuple[Tensor, None]:
        calls.append(guided)
        return wanted.epsilon(x, t), None

    x = denoise_latents(predict, wanted.schedule, noise(), solver=solver, steps=steps, guidance=1.0, interval=(0, 1))
    assert abs(float(x.mean()) - 0.7) < 0.05 and abs(float(x.std()) - 0.4) < 0.04
    assert not any(calls)


def test_guidance_moves_the_mean_beyond_and_the_interval_says_when() -> None:
    """Two Gaussians of one width: guided predictions are those of a Gaussian at base + w (condition - base)."""
    near, far = Gaussian(0.0, 0.4), Gaussian(0.5, 0.4)
    asked_at = []

    def predict(x: Tensor, t: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
        if guided:
            asked_at.append(int(t[0]))
        return far.epsilon(x, t), near.epsilon(x, t) if guided else None

    def mean(interval: tuple[float, float]) -> float:
        x = denoise_latents(predict, near.schedule, noise(), solver="ddim", steps=100, guidance=3.0, interval=interval)
        return float(x.mean())

    assert abs(mean((0.0, 1.0)) - 1.5) < 0.05
    asked_at.clear()
    limited = mean((0.2, 0.6))
    assert 0.55 < limited < 1.45
    assert min(asked_at) >= 200 and max(asked_at) <= 600

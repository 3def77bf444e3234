"""Critics learn from real clips, look at them the same way every time, and hold back what calibrates them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL
from test_trainer import Memory
from torch import Tensor

from models.clip import UNKNOWN, ClipBatch, Condition, MemoryClips
from models.critics import segmenter, vae
from models.generators import Checkpoint
from models.trainer import TrainParams

CLIPS, FRAMES, SIDE = 10, 3, 16


def real_clips() -> ClipBatch:
    """A bright square drifting over noise; the mask is the square."""
    rng = torch.Generator().manual_seed(0)
    masks = torch.zeros(CLIPS, FRAMES, SIDE, SIDE, dtype=torch.uint8)
    for clip in range(CLIPS):
        for frame in range(FRAMES):
            top, left = 1 + clip % 5, 2 + clip // 2 + frame
            masks[clip, frame, top : top + 7, left : left + 7] = 1
    frames = (1.2 * masks - 0.7 + 0.1 * torch.randn(masks.shape, generator=rng))[:, :, None]
    ids = tuple(f"clip{number}" for number in range(CLIPS))
    return ClipBatch(ids, frames, Condition(ids, masks))


def with_masks(clips: ClipBatch, masks: Tensor) -> ClipBatch:
    return replace(clips, condition=Condition(clips.ids, masks))


def vae_params(**changes: object) -> vae.Params:
    train = TrainParams(steps=80, batch_size=8, learning_rate=3e-3, ema_decay=0.9)
    return vae.Params.model_validate({"channels": [8, 16], "norm_groups": 4, "train": train, **changes})


def segmenter_params(steps: int = 60) -> segmenter.Params:
    train = TrainParams(steps=steps, batch_size=4, learning_rate=5e-3, ema_decay=0.9)
    return segmenter.Params(network="dynunet", dims=2, filters=[4, 8, 16], train=train)


def fit_segmenter(clips: ClipBatch, steps: int = 60) -> Checkpoint:
    return segmenter.fit(segmenter_params(steps), MemoryClips(clips), Memory(), seed=1)


def same_weights(first: Checkpoint, second: Checkpoint, name: str) -> bool:
    pairs = zip(first.nets[name].state_dict().values(), second.nets[name].state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.fixture(scope="module")
def trained_vae() -> Checkpoint:
    return vae.fit(vae_params(), MemoryClips(real_clips()), Memory(), seed=1)


@pytest.fixture(scope="module")
def trained_segmenter() -> Checkpoint:
    return fit_segmenter(real_clips())


def test_the_vae_learns_to_reconstruct(trained_vae: Checkpoint) -> None:
    losses = trained_vae.losses["vae"]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    frames = real_clips().frames.flatten(0, 1)
    net = trained_vae.nets["vae"]
    assert isinstance(net, AutoencoderKL)
    with torch.inference_mode():
        back = net.decode(net.encode(frames).latent_dist.mean).sample
    assert (back - frames).abs().mean() < 0.5 * (frames - frames.mean()).abs().mean()


def test_latents_are_the_posterior_mean_of_every_frame(trained_vae: Checkpoint) -> None:
    """Not a sample of it (the released filter's noise), and whatever the batch."""
    frames = real_clips().frames[:4]
    found = vae.latents(trained_vae, frames, batch=5)
    assert found.shape == (4, FRAMES, 4, SIDE // 2, SIDE // 2) and found.dtype == torch.float32
    assert torch.equal(found, vae.latents(trained_vae, frames, batch=5))
    net = trained_vae.nets["vae"]
    assert isinstance(net, AutoencoderKL)
    with torch.inference_mode():
        moments = net.quant_conv(net.encoder(frames[2, 1][None]))  # mean and log-variance, concatenated
    torch.testing.assert_close(found[2, 1], moments[0, :4], rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_vae_and_leaves_other_numbers_alone() -> None:
    few = vae_params(train=TrainParams(steps=2, batch_size=2))
    torch.manual_seed(5)
    first = vae.fit(few, MemoryClips(real_clips()), Memory(), seed=1)
    torch.manual_seed(6)
    again = vae.fit(few, MemoryClips(real_clips()), Memory(), seed=1)
    other = vae.fit(few, MemoryClips(real_clips()), Memory(), seed=2)
    assert same_weights(first, again, "vae")
    assert not same_weights(first, other, "vae")


def test_sizes_the_vae_cannot_halve_and_groups_it_cannot_fill_are_refused() -> None:
    clips = real_clips()
    odd = replace(clips, frames=clips.frames[..., :15])
    with pytest.raises(ValueError, match=r"frame_size \[16, 15\] must be divisible by 2"):
        vae.fit(vae_params(), MemoryClips(odd), Memory(), seed=1)
    with pytest.raises(ValueError, match=r"channels: \[6\] cannot be divided in norm_groups: 4 groups"):
        vae_params(channels=[4, 6])


def test_the_segmenter_finds_what_it_learnt_and_agreement_falls_where_it_is_not(trained_segmenter: Checkpoint) -> None:
    clips = real_clips()
    right = segmenter.agreement(trained_segmenter, clips.frames, clips.condition.masks)
    wrong = segmenter.agreement(trained_segmenter, clips.frames, clips.condition.masks.flip(3))
    assert right.min() > 0.8
    assert (wrong < right).all() and wrong.mean() < 0.6


def test_calibration_is_the_dice_of_clips_it_was_not_trained_on(trained_segmenter: Checkpoint) -> None:
    clips = real_clips()
    calibration = trained_segmenter.facts["calibration"]
    assert len(calibration) == 3  # 30 % of ten
    expected = segmenter.agreement(trained_segmenter, clips.frames[7:], clips.condition.masks[7:])
    assert calibration == pytest.approx(expected.tolist())
    masks = clips.condition.masks.clone()
    masks[7:] = masks[7:].flip(3)
    few, changed = fit_segmenter(clips, steps=2), fit_segmenter(with_masks(clips, masks), steps=2)
    assert same_weights(few, changed, "segmenter")
    assert few.facts["calibration"] != changed.facts["calibration"]


def test_clips_nobody_annotated_are_never_trained_on() -> None:
    clips = real_clips()
    masks = clips.condition.masks.clone()
    masks[3] = UNKNOWN
    frames = clips.frames.clone()
    frames[3] = torch.nan
    with_one_more = fit_segmenter(with_masks(replace(clips, frames=frames), masks), steps=3)
    kept = [row for row in range(CLIPS) if row != 3]
    nine = MemoryClips(clips).read(kept)
    assert same_weights(with_one_more, fit_segmenter(nine, steps=3), "segmenter")


def test_partly_annotated_clips_are_trained_on_and_add_no_class() -> None:
    clips = real_clips()
    masks = clips.condition.masks.clone()
    masks[:, 1:] = UNKNOWN
    found = fit_segmenter(with_masks(clips, masks), steps=3)
    assert found.facts["classes"] == 1
    assert len(found.facts["calibration"]) == 3


def test_too_few_masks_and_empty_ones_are_refused() -> None:
    clips = real_clips()
    masks = clips.condition.masks.clone()
    masks[1:] = UNKNOWN
    with pytest.raises(ValueError, match="needs 2 annotated training clips, but has 1; raise annotated_patients"):
        fit_segmenter(with_masks(clips, masks))
    with pytest.raises(ValueError, match="10 annotated training clips show background only"):
        fit_segmenter(with_masks(clips, torch.zeros_like(masks)))


def test_dice_by_hand() -> None:
    truth = torch.zeros(5, 1, 2, 4, dtype=torch.uint8)
    truth[:4, 0, 0] = 1  # four pixels of class 1
    found = truth.clone()
    found[1, 0, 0, 2:] = 0  # half of them: 2 * 2 / (2 + 4)
    found[2, 0, 1, :2] = 2  # class 2 where there is none: 1 and 0
    truth[3, 0, 0, :2] = UNKNOWN  # two do not count
    found[3, 0, 0, :2] = 2
    torch.testing.assert_close(segmenter.dice(found, truth, classes=2), torch.tensor([1.0, 2 / 3, 0.5, 1.0, 1.0]))

"""Attention against naive loops, the start of phase 2, what it trains, and that every condition reaches the output."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.motion import NONE, trajectories
from models.nets.sequence_attention import key_frame_attention, motion_field_attention
from models.nets.sequence_unet import TRAINED, FusedInput, SequenceUNet
from models.seeding import generator

FRAMES, FACTOR, CLASSES = 4, 2, 3


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


def image_model(seed: int = 0) -> SequenceUNet:
    torch.manual_seed(seed)
    return SequenceUNet(channels=(16, 32), head_width=8, text_width=12, image_width=10, classes=CLASSES, factor=FACTOR).eval()


def inputs(frames: int = FRAMES) -> dict[str, Tensor]:
    field = torch.randint(-3, 4, (2, frames - 1, 2, 16, 12), generator=generator(5)).float()
    return {"latents": normal(2, frames, 4, 8, 6), "t": torch.tensor([10, 700]), "labels": torch.tensor([0, CLASSES]),
            "text": normal(2, 5, 12, seed=1), "image": normal(2, 7, 10, seed=2), "field": field,
            "trajectories": trajectories(field, FACTOR, generator(0))}


def test_key_frames_are_the_first_and_the_one_before() -> None:
    query, key, value = (normal(2, FRAMES, 3, 5, 8, seed=seed) for seed in range(3))
    found = key_frame_attention(query, key, value)
    for frame in range(FRAMES):
        keys, values = (torch.cat([one[:, 0], one[:, max(0, frame - 1)]], 2) for one in (key, value))
        weights = (query[:, frame] @ keys.transpose(-1, -2) / 8**0.5).softmax(-1)
        torch.testing.assert_close(found[:, frame], weights @ values)


def test_motion_field_attention_is_the_naive_walk() -> None:
    field = torch.randint(-3, 4, (2, FRAMES - 1, 2, 4, 6), generator=generator(1)).float()
    table = trajectories(field, 2, generator(2))
    tokens = normal(2, FRAMES, 3, 6, 8)
    found = motion_field_attention(tokens, table)
    for clip in range(2):
        for frame in range(FRAMES):
            for place in range(6):
                path = [(other, there) for other, there in enumerate(table[clip, frame, place].tolist()) if there != NONE]
                along = torch.stack([tokens[clip, other, :, there] for other, there in path], 1)  # (heads, S, d)
                weights = (along @ tokens[clip, frame, :, place, :, None] / 8**0.5).softmax(1)
                torch.testing.assert_close(found[clip, frame, :, place], (weights * along).sum(1))


def test_phase_two_starts_as_the_image_model_frame_by_frame() -> None:
    image = image_model()
    sequence = SequenceUNet.from_image_model(image).eval()
    given = inputs()
    with torch.no_grad():
        whole = sequence(**given)
        for frame in range(FRAMES):
            alone = image(**{name: value for name, value in given.items() if name in ("t", "labels", "text", "image")},
                          latents=given["latents"][:, [frame]])
            torch.testing.assert_close(whole[:, [frame]], alone, rtol=1e-4, atol=1e-5)


def test_without_the_gate_key_frames_replace_self_attention_at_once() -> None:
    image = image_model()
    given = inputs()
    with torch.no_grad():
        gated, paper = (SequenceUNet.from_image_model(image, gated=gated).eval()(**given) for gated in (True, False))
    torch.testing.assert_close(paper, gated, rtol=10, atol=10)
    assert (paper - gated).abs().max() > 1e-3


def test_only_what_the_paper_names_is_trained() -> None:
    sequence = SequenceUNet.from_image_model(image_model())
    for name, parameter in sequence.named_parameters():
        assert parameter.requires_grad == any(part in name for part in TRAINED), name
    frozen = {name for name, parameter in sequence.named_parameters() if not parameter.requires_grad}
    assert any("resnets" in name for name in frozen) and any("attend_text.to_k" in name for name in frozen)
    assert any("feed_forward" in name for name in frozen) and "unet.conv_in.latent.weight" in frozen
    assert "unet.conv_in.fuse.weight" not in frozen and not any("attend_self" in name for name in frozen)


@pytest.mark.parametrize("name", ["labels", "text", "image", "field", "trajectories"])
def test_every_condition_reaches_the_output(name: str) -> None:
    sequence = SequenceUNet.from_image_model(image_model(), gated=False).eval()
    torch.manual_seed(1)
    fused = sequence.unet.conv_in
    assert isinstance(fused, FusedInput)
    torch.nn.init.normal_(fused.fuse.weight, std=0.05)  # after training, motion has a way in
    given, other = inputs(), dict(inputs())
    if name == "labels":
        other["labels"] = torch.tensor([1, 2])
    elif name == "trajectories":
        other["trajectories"] = trajectories(torch.zeros_like(given["field"]), FACTOR, generator(0))
    else:
        other[name] = torch.zeros_like(given[name])
    with torch.no_grad():
        difference = (sequence(**given) - sequence(**other)).flatten(1).abs().amax(1)
    assert (difference > 1e-4).all()


def test_a_clip_is_its_own_business() -> None:
    """Frames of one clip never see those of another of the batch."""
    sequence = SequenceUNet.from_image_model(image_model(), gated=False).eval()
    torch.manual_seed(2)
    for module in sequence.modules():
        if hasattr(module, "attend_frames"):
            torch.nn.init.normal_(module.attend_frames.to_out[0].weight, std=0.1)
    given = inputs()
    with torch.no_grad():
        both = sequence(**given)
        one = sequence(**{name: value[:1] for name, value in given.items()})
    torch.testing.assert_close(both[:1], one, rtol=1e-4, atol=1e-5)


def test_no_motion_is_zero_motion() -> None:
    sequence = SequenceUNet.from_image_model(image_model()).eval()
    given = inputs()
    zero = {**given, "field": torch.zeros_like(given["field"])}
    with torch.no_grad():
        assert torch.equal(sequence(**{**given, "field": None}), sequence(**zero))


def test_it_is_saved_as_every_other_net(tmp_path: Path) -> None:
    sequence = SequenceUNet.from_image_model(image_model()).eval()
    sequence.save_pretrained(tmp_path)
    again = SequenceUNet.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(sequence(**inputs()), again(**inputs()))


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of head_width 32"):
        SequenceUNet(channels=(48,))
    with pytest.raises(ValueError, match="power of 2"):
        SequenceUNet(factor=3, sequence=True)

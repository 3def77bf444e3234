"""Every network takes any clip and learns; pixels nobody annotated count for nothing in the loss."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.clip import UNKNOWN
from models.segmenters import Segmenter, segment, segmentation_loss

NETWORKS = [
    pytest.param(kind, dims, marks=pytest.mark.skipif(kind == "swinunetr" and not importlib.util.find_spec("einops"),
                                                      reason="SwinUNETR needs the extra `swinunetr`"))
    for kind in ("dynunet", "vnet", "swinunetr")
    for dims in (2, 3)
]


def network(kind: str, dims: int, channels: int = 1, classes: int = 2) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(kind, dims, channels, classes, [8, 16, 32])  # type: ignore[arg-type]


def squares(clips: int, frames: int = 3, side: int = 16) -> tuple[Tensor, Tensor]:
    """A bright square (1) and a dark one (2) that drift apart, a pixel a frame, over noise."""
    rng = torch.Generator().manual_seed(clips)
    masks = torch.zeros(clips, frames, side, side, dtype=torch.uint8)
    for clip in range(clips):
        for frame in range(frames):
            top = 1 + clip % 3
            masks[clip, frame, top : top + 5, 1 + frame : 6 + frame] = 1
            masks[clip, frame, top + 6 : top + 11, 10 - frame : 15 - frame] = 2
    light = torch.tensor([0.0, 0.7, -0.7])[masks.long()] + 0.1 * torch.randn(masks.shape, generator=rng)
    return light[:, :, None], masks


@pytest.mark.parametrize(("kind", "dims"), NETWORKS)
@pytest.mark.parametrize("channels", [1, 3])
def test_any_clip_fits_and_trains(kind: str, dims: int, channels: int) -> None:
    """Odd sizes, one frame, colour, a batch of one in training mode: all that a user's own videos bring."""
    net = network(kind, dims, channels).train()
    logits = net(torch.randn(1, 1, channels, 9, 13))
    assert logits.shape == (1, 1, 3, 9, 13)
    segmentation_loss(logits, torch.ones(1, 1, 9, 13, dtype=torch.uint8)).backward()
    assert all(torch.isfinite(one.grad).all() for one in net.parameters() if one.grad is not None)


@pytest.mark.parametrize(
    ("kind", "dims"), NETWORKS[:3] + [pytest.param(*one.values, marks=[*one.marks, pytest.mark.slow]) for one in NETWORKS[3:]]
)
def test_overfits_a_tiny_clip(kind: str, dims: int) -> None:
    frames, masks = squares(1)
    net = network(kind, dims).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3 if kind == "swinunetr" else 1e-2)
    for _ in range(25 if kind == "swinunetr" else 50):
        optimiser.zero_grad()
        segmentation_loss(net(frames), masks).backward()
        optimiser.step()
    found = net(frames).argmax(2)  # in training mode: batch norm's running statistics lag behind so few steps
    for label in (1, 2):
        overlap = ((found == label) & (masks == label)).sum()
        assert 2 * overlap / ((found == label).sum() + (masks == label).sum()) > 0.9


@pytest.mark.parametrize(("kind", "dims"), NETWORKS)
def test_padding_is_cut_off_where_it_was_added(kind: str, dims: int) -> None:
    """The result on an odd clip is the result on the same clip padded by hand to what the network divides by, cropped."""
    net = network(kind, dims).eval()
    frames = torch.randn(1, 3, 1, 22, 30)
    time, height, width = {"dynunet": (3, 24, 32), "vnet": (16, 32, 32), "swinunetr": (32, 32, 64)}[kind]
    rows, columns = (torch.arange(size).clamp_max(last) for size, last in ((height, 21), (width, 29)))
    padded = frames[:, torch.arange(time).clamp_max(2)][:, :, :, rows][..., columns]
    with torch.inference_mode():
        assert net(padded).shape == (1, time, 3, height, width)
        torch.testing.assert_close(net(frames), net(padded)[:, :3, :, :22, :30], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["dynunet", "vnet"])
def test_two_dimensions_see_every_frame_alone_and_three_do_not(kind: str) -> None:
    frames = torch.randn(1, 4, 1, 16, 16)
    other = frames.clone()
    other[:, 3] += 1
    for dims in (2, 3):
        net = network(kind, dims).eval()
        with torch.inference_mode():
            same = torch.allclose(net(frames)[:, :3], net(other)[:, :3], atol=1e-5)
        assert same == (dims == 2)


def test_the_loss_is_dice_plus_cross_entropy_by_hand() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 3, 4, 5))
    masks = rng.integers(0, 3, (2, 3, 4, 5)).astype(np.uint8)
    masks[0, 1] = masks[1, 2, 0, :3] = UNKNOWN
    known = masks != UNKNOWN
    probability = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    entropy = [-np.log(probability[b, t, masks[b, t, y, x], y, x]) for b, t, y, x in zip(*np.nonzero(known), strict=True)]
    dice = []
    for label in (1, 2):
        p, truth = probability[:, :, label][known], (masks == label)[known]
        dice.append(1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1))
    ours = segmentation_loss(torch.tensor(logits), torch.tensor(masks))
    assert float(ours) == pytest.approx(np.mean(entropy) + np.mean(dice), rel=1e-5)


def test_unknown_pixels_have_no_gradient() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 3, 8, 8, generator=rng, requires_grad=True)
    masks = torch.randint(0, 3, (2, 3, 8, 8), generator=rng, dtype=torch.uint8)
    masks[0, 1], masks[1, 0, :4] = UNKNOWN, UNKNOWN
    segmentation_loss(logits, masks).backward()
    assert logits.grad is not None
    share = logits.grad.abs().sum(2)
    assert (share[masks == UNKNOWN] == 0).all()
    assert (share[masks != UNKNOWN] > 0).all()


def test_a_batch_nobody_annotated_costs_nothing() -> None:
    logits = torch.randn(1, 2, 2, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 2, 4, 4), UNKNOWN, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and (logits.grad == 0).all()


def test_segment_takes_the_most_likely_label_whatever_the_batch() -> None:
    net = network("dynunet", 3)
    frames, _ = squares(5)
    labels = segment(net, frames, batch=2)
    assert labels.dtype == torch.uint8 and labels.shape == (5, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(labels, net(frames).argmax(2).to(torch.uint8))


@pytest.mark.parametrize("kind", ["dynunet", "vnet"])
def test_saved_and_read_again_it_is_the_same(tmp_path: Path, kind: str) -> None:
    net = network(kind, 2, channels=3)
    net.save_pretrained(tmp_path)
    frames = torch.randn(1, 2, 3, 16, 16)
    assert torch.equal(segment(net, frames), segment(Segmenter.from_pretrained(tmp_path), frames))
    assert not [path for path in tmp_path.iterdir() if path.suffix not in (".json", ".safetensors")]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="'unet' is not a segmentation network; choose vnet, dynunet or swinunetr"):
        Segmenter("unet")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="classes: 0"):
        Segmenter("dynunet", classes=0)
    with pytest.raises(ValueError, match=r"filters: \[16, 32\], but DynUNet has 3"):
        Segmenter("dynunet", filters=[16, 32])

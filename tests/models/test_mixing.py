"""Mixed clips are made of two, and their labels say of which, to the pixel."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from models import mixing
from models.mixing import CUT, Axes, cutmix, mixup, videomix
from models.seeding import generator

CUTTERS = {"cutmix": cutmix, **{axes: partial(videomix, axes=axes) for axes in CUT}}
MIXERS = {"mixup": mixup, **CUTTERS}
Mixer = Callable[..., tuple[Tensor, Tensor]]


def numbered(batch: int, length: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Clips of which each is its own constant, all of one class each: what is where can be read off."""
    frames = torch.arange(batch, dtype=torch.float64).view(-1, 1, 1, 1, 1).expand(batch, length, 2, height, width).clone()
    return frames, torch.eye(batch, dtype=torch.float64)


@pytest.mark.parametrize("mixer", CUTTERS.values(), ids=CUTTERS)
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32), st.floats(0.1, 5))
def test_labels_are_the_shares_of_pixels(mixer: Mixer, batch: int, length: int, height: int, width: int, seed: int,
                                         alpha: float) -> None:
    frames, targets = numbered(batch, length, height, width)
    mixed, labels = mixer(frames, targets, generator(seed), alpha)
    shares = torch.stack([(mixed == clip).double().mean((1, 2, 3, 4)) for clip in range(batch)], 1)
    torch.testing.assert_close(labels, shares, rtol=0, atol=1e-15)
    torch.testing.assert_close(shares.sum(1), torch.ones(batch, dtype=torch.float64))  # nothing that is in neither clip
    assert ((shares > 0).sum(1) <= 2).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**32), st.floats(0.1, 5))
def test_mixup_is_a_convex_sum_with_the_labels_weights(batch: int, seed: int, alpha: float) -> None:
    frames = torch.randn(batch, 3, 2, 5, 4, dtype=torch.float64, generator=generator(seed))
    mixed, labels = mixup(frames, torch.eye(batch, dtype=torch.float64), generator(seed), alpha)
    torch.testing.assert_close(mixed, torch.einsum("bn,ntchw->btchw", labels, frames))
    torch.testing.assert_close(labels.sum(1), torch.ones(batch, dtype=torch.float64))
    assert (labels >= 0).all()


@pytest.mark.parametrize("axes", CUT)
def test_a_box_is_whole_and_where_it_is_asked_for(axes: Axes) -> None:
    """The mixed-in pixels are a product of intervals, as long as the clip along the axes that are not cut."""
    frames, targets = numbered(16, 6, 14, 10)
    mixed, _ = videomix(frames, targets, generator(0), axes=axes)
    mixtures = 0
    for clip, film in enumerate(mixed[:, :, 0]):
        places = (film != clip).nonzero()
        if len(places):
            mixtures += 1
            low, high = places.amin(0), places.amax(0) + 1
            assert len(places) == (high - low).prod()
            for axis, is_cut in enumerate(CUT[axes]):
                assert is_cut or (low[axis], high[axis]) == (0, film.shape[axis])
    assert mixtures > 8


def set_share(own: float, partner: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = torch.full((len(partner),), own, dtype=torch.float64), torch.tensor(partner)
    monkeypatch.setattr(mixing, "_draw", lambda *given: drawn)


@pytest.mark.parametrize("mixer", MIXERS.values(), ids=MIXERS)
def test_with_lambda_one_nothing_changes(mixer: Mixer, monkeypatch: pytest.MonkeyPatch) -> None:
    set_share(1.0, [1, 2, 0], monkeypatch)
    frames, targets = torch.randn(3, 4, 1, 8, 6), torch.eye(3)
    mixed, labels = mixer(frames, targets, generator(0))
    assert torch.equal(mixed, frames) and torch.equal(labels, targets)


@pytest.mark.parametrize(("axes", "share"), [("spatial", 0.25), ("temporal", 0.25), ("spatio-temporal", 0.125)])
def test_the_box_has_the_share_it_should(axes: Axes, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A box that lies inside has 1 - lambda of the clip exactly where its sides are whole; none has more."""
    set_share(1 - share, [1, 0] * 100, monkeypatch)
    frames, targets = numbered(200, 8, 8, 8)
    _, labels = videomix(frames, targets, generator(1), axes=axes)
    mixed_in = 1 - labels.diagonal()
    assert float(mixed_in.max()) == share and 0 < float(mixed_in.min()) < share


@pytest.mark.parametrize("mixer", MIXERS.values(), ids=MIXERS)
def test_each_clip_has_its_own_draw_and_one_seed_one_result(mixer: Mixer) -> None:
    frames, targets = torch.randn(8, 8, 3, 16, 12), functional.one_hot(torch.arange(8) % 3).float()
    kept = frames.clone()
    mixed, labels = mixer(frames, targets, generator(3), 1.0)
    again, same = mixer(frames, targets, generator(3), 1.0)
    other, _ = mixer(frames, targets, generator(4), 1.0)
    assert torch.equal(mixed, again) and torch.equal(labels, same) and not torch.equal(mixed, other)
    assert torch.equal(frames, kept) and mixed.dtype == frames.dtype and labels.shape == targets.shape
    assert len(mixer(frames, torch.eye(8), generator(3), 1.0)[1].diagonal().unique()) > 4


def test_lambda_is_a_beta() -> None:
    own, partner = mixing._draw(torch.zeros(20_000, 1), torch.zeros(20_000, 1), generator(0), 0.4)
    assert float(own.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(own.var()) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.005)
    assert torch.equal(partner.sort().values, torch.arange(20_000))


def test_what_cannot_be_is_refused() -> None:
    frames = torch.zeros(2, 3, 1, 4, 4)
    for alpha in (0, -1, math.nan):
        with pytest.raises(ValueError, match="alpha"):
            mixup(frames, torch.eye(2), generator(0), alpha)
    for targets in (torch.zeros(2), torch.eye(3), torch.eye(2).long()):
        with pytest.raises(ValueError, match="targets"):
            cutmix(frames, targets, generator(0))
    with pytest.raises(ValueError, match="diagonal"):
        videomix(frames, torch.eye(2), generator(0), axes="diagonal")  # type: ignore[arg-type]

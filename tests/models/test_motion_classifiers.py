"""TDN adds what changes and nothing where nothing does; ATM takes tokens from where its offsets point."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.classifiers import Classifier, classify
from models.classifiers.atm import AXES, REACH, ActiveMixer, take
from models.classifiers.tdn import LongTerm, ShortTerm, build
from models.seeding import generator


def squares(number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Clips of a square that drifts right (0) or down (1), round the borders; any single frame is as likely in either class."""
    rng = generator(seed)
    labels = torch.randint(0, 2, (number,), generator=rng)
    start = torch.randint(0, 16, (number, 1, 2), generator=rng)
    place = start + torch.stack([labels, 1 - labels], 1)[:, None] * 2 * torch.arange(6)[:, None]
    rows, columns = ((place[..., axis, None] + torch.arange(16)) % 16 < 4 for axis in (0, 1))
    film = (rows.flip(-1)[..., :, None] & columns.flip(-1)[..., None, :]).float()[:, :, None]
    return film * 1.6 - 0.8 + 0.1 * torch.randn(film.shape, generator=rng), labels


@pytest.mark.parametrize("kind", ["atm", "tdn"])
def test_right_is_told_from_down(kind: str) -> None:
    torch.manual_seed(0)
    net = Classifier(kind, frames=6, width=8)
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
    for step in range(120):
        films, labels = squares(16, step)
        loss = functional.cross_entropy(net(films), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    films, labels = squares(64, 10_000)
    assert (classify(net, films).argmax(1) == labels).float().mean() > 0.9
    turned = classify(net, films.transpose(3, 4))  # right becomes down
    assert (turned.argmax(1) == labels).float().mean() < 0.2


class Nothing(nn.Module):
    def forward(self, clips: Tensor, size: torch.Size) -> float:
        return 0.0


def test_a_still_clip_is_the_2d_network_s_alone() -> None:
    net = build(2, 3, 5, 8).eval()
    for module in net.modules():  # norms as after training: their shifts must not come in
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, generator=generator(1))
            nn.init.normal_(module.running_mean, generator=generator(2))
    moving = torch.randn(2, 2, 5, 17, 22, generator=generator(0))
    still = moving[:, :, :1].expand_as(moving)
    short = net.short
    assert not short(still, torch.Size((9, 11))).any() and short(moving, torch.Size((9, 11))).any()
    with torch.no_grad():
        seen = net(still), net(moving)
        net.short = Nothing()
        assert torch.equal(net(still), seen[0]) and not torch.allclose(net(moving), seen[1])


def test_a_change_reaches_the_two_frames_on_either_side() -> None:
    clip = torch.zeros(1, 1, 9, 16, 16)
    clip[:, :, 4:] = torch.randn(16, 16, generator=generator(0))  # between frames 3 and 4
    encoded = ShortTerm(1, 4)(clip, torch.Size((8, 8)))
    assert [time for time, frame in enumerate(encoded) if frame.any()] == [2, 3, 4, 5]


def test_differences_are_from_the_aligned_next_and_previous_frame() -> None:
    long = LongTerm(8).eval()
    nn.init.dirac_(long.squeeze[0].weight)
    nn.init.zeros_(long.align.weight)
    long.align.weight.data[:, :, 1, 2] = 1  # what is one pixel further right in the neighbour
    first = torch.randn(8, 6, 9, generator=generator(0))
    x = torch.stack([first.roll(time, -1) for time in range(4)])  # moves right by one pixel a frame
    following, preceding = (found.unflatten(0, (1, 4))[0] for found in long.differences(x, 4))
    inside = slice(4, -1)  # away from what rolled in
    torch.testing.assert_close(following[:3, ..., inside], torch.zeros_like(following[:3, ..., inside]), atol=1e-4, rtol=0)
    expected = x[1:] - x[:-1].roll(-1, -1)
    torch.testing.assert_close(preceding[1:, ..., inside], expected[..., inside], atol=1e-4, rtol=0)
    assert expected[..., inside].abs().mean() > 0.1
    assert not following[3].any() and not preceding[0].any()


def test_excitation_is_a_share_on_top_and_knows_no_arrow_of_time() -> None:
    long = LongTerm(12).eval()
    x = torch.randn(2 * 5, 12, 7, 6, generator=generator(0))
    with torch.no_grad():
        gain = long(x, 5) / x
        assert ((gain > 1) & (gain < 2)).all() and gain.std() > 0
        backwards = long(x.unflatten(0, (2, 5)).flip(1).flatten(0, 1), 5).unflatten(0, (2, 5)).flip(1).flatten(0, 1)
        torch.testing.assert_close(backwards, gain * x)
        alone = long(x[:5], 5)
        torch.testing.assert_close(alone, (gain * x)[:5])  # clips of a batch are not neighbours


def by_hand(x: Tensor, offsets: Tensor, axis: int) -> Tensor:
    """`take`, token by token."""
    out = torch.empty_like(x)
    for index in torch.cartesian_prod(*(torch.arange(size) for size in offsets.shape)).tolist():
        place = min(max(index[axis] + offsets[tuple(index)].item(), 0), x.shape[axis] - 1)
        low, high = list(index), list(index)
        low[axis], high[axis] = int(place), min(int(place) + 1, x.shape[axis] - 1)
        out[tuple(index)] = (1 - place % 1) * x[tuple(low)] + place % 1 * x[tuple(high)]
    return out


@pytest.mark.parametrize("axis", AXES)
def test_tokens_are_taken_from_where_offsets_point(axis: int) -> None:
    rng = generator(0)
    x = torch.randn(2, 4, 5, 6, 3, 2, generator=rng, dtype=torch.float64)
    offsets = 3 * torch.randn(x.shape[:-1], generator=rng, dtype=torch.float64)
    torch.testing.assert_close(take(x, offsets, axis), by_hand(x, offsets, axis))
    assert torch.equal(take(x, torch.zeros_like(offsets), axis), x)
    back = take(x, torch.full_like(offsets, -2), axis)
    length = x.shape[axis]
    assert torch.equal(back.narrow(axis, 2, length - 2), x.roll(2, axis).narrow(axis, 2, length - 2))
    assert torch.equal(back.narrow(axis, 0, 2), x.narrow(axis, 0, 1).expand_as(back.narrow(axis, 0, 2)))
    small = x[:1, :3, :3, :3, :1].requires_grad_(), offsets[:1, :3, :3, :3, :1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda tokens, where: take(tokens, where, axis), small)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("way", [1, -1])
def test_the_mixer_reaches_so_far_and_no_farther(axis: int, way: int) -> None:
    mixer = ActiveMixer(16)
    for linear in (*mixer.embed, mixer.out):
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)
    for linear in (mixer.look, mixer.weigh[-1]):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    mixer.weigh[-1].bias.data.view(-1, 16)[axis] = 100.0  # of itself and the three axes, only this one
    x = torch.randn(1, 7, 8, 9, 16, generator=generator(0))
    with torch.no_grad():
        torch.testing.assert_close(mixer(x), x)
        mixer.look.bias.view(3, -1)[axis - 1] = 100.0 * way
        length = x.shape[axis] - REACH
        start = 0 if way > 0 else REACH
        torch.testing.assert_close(mixer(x).narrow(axis, start, length), x.narrow(axis, REACH - start, length))


def test_widths_no_group_divides() -> None:
    assert ActiveMixer(10).groups == 2 and ActiveMixer(24).groups == 8
    assert Classifier("atm", classes=3, width=5).eval()(torch.zeros(1, 2, 1, 16, 16)).shape == (1, 3)

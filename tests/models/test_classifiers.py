"""Every classifier learns what only motion tells, is saved like the other nets, and takes the shapes clips have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from models import plugin
from models.classifiers import Classifier, classify
from models.classifiers.tsm import shift
from models.seeding import generator

KINDS = plugin.kinds("models.classifiers")


def bars(number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Clips of a bright bar that moves right (0) or left (1); any single frame is as likely in either class."""
    rng = generator(seed)
    labels = torch.randint(0, 2, (number,), generator=rng)
    start = torch.randint(0, 16, (number, 1), generator=rng)
    place = (start + (1 - 2 * labels[:, None]) * 2 * torch.arange(8)) % 16
    columns = torch.arange(16)
    distance = (columns - place[..., None] + 8) % 16 - 8
    film = (distance.abs() <= 1).float()[:, :, None, None].expand(-1, -1, 1, 16, -1)
    return film * 1.6 - 0.8 + 0.1 * torch.randn(film.shape, generator=rng), labels


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_what_only_motion_tells(kind: str) -> None:
    torch.manual_seed(0)
    net = Classifier(kind, frames=8, width=8)
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
    for step in range(80):
        films, labels = bars(16, step)
        loss = functional.cross_entropy(net(films), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    films, labels = bars(64, 10_000)
    probabilities = classify(net, films)
    assert probabilities.shape == (64, 2)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(64))
    assert (probabilities.argmax(1) == labels).float().mean() > 0.9
    backwards = classify(net, films.flip(1))
    assert (backwards.argmax(1) == labels).float().mean() < 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_clips_of_any_usual_shape(kind: str, tmp_path: Path) -> None:
    net = Classifier(kind, channels=3, classes=4, frames=5, width=8).eval()
    films = torch.randn(2, 5, 3, 40, 28, generator=generator(0))
    with torch.no_grad():
        logits = net(films)
        assert logits.shape == (2, 4)
        torch.testing.assert_close(net(films[:1]), logits[:1], rtol=1e-4, atol=1e-5)
        net.save_pretrained(tmp_path)
        assert torch.equal(Classifier.from_pretrained(tmp_path).eval()(films), logits)


def test_an_eighth_of_the_channels_moves_each_way() -> None:
    x = torch.arange(3.0).view(1, 3, 1, 1, 1).expand(1, 3, 16, 1, 1) + 1
    moved = shift(x)[0, :, :, 0, 0]
    assert moved[:, :2].T.tolist() == [[0, 1, 2]] * 2 and moved[:, 2:4].T.tolist() == [[2, 3, 0]] * 2
    assert moved[:, 4:].T.tolist() == [[1, 2, 3]] * 12


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        Classifier(classes=1)
    with pytest.raises(ValueError, match="c3d"):
        Classifier("i4d")
    with pytest.raises(ValueError, match="built for 8"):
        Classifier("cnn_transformer", frames=8)(torch.zeros(1, 4, 1, 16, 16))

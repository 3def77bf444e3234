"""Every classifier learns what only motion tells, is saved like the other nets, and takes the shapes clips have."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from models import plugin
from models.classifiers import Classifier, classify
from models.classifiers.slowfast import APART, _lateral
from models.classifiers.tsm import shift
from models.generators import Checkpoint
from models.nets import square_clips
from models.seeding import generator
from tasks.checkpoints import load_checkpoint, save_checkpoint

NEEDS = {"timesformer": ("transformers", "transformers"), "vivit": ("transformers", "transformers"),
         "video_swin": ("einops", "swinunetr")}
"""Libraries that are not everyone's, and the extras that bring them."""
KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(kind in NEEDS and not importlib.util.find_spec(NEEDS[kind][0]),
                                                reason=f"{kind} needs the extra `{NEEDS.get(kind, ('', ''))[1]}`"))
    for kind in plugin.kinds("models.classifiers")
]
POSITIONS = ("cnn_transformer", "timesformer", "vivit")
"""Those that know T clips long only."""


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
    slow = kind == "timesformer"  # only the patches of one place meet along time
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3 if slow else 3e-3)
    for step in range(150 if slow else 80):
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


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_keep_it(kind: str, tmp_path: Path) -> None:
    net = Classifier(kind, width=8).eval()
    films, _ = bars(2, 0)
    save_checkpoint(tmp_path, Checkpoint("classifier", {}, {"net": net}, {}, {}), fingerprint="f", trained_on={})
    with torch.no_grad():
        assert torch.equal(load_checkpoint(tmp_path).nets["net"](films), net(films))


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns(kind: str) -> None:
    net = Classifier(kind, channels=3, width=8)
    functional.cross_entropy(net(torch.randn(4, 8, 3, 40, 28, generator=generator(0))), torch.tensor([0, 1, 0, 1])).backward()
    assert not [name for name, weights in net.named_parameters() if weights.grad is None or not weights.grad.any()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [1, 7, 20])
def test_other_lengths_are_taken_or_refused(kind: str, frames: int) -> None:
    net = Classifier(kind, width=8).eval()
    clips = torch.zeros(1, frames, 1, 16, 16)
    if kind in POSITIONS:
        with pytest.raises(ValueError, match=f"clips have {frames} frames, but the classifier was built for 8"):
            net(clips)
    else:
        assert net(clips).isfinite().all()
    assert Classifier(kind, frames=frames, width=8).eval()(clips).isfinite().all()


@pytest.mark.parametrize("frames", range(1, 12))
def test_the_pathways_of_slowfast_meet_at_any_length(frames: int) -> None:
    assert _lateral(2)(torch.zeros(2, 2, frames, 3, 3)).shape[2] == len(range(0, frames, APART))


@pytest.mark.parametrize(("kind", "needs"), NEEDS.items())
def test_a_missing_library_is_named_with_its_extra(kind: str, needs: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    library, extra = needs
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ValueError, match=f"kind: {kind} needs .*{library}; install cinefab's extra `{extra}`"):
        Classifier(kind)


def test_square_clips_keep_what_is_square_and_repeat_the_last_frame() -> None:
    class Echo(torch.nn.Module):
        def forward(self, pixel_values: Tensor) -> object:
            return type("Output", (), {"logits": pixel_values})()

    side = square_clips.SIDE
    films = torch.randn(2, 3, 1, side, side, generator=generator(0))
    shown = square_clips.SquareClips(Echo(), frames=3, tubelet=2)(films.transpose(1, 2))
    torch.testing.assert_close(shown, films[:, [0, 1, 2, 2]])
    oblong = torch.linspace(-1, 1, 2 * side).expand(1, 1, 3, side // 4, -1)
    shrunk = square_clips.SquareClips(Echo(), frames=3)(oblong)
    assert shrunk.shape == (1, 3, 1, side, side) and (shrunk.diff(dim=-1) > 0).all() and shrunk.abs().max() <= 1


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

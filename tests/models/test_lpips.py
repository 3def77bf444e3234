"""LPIPS against its definition place by place and against torchmetrics, with its published heads where they are at hand."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models import lpips as module
from models.lpips import HEADS, Lpips, LpipsParams, load_lpips
from models.nets.alexnet_vgg import KNOWN, Backbone, BackboneKind
from models.seeding import generator

PUBLISHED = Path(os.environ.get("CINEFAB_WEIGHTS", "")) / "lpips_heads"
CONVOLUTIONS: dict[BackboneKind, dict[int, tuple[int, ...]]] = {
    "alex": {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)},
    "vgg": {0: (64, 3, 3, 3), 2: (64, 64, 3, 3), 5: (128, 64, 3, 3), 7: (128, 128, 3, 3), 10: (256, 128, 3, 3),
            12: (256, 256, 3, 3), 14: (256, 256, 3, 3), 17: (512, 256, 3, 3), 19: (512, 512, 3, 3), 21: (512, 512, 3, 3),
            24: (512, 512, 3, 3), 26: (512, 512, 3, 3), 28: (512, 512, 3, 3)},
}
"""Of torchvision's files: `features.N.weight`."""
WIDTHS = {"alex": [64, 192, 384, 256, 256], "vgg": [64, 128, 256, 512, 512]}
KINDS: list[BackboneKind] = ["alex", "vgg"]


def backbone(kind: BackboneKind) -> Backbone:
    """Random, and normalised so that no layer goes dark."""
    net = Backbone(kind)
    rng = generator(7)
    with torch.no_grad():
        for value in net.parameters():
            value.copy_(torch.randn(value.shape, generator=rng) * (0.1 if value.ndim == 1 else (2 / value[0].numel()) ** 0.5))
    return net.eval()


def heads(kind: BackboneKind) -> list[Tensor]:
    if not (path := PUBLISHED / HEADS[kind].name).exists():
        return [torch.rand(width, generator=generator(width)) for width in WIDTHS[kind]]
    stored = torch.load(path, map_location="cpu", weights_only=True)
    return [stored[f"lin{layer}.model.1.weight"].flatten() for layer in range(5)]


def pictures(number: int, channels: int = 3, size: tuple[int, int] = (40, 33), seed: int = 0) -> Tensor:
    return torch.rand(number, channels, *size, generator=generator(seed)) * 2 - 1


def by_definition(kind: BackboneKind, first: Tensor, second: Tensor) -> float:
    """Of one pair (C, H, W): colours normalised as ImageNet's in [0, 1], then equation 1 of the paper, place by place."""
    net, maps = backbone(kind).features, []
    for picture in (first, second):
        x = (picture[None] + 1) / 2
        x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        seen = []
        for layer in net:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                seen.append(x[0])
        if kind == "vgg":  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
            seen = [seen[place] for place in (1, 3, 6, 9, 12)]
        maps.append(seen)
    total = 0.0
    for weights, own, other in zip(heads(kind), *maps, strict=True):
        places = []
        for row in range(own.shape[1]):
            for column in range(own.shape[2]):
                u, v = own[:, row, column], other[:, row, column]
                places.append(float((weights * (u / u.norm() - v / v.norm()) ** 2).sum()))
        total += sum(places) / len(places)
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_those_of_torchvision_s_file(kind: BackboneKind) -> None:
    wanted = {f"features.{place}.weight": shape for place, shape in CONVOLUTIONS[kind].items()}
    wanted |= {f"features.{place}.bias": shape[:1] for place, shape in CONVOLUTIONS[kind].items()}
    assert {name: tuple(value.shape) for name, value in Backbone(kind).state_dict().items()} == wanted


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_lpips_by_its_definition(kind: BackboneKind) -> None:
    first, second = pictures(2), pictures(2, seed=1)
    second[1] = 0.9 * first[1] + 0.1 * second[1]
    found = Lpips(backbone(kind), heads(kind))(first, second)
    wanted = [by_definition(kind, *pair) for pair in zip(first, second, strict=True)]
    assert found.tolist() == pytest.approx(wanted, rel=1e-4) and 0 < wanted[1] < wanted[0]


@pytest.mark.parametrize("kind", KINDS)
def test_lpips_is_that_of_torchmetrics(kind: BackboneKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own code around these layers, and the heads in its package."""
    theirs = pytest.importorskip("torchmetrics.functional.image.lpips")
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda name, pretrained: backbone(kind).features)
    reference: Any = theirs._LPIPS(net=kind, pretrained=True, pnet_rand=True)
    own = Lpips(backbone(kind), [line.model[-1].weight.flatten() for line in reference.lins])
    first, second = pictures(3), pictures(3, seed=1)
    with torch.no_grad():
        wanted = reference(first, second).flatten()
    torch.testing.assert_close(own(first, second), wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_frames_sides_and_batches(kind: BackboneKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", 3)
    look, first, second = Lpips(backbone(kind), heads(kind)), pictures(5), pictures(5, seed=1)
    found = look(first, second)
    assert look(first, first).tolist() == [0] * 5 and float(found.min()) > 0.01
    assert look(second, first).tolist() == pytest.approx(found.tolist(), rel=1e-5)
    alone = torch.cat([look(first[[row]], second[[row]]) for row in range(5)])
    assert alone.tolist() == pytest.approx(found.tolist(), rel=1e-4)
    grey = pictures(2, channels=1)
    colour = look(grey.expand(-1, 3, -1, -1), first[:2])
    assert look(grey, first[:2]).tolist() == pytest.approx(colour.tolist())


@pytest.mark.parametrize(("kind", "least"), [("alex", 31), ("vgg", 16)])
def test_small_frames_are_refused_and_the_smallest_are_not(kind: BackboneKind, least: int) -> None:
    look = Lpips(backbone(kind), heads(kind))
    assert float(look(pictures(1, size=(least, 40)), pictures(1, size=(least, 40), seed=1))) > 0
    assert KNOWN[kind].smallest == least
    with pytest.raises(RuntimeError):  # the network itself has nothing left to see
        list(backbone(kind).maps(pictures(1, size=(40, least - 1))))
    with pytest.raises(ValueError, match=f"needs frames of at least {least} x {least} pixels, not 40 x {least - 1}"):
        look(pictures(1, size=(40, least - 1)), pictures(1, size=(40, least - 1)))


@pytest.mark.parametrize("together", [2, 16])
def test_all_pairs_without_a_pair(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", together)
    net, weights = backbone("alex"), heads("alex")
    look, draws = Lpips(net, weights), pictures(12).unflatten(0, (3, 4))
    draws[2] = draws[2, :1]
    lpips, plain = look.apart(draws)
    pairs = [(one, other) for one in range(4) for other in range(4) if one != other]
    for row in range(3):
        wanted = [float(look(draws[row, [one]], draws[row, [other]])) for one, other in pairs]
        assert float(lpips[row]) == pytest.approx(sum(wanted) / len(pairs), rel=1e-4, abs=1e-7)
        scaled = functional.batch_norm(draws[row] / 2 + 0.5, torch.tensor([0.485, 0.456, 0.406]),
                                       torch.tensor([0.229, 0.224, 0.225]).square(), eps=0)
        with torch.no_grad():
            maps = list(net.maps(scaled))
        apart = [sum(float((one[i] - one[j]).square().mean()) for one in maps) / 5 for i, j in pairs]
        assert float(plain[row]) == pytest.approx(sum(apart) / len(pairs), rel=1e-4, abs=1e-7)
    assert float(lpips[2]) == float(plain[2]) == 0 < float(lpips[:2].min())


def test_files_are_read_and_others_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file as torchvision's, its classifier too, which LPIPS does not look at."""
    net = backbone("alex")
    path = tmp_path / KNOWN["alex"].file.name
    torch.save({**net.state_dict(), "classifier.1.weight": torch.zeros(4, 4)}, path)
    stored = {f"lin{layer}.model.1.weight": one.view(1, -1, 1, 1) for layer, one in enumerate(heads("alex"))}
    torch.save(stored, tmp_path / HEADS["alex"].name)
    params = LpipsParams(weights=tmp_path, heads=tmp_path, net="alex")
    with pytest.raises(ValueError, match=r"alex\.pth has sha256"):
        load_lpips(params)
    with pytest.raises(ValueError, match=r"vgg\.pth is missing; it is in lpips/weights/v0\.1 of PyPI's lpips"):
        load_lpips(LpipsParams(weights=tmp_path, heads=tmp_path))
    monkeypatch.setitem(HEADS, "alex", replace(HEADS["alex"], sha256=digest(tmp_path / HEADS["alex"].name)))
    with pytest.raises(ValueError, match=r"alexnet-owt-7be5be79\.pth has sha256"):
        load_lpips(params)
    monkeypatch.setitem(KNOWN, "alex", replace(KNOWN["alex"], file=replace(KNOWN["alex"].file, sha256=digest(path))))
    first, second = pictures(1), pictures(1, seed=1)
    assert load_lpips(params)(first, second).tolist() == Lpips(net, heads("alex"))(first, second).tolist()


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="CINEFAB_WEIGHTS/lpips_heads is not there")
@pytest.mark.parametrize("kind", KINDS)
def test_published_heads_are_known_and_nowhere_negative(kind: BackboneKind) -> None:
    stored = torch.load(HEADS[kind].within(PUBLISHED), map_location="cpu", weights_only=True)
    assert [tuple(one.shape) for one in stored.values()] == [(1, width, 1, 1) for width in WIDTHS[kind]]
    assert all(float(one.min()) >= 0 for one in stored.values())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

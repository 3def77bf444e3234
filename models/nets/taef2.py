"""TAEF2, a tiny pretrained autoencoder (O. Bohan, github.com/madebyollin/taesd, MIT): RGB to 32 channels at an eighth.

diffusers' `AutoencoderTiny` is its frame, but has no place for the global branch of its middle blocks, which is added here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffusers import AutoencoderTiny, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTinyOutput
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock, DecoderOutput
from torch import Tensor, nn

from models.weight_files import WeightFile

_SOURCE = "in commit 5cccb12dc720 of taesd; the README's `Pretrained parts` says how to get it"
FILES = {
    "encoder": WeightFile("taef2_encoder.pth", "10a4e1021e89d7551eaf161352da8dbd0b1aa83872ae28b150c1df1ce2f147b6", _SOURCE),
    "decoder": WeightFile("taef2_decoder.pth", "0a44a31e1ae59eb9dbf9359d24942fd3ef5928162c1800d97a28c61d51be0ab5", _SOURCE),
}

_MIDDLE = {"encoder": (11, 12, 13), "decoder": (2, 3, 4)}
"""Places of the blocks at the latents' resolution."""


class MiddleBlock(AutoencoderTinyBlock):
    """A block that first adds what a normalised 1 x 1 bottleneck sees; its group norm looks at the whole frame."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, "relu")
        self.pool = nn.Sequential(
            nn.Conv2d(channels, 4 * channels, 1, bias=False), nn.GroupNorm(4, 4 * channels), nn.ReLU(),
            nn.Conv2d(4 * channels, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x + self.pool(x))
        return out


class Taef2(ModelMixin, ConfigMixin):
    """See the module; frames and latents as diffusers' `AutoencoderTiny` has them."""

    config_name = "config.json"

    @register_to_config
    def __init__(self, in_channels: int = 3, latent_channels: int = 32,
                 block_out_channels: Sequence[int] = (64, 64, 64, 64), scaling_factor: float = 1.0) -> None:
        super().__init__()
        widths = tuple(block_out_channels)
        frame = AutoencoderTiny(in_channels, in_channels, widths, widths, latent_channels=latent_channels)
        self.encoder, self.decoder = frame.encoder, frame.decoder
        for half, places in _MIDDLE.items():
            for place in places:
                getattr(self, half).layers[place] = MiddleBlock(widths[-1])

    def encode(self, frames: Tensor) -> AutoencoderTinyOutput:
        """(B, 3, H, W) in [-1, 1] -> .latents (B, 32, H / 8, W / 8)."""
        return AutoencoderTinyOutput(latents=self.encoder(frames))

    def decode(self, latents: Tensor) -> DecoderOutput:
        """(B, 32, h, w) -> .sample (B, 3, 8 h, 8 w), about [-1, 1]."""
        return DecoderOutput(sample=self.decoder(latents))


def load_taef2(folder: Path) -> Taef2:
    """The two files of `FILES` in a folder, their checksums verified, as float32.

    Raises:
        ValueError: for a file that is missing or another one.
    """
    net = Taef2()
    for half, file in FILES.items():
        weights = file.tensors(folder)
        # the decoder's file counts its clamp as a layer, diffusers' is outside
        shift = 1 if half == "decoder" else 0
        places = {key: int(key.partition(".")[0]) - shift for key in weights}
        getattr(net, half).layers.load_state_dict(
            {f"{places[key]}.{key.partition('.')[2]}": value.float() for key, value in weights.items()})
    return net.eval()

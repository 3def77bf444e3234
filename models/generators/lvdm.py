"""LVDM-style: diffusion of whole clips in a codec's latents, class -> clip (He et al. 2022). A baseline.

LVDM's autoencoder also shortens time, four frames to one; the codec here is that of the other latent generators, frame by
frame, so that they differ in what denoises alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from models.clip import ClipBatch, Condition, DescribedClips
from models.codec import Codec, LocalVae, VaeParams, measure, obtain_vae
from models.diffusion.denoiser import Prediction
from models.diffusion.latent_sampler import Schedule, latent_schedule
from models.diffusion.volume_diffusion import Sampling, sample_volumes, volume_loss
from models.generators import Checkpoint
from models.nets.volume_unet import VolumeParams, VolumeUNet
from models.seeding import derive_seed
from models.trainer import StateHook, fit

__all__ = ["Lvdm", "Params", "Sampling", "build"]


class Params(BaseModel):
    """What training needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codec: VaeParams | LocalVae
    video: VolumeParams
    prediction: Prediction = "v_prediction"
    schedule: Schedule = "scaled_linear"
    drop: float = Field(0.1, ge=0, le=1, description="chance that the class is dropped")
    even_classes: bool = Field(True, description="draw classes equally often")


def build(params: Params, checkpoint: Checkpoint | None = None) -> Lvdm:
    return Lvdm(params, checkpoint)


class Lvdm:
    """See the module. Networks: `vae`, `video`."""

    def __init__(self, params: Params, checkpoint: Checkpoint | None = None) -> None:
        self.params = params
        self.schedule = latent_schedule(params.schedule, params.prediction)
        self._nets: dict[str, Any] = dict(checkpoint.nets) if checkpoint else {}
        self._facts: dict[str, Any] = checkpoint.facts if checkpoint else {}

    def fit(self, clips: DescribedClips, hook: StateHook, seed: int) -> Checkpoint:
        """Train codec, then network; a resumed run ends with the same weights.

        Raises:
            ValueError: if the frame cannot be halved as often as codec and levels ask.
        """
        params, video = self.params, self.params.video
        shape = list(clips.read([0]).frames.shape[1:])
        self._nets["vae"], losses = obtain_vae(params.codec, clips, hook, seed)
        known = sorted({*clips.labels} - {""})
        self._facts = {"clip_shape": shape, "labels": known, **measure(self._nets["vae"], clips, seed)}
        codec = self._codec()
        codec.check_size(shape[2:], len(video.channels), "video")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "video"))
            net = VolumeUNet(codec.channels, len(known), video.channels, video.layers, video.attention, video.head_width,
                             video.norm_groups)

        def encode(frames: torch.Tensor) -> torch.Tensor:
            self._nets["vae"].to(frames.device).eval()
            return codec.encode(frames)

        loss = volume_loss(clips, video.train, self.schedule, known, params.drop, params.even_classes, encode)
        losses["video"] = fit(net, loss, video.train, phase="video", seed=seed, hook=hook)
        self._nets["video"] = net
        return Checkpoint("lvdm", params.model_dump(mode="json"), dict(self._nets), self._facts, losses)

    def _codec(self) -> Codec:
        return Codec(self._nets["vae"], self._facts["latent_mean"], self._facts["latent_std"])

    def draws(self, seeds: Sequence[int], sampling: Sampling) -> list[dict[str, float]]:
        """Nothing is drawn per clip beside noise."""
        return [{} for _ in seeds]

    def sample(self, conditions: Condition, seeds: Sequence[int], sampling: Sampling, device: str = "cpu") -> ClipBatch:
        """One clip per condition and seed; see `sample_volumes`. Frames (B, T, C, H, W) on the CPU, in [-1, 1]."""
        net, codec = self._nets["video"].to(device).eval(), self._codec()
        self._nets["vae"].to(device).eval()
        frames, channels, height, width = self._facts["clip_shape"]
        shape = (frames, codec.channels, height // codec.factor, width // codec.factor)
        latents = sample_volumes(net, self.schedule, self._facts["labels"], conditions, seeds, shape, sampling, device)
        return ClipBatch(conditions.ids, codec.decode(latents, channels).float().cpu(), conditions)

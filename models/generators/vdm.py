"""VDM-style: diffusion of whole clips in pixels, class -> clip (Ho et al., NeurIPS 2022). A baseline.

Its 3-D U-Net attends over space and over time in every block, as here; theirs is trained on images too, has rotary positions
over time and the cosine schedule, here diffusers' network and the cosine schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from models.clip import ClipBatch, Condition, DescribedClips
from models.diffusion.denoiser import Prediction
from models.diffusion.latent_sampler import latent_schedule
from models.diffusion.volume_diffusion import Sampling, sample_volumes, volume_loss
from models.generators import Checkpoint
from models.nets.volume_unet import VolumeParams, VolumeUNet
from models.seeding import derive_seed
from models.trainer import StateHook, fit

__all__ = ["Params", "Sampling", "Vdm", "build"]


class Params(BaseModel):
    """What training needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    video: VolumeParams
    prediction: Prediction = "v_prediction"
    drop: float = Field(0.1, ge=0, le=1, description="chance that the class is dropped")
    even_classes: bool = Field(True, description="draw classes equally often")


def build(params: Params, checkpoint: Checkpoint | None = None) -> Vdm:
    return Vdm(params, checkpoint)


class Vdm:
    """See the module. Network: `video`."""

    def __init__(self, params: Params, checkpoint: Checkpoint | None = None) -> None:
        self.params = params
        self.schedule = latent_schedule("cosine", params.prediction)
        self._nets: dict[str, Any] = dict(checkpoint.nets) if checkpoint else {}
        self._facts: dict[str, Any] = checkpoint.facts if checkpoint else {}

    def fit(self, clips: DescribedClips, hook: StateHook, seed: int) -> Checkpoint:
        """Train the one network; a resumed run ends with the same weights.

        Raises:
            ValueError: if the frame cannot be halved as often as the levels ask.
        """
        frames, channels, height, width = clips.read([0]).frames.shape[1:]
        video, smallest = self.params.video, 2 ** (len(self.params.video.channels) - 1)
        if height % smallest or width % smallest:
            raise ValueError(f"frame_size {[height, width]} must be divisible by {smallest} for {len(video.channels)} levels "
                             "of video channels")
        self._facts = {"clip_shape": [frames, channels, height, width], "labels": sorted({*clips.labels} - {""})}
        known = self._facts["labels"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "video"))
            net = VolumeUNet(channels, len(known), video.channels, video.layers, video.attention, video.head_width,
                             video.norm_groups)
        loss = volume_loss(clips, video.train, self.schedule, known, self.params.drop, self.params.even_classes,
                           lambda frames: frames)
        losses = {"video": fit(net, loss, video.train, phase="video", seed=seed, hook=hook)}
        self._nets["video"] = net
        return Checkpoint("vdm", self.params.model_dump(mode="json"), dict(self._nets), self._facts, losses)

    def draws(self, seeds: Sequence[int], sampling: Sampling) -> list[dict[str, float]]:
        """Nothing is drawn per clip beside noise."""
        return [{} for _ in seeds]

    def sample(self, conditions: Condition, seeds: Sequence[int], sampling: Sampling, device: str = "cpu") -> ClipBatch:
        """One clip per condition and seed; see `sample_volumes`. Frames (B, T, C, H, W) on the CPU, clipped to [-1, 1]."""
        net = self._nets["video"].to(device).eval()
        shape = self._facts["clip_shape"]
        frames = sample_volumes(net, self.schedule, self._facts["labels"], conditions, seeds, shape, sampling, device)
        return ClipBatch(conditions.ids, frames.clamp(-1, 1).float().cpu(), conditions)

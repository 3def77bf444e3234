"""A small VAE of single frames; its latents are what VAE-Seq and the similarity filter compare (Ctrl-GenAug, Algorithm 1).

It is trained here, on the training split, whatever codec the generator uses. Two faults of the released filter are not
repeated: it fed [0, 1] images to a VAE of [-1, 1], and it sampled the posterior, which made every score noisy.
"""

from __future__ import annotations

from torch import Tensor

from models.clip import ClipSource
from models.codec import VaeParams, latent_means, train_vae
from models.generators import Checkpoint
from models.trainer import StateHook

Params = VaeParams


def fit(params: VaeParams, clips: ClipSource, hook: StateHook, seed: int) -> Checkpoint:
    """See `models.codec.train_vae`."""
    vae, losses = train_vae(params, clips, hook, seed)
    facts = {"clip_shape": list(clips.read([0]).frames.shape[1:])}
    return Checkpoint("vae", params.model_dump(mode="json"), {"vae": vae}, facts, {"vae": losses})


def latents(checkpoint: Checkpoint, frames: Tensor, batch: int = 32) -> Tensor:
    """Posterior means of all frames: (B, T, C, H, W) in [-1, 1] -> (B, T, c, h, w) float32; `batch` frames at a time."""
    return latent_means(checkpoint.nets["vae"], frames, batch)

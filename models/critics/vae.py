"""A small VAE of single frames; its latents are what VAE-Seq and the similarity filter compare (Ctrl-GenAug, Algorithm 1).

It is trained here, on the training split, whatever codec the generator uses, and remembers how like consecutive frames of
real clips are. Two faults of the released filter are not repeated: it fed [0, 1] images to a VAE of [-1, 1], and it sampled the
posterior, which made every score noisy.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from models.clip import ClipSource, spread
from models.codec import VaeParams, latent_means, train_vae
from models.generators import Checkpoint
from models.trainer import StateHook

Params = VaeParams
MEASURED, READ_TOGETHER = 256, 32


def fit(params: VaeParams, clips: ClipSource, hook: StateHook, seed: int) -> Checkpoint:
    """See `models.codec.train_vae`; `facts["vae_seq"]` are the values of up to `MEASURED` clips, spread over all."""
    vae, losses = train_vae(params, clips, hook, seed)
    shape = list(clips.read([0]).frames.shape[1:])
    rows = spread(len(clips), MEASURED) if shape[0] > 1 else []
    real = [vae_seq(latent_means(vae, clips.read(rows[start : start + READ_TOGETHER]).frames))
            for start in range(0, len(rows), READ_TOGETHER)]
    facts = {"clip_shape": shape, "vae_seq": [value for part in real for value in part.tolist()]}
    return Checkpoint("vae", params.model_dump(mode="json"), {"vae": vae}, facts, {"vae": losses})


def vae_seq(latents: Tensor) -> Tensor:
    """100 times the mean cosine of consecutive frames' flattened latents: (B, T, c, h, w) -> (B,), percent."""
    flat = functional.normalize(latents.flatten(2).double(), dim=2)
    return 100 * (flat[:, 1:] * flat[:, :-1]).sum(2).mean(1).float()


def latents(checkpoint: Checkpoint, frames: Tensor, batch: int = 32) -> Tensor:
    """Posterior means of all frames: (B, T, C, H, W) in [-1, 1] -> (B, T, c, h, w) float32; `batch` frames at a time."""
    return latent_means(checkpoint.nets["vae"], frames, batch)

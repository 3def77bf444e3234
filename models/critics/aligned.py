"""Text and image encoders trained against each other on real clips: does a synthetic clip show what its text says?

A critic of its own, so that a generator that looks through such encoders is not judged by them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.alignment import AlignmentParams, train_aligned
from models.clip import DescribedClips
from models.generators import Checkpoint
from models.trainer import StateHook

Params = AlignmentParams


def fit(params: AlignmentParams, clips: DescribedClips, hook: StateHook, seed: int) -> Checkpoint:
    """See `models.alignment.train_aligned`; `facts["texts"]` are the distinct texts.

    Raises:
        ValueError: with fewer than two different texts.
    """
    net, losses = train_aligned(params, clips, hook, seed)
    if not losses:
        raise ValueError("an aligned critic needs clips of at least 2 different texts; give dataset.options.text")
    texts = sorted({*clips.texts} - {""})
    facts = {"clip_shape": list(clips.read([0]).frames.shape[1:]), "texts": texts}
    return Checkpoint("aligned", params.model_dump(mode="json"), {"aligned": net}, facts, {"alignment": losses})


@torch.inference_mode()
def likeness(checkpoint: Checkpoint, frames: Tensor, texts: Sequence[str], batch: int = 64) -> Tensor:
    """(B, L) mean over frames of the scaled cosine between clips (B, T, C, H, W) and texts."""
    net = checkpoint.nets["aligned"]
    device = next(net.parameters()).device
    found = torch.cat([net(part.to(device), texts).cpu() for part in frames.flatten(0, 1).split(batch)])
    return found.unflatten(0, frames.shape[:2]).mean(1)

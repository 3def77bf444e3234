"""A segmenter trained on the annotated real training clips, and how well it does on some it did not see.

The agreement filter asks it whether a synthetic clip shows its mask where it was asked to. Its Dice on clips it was trained
on would set the bar too high, so a part of the annotated clips is held out of its training to calibrate that bar.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.augment import augment
from models.clip import UNKNOWN, ClipSource
from models.generators import Checkpoint
from models.seeding import derive_seed
from models.segmenters import Segmenter, segment, segmentation_loss
from models.trainer import StateHook, TrainParams
from models.trainer import fit as train


class Params(BaseModel):
    """`batch_size` counts clips."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Literal["vnet", "dynunet", "swinunetr"] = "dynunet"
    dims: Literal[2, 3] = 3
    filters: list[int] = Field([16, 32, 64], min_length=3, description="DynUNet's channels by level")
    held_out: float = Field(0.3, gt=0, lt=1, description="share of the annotated training clips kept for calibration")
    train: TrainParams


def fit(params: Params, clips: ClipSource, hook: StateHook, seed: int) -> Checkpoint:
    """Train on clips with an annotated frame but the held-out share; `facts["calibration"]` are the Dice values on that share.

    Raises:
        ValueError: with fewer than two annotated clips, or none that shows anything.
    """
    frames, channels, height, width = clips.read([0]).frames.shape[1:]
    highest = [_highest_label(clips, row) for row in range(len(clips))]
    annotated = [row for row, label in enumerate(highest) if label is not None]
    if len(annotated) < 2:
        raise ValueError(f"the segmenter needs 2 annotated training clips, but has {len(annotated)}; raise annotated_patients")
    if not (classes := max(highest[row] or 0 for row in annotated)):
        raise ValueError(f"the {len(annotated)} annotated training clips show background only; there is nothing to segment")
    # a block, not a draw: clips of one patient lie side by side in the manifest, so at most one patient is on both sides
    count = max(1, round(params.held_out * len(annotated)))
    seen, held_out = annotated[:-count], annotated[-count:]
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "segmenter"))
        net = Segmenter(params.network, params.dims, channels, classes, params.filters)
    size = params.train.batch_size

    def loss(wrapped: nn.Module, rng: torch.Generator) -> Tensor:
        batch = clips.read([seen[at] for at in torch.randint(len(seen), (size,), generator=rng).tolist()])
        pictures, masks = augment(batch.frames, batch.condition.masks, rng)
        device = next(wrapped.parameters()).device
        return segmentation_loss(wrapped(pictures.to(device)), masks.to(device))

    losses = train(net, loss, params.train, phase="segmenter", seed=seed, hook=hook)
    trial = clips.read(held_out)
    calibration = dice(segment(net, trial.frames), trial.condition.masks, classes)
    facts = {"clip_shape": [frames, channels, height, width], "classes": classes, "calibration": calibration.tolist()}
    return Checkpoint("segmenter", params.model_dump(mode="json"), {"segmenter": net}, facts, {"segmenter": losses})


def _highest_label(clips: ClipSource, row: int) -> int | None:
    """Of a clip's annotated frames; None without one."""
    condition = clips.read([row]).condition
    masks = condition.masks[condition.annotated]
    return int(masks.max()) if len(masks) else None


def agreement(checkpoint: Checkpoint, frames: Tensor, masks: Tensor) -> Tensor:
    """(B,) Dice between what the segmenter sees in the frames and the masks they should show, mean over classes."""
    return dice(segment(checkpoint.nets["segmenter"], frames), masks, checkpoint.facts["classes"])


def dice(found: Tensor, masks: Tensor, classes: int) -> Tensor:
    """(B,) Dice of whole clips (B, T, H, W), mean over the classes that either shows; 1 where neither shows any.

    Unknown pixels are left out. A class in one of the two alone counts as 0.
    """
    known = masks != UNKNOWN
    values = []
    for label in range(1, classes + 1):
        first, second = (found == label) & known, (masks == label) & known
        overlap, total = (first & second).flatten(1).sum(1), (first.flatten(1).sum(1) + second.flatten(1).sum(1))
        values.append(torch.where(total > 0, 2 * overlap / total.clamp_min(1), torch.nan))
    return torch.stack(values).nanmean(0).nan_to_num(1.0)

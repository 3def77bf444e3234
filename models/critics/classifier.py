"""A clip classifier trained on labelled real training clips: does a synthetic clip look like the class it was asked to show?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from models.augment import augment
from models.class_turns import ClassTurns
from models.classifiers import Classifier, ClassifierKind, classify
from models.clip import DescribedClips
from models.generators import Checkpoint
from models.seeding import derive_seed
from models.trainer import StateHook, TrainParams
from models.trainer import fit as train


class Params(BaseModel):
    """`batch_size` counts clips."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: ClassifierKind = Field("r2plus1d", description="a module of models.classifiers")
    width: int = Field(16, gt=0, description="channels of its first level")
    train: TrainParams


def fit(params: Params, clips: DescribedClips, hook: StateHook, seed: int) -> Checkpoint:
    """Train on every labelled clip, classes drawn equally often, with geometric augmentation; classes are `facts["labels"]`.

    Raises:
        ValueError: with fewer than two classes among the clips.
    """
    frames, channels, height, width = clips.read([0]).frames.shape[1:]
    turns = ClassTurns(clips.labels)
    labels = [label for label in turns.classes if label]
    if len(labels) < 2:
        raise ValueError(f"a classifier needs 2 classes among the training clips, but has {len(labels)}: {', '.join(labels)}; "
                         "give dataset.options.label_column")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "classifier"))
        net = Classifier(params.network, channels, len(labels), frames, params.width)

    def loss(wrapped: nn.Module, rng: torch.Generator) -> Tensor:
        batch = clips.read(turns.draw(params.train.batch_size, rng))
        shown = torch.tensor([labels.index(label) for label in batch.condition.labels])
        pictures, _ = augment(batch.frames, batch.condition.masks, rng)
        device = next(wrapped.parameters()).device
        return functional.cross_entropy(wrapped(pictures.to(device)).float(), shown.to(device))

    losses = train(net, loss, params.train, phase="classifier", seed=seed, hook=hook)
    facts = {"clip_shape": [frames, channels, height, width], "labels": labels}
    return Checkpoint("classifier", params.model_dump(mode="json"), {"classifier": net}, facts, {"classifier": losses})


def probabilities(checkpoint: Checkpoint, frames: Tensor) -> Tensor:
    """(B, K) probabilities of clips (B, T, C, H, W), classes as in `facts["labels"]`."""
    return classify(checkpoint.nets["classifier"], frames)


def loss_of(checkpoint: Checkpoint, frames: Tensor, labels: Sequence[str]) -> Tensor:
    """(B,) cross-entropy of the asked class.

    Raises:
        ValueError: for a class the classifier does not know.
    """
    asked = _asked(checkpoint, labels)
    return -probabilities(checkpoint, frames).clamp_min(1e-12).log().gather(1, asked[:, None])[:, 0]


def rank_of(checkpoint: Checkpoint, frames: Tensor, labels: Sequence[str]) -> Tensor:
    """(B,) how many classes are at least as likely as the asked one, itself included; of equal ones those before it in order.

    Raises:
        ValueError: for a class the classifier does not know.
    """
    asked = _asked(checkpoint, labels)[:, None]
    chances = probabilities(checkpoint, frames)
    own = chances.gather(1, asked)
    before = torch.arange(chances.shape[1])[None] < asked
    return 1 + ((chances > own) | ((chances == own) & before)).sum(1)


def _asked(checkpoint: Checkpoint, labels: Sequence[str]) -> Tensor:
    """(B,) class numbers."""
    known: list[str] = checkpoint.facts["labels"]
    if strange := set(labels) - set(known):
        names = ", ".join(sorted(map(repr, strange)))
        raise ValueError(f"clips of class {names}, but the classifier knows {', '.join(known)}; sample clips of those classes, "
                         "or leave this filter out")
    return torch.tensor([known.index(label) for label in labels])

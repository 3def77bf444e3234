"""Text and image encoders, small and aligned by contrast on the training split.

Ctrl-GenAug fine-tunes CLIP on its data before the generator sees it; its release has no code for that and always passes the
empty text. Both encoders here are trained from scratch on what the training split holds, so they need no weights from elsewhere
and know nothing of held-out patients; or they begin as pretrained ones from a folder (`models.local_encoders`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from models.clip import DescribedClips
from models.local_encoders import LocalImageEncoder, LocalTextEncoder, load_image_encoder, load_text_encoder
from models.seeding import derive_seed
from models.trainer import Loss, StateHook, TrainParams, fit

BEGIN, UNSEEN = 0, 1
"""Word numbers: every text begins with `BEGIN`; `UNSEEN` is a word of no training text."""
_FIRST = 2
_WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")


class AlignmentParams(BaseModel):
    """Text and image encoder, trained by contrast; `batch_size` counts frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(64, gt=0, multiple_of=16)
    grid: int = Field(4, gt=0, description="grid^2 tokens of an image")
    text_folder: Path | None = Field(None, description="begin with the transformers model and tokenizer in it")
    image_folder: Path | None = Field(None, description="begin with the transformers model in it")
    train: TrainParams


def words(text: str) -> list[str]:
    """Lower-case words; hyphens inside a word keep it together ("B-lines"), punctuation separates."""
    return _WORD.findall(text.lower())


def vocabulary(texts: Sequence[str]) -> list[str]:
    """The words of these texts, sorted. Fit it on the training split only."""
    return sorted({word for text in texts for word in words(text)})


class TextEncoder(ModelMixin, ConfigMixin):
    """A transformer encoder over words.

    Args:
        known: the vocabulary; it is saved with the weights.
        width: channels of a token.
        longest: words of a text that are read, those beyond are dropped.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, known: Sequence[str], width: int = 64, layers: int = 2, heads: int = 4, longest: int = 24) -> None:
        super().__init__()
        self.width = width
        self._number = {word: number for number, word in enumerate(known, _FIRST)}
        self.embed = nn.Embedding(_FIRST + len(known), width)
        self.position = nn.Parameter(0.02 * torch.randn(1, longest + 1, width))
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.relate = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)

    def numbers(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(B, L + 1) word numbers that begin with `BEGIN`, and which of them are beyond the text's end; L is `longest`."""
        table = torch.full((len(texts), self.position.shape[1]), BEGIN)
        beyond = torch.ones_like(table, dtype=torch.bool)
        for row, text in enumerate(texts):
            found = [BEGIN, *(self._number.get(word, UNSEEN) for word in words(text))][: table.shape[1]]
            table[row, : len(found)], beyond[row, : len(found)] = torch.tensor(found), False
        return table, beyond

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Tokens (B, L + 1, width) of the texts, those beyond the end are zero."""
        numbers, beyond = (one.to(self.position.device) for one in self.numbers(texts))
        tokens = self.relate(self.embed(numbers) + self.position, src_key_padding_mask=beyond)
        return tokens.masked_fill(beyond[..., None], 0)

    def whole(self, tokens: Tensor) -> Tensor:
        """(B, width): the first token stands for the text."""
        return tokens[:, 0]


class ImageEncoder(ModelMixin, ConfigMixin):
    """A small CNN that keeps where things are: frames (B, C, H, W) in [-1, 1] -> tokens (B, grid^2, width)."""

    config_name = "config.json"

    @register_to_config
    def __init__(self, channels: int = 1, width: int = 64, grid: int = 4) -> None:
        super().__init__()
        self.width = width
        layers: list[nn.Module] = []
        before = channels
        for after in (width // 4, width // 2, width):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(4, after), nn.SiLU()]
            before = after
        self.see = nn.Sequential(*layers, nn.Conv2d(width, width, 3, padding=1), nn.AdaptiveAvgPool2d(grid))
        self.norm = nn.LayerNorm(width)

    def forward(self, frames: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.see(frames).flatten(2).transpose(1, 2))
        return tokens


class Aligned(ModelMixin, ConfigMixin):
    """Both encoders and what only their alignment needs: a projection each and the temperature.

    Args:
        known: the small text encoder's vocabulary.
        channels: of the frames.
        width, grid, layers: of the small encoders.
        local_text, local_image: configurations of `LocalTextEncoder` and `LocalImageEncoder`, in place of the small ones.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, known: Sequence[str], channels: int = 1, width: int = 64, grid: int = 4, layers: int = 2,
                 local_text: dict[str, Any] | None = None, local_image: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.text = LocalTextEncoder(**local_text) if local_text else TextEncoder(known, width, layers)
        self.image = LocalImageEncoder(**local_image) if local_image else ImageEncoder(channels, width, grid)
        self.project_text, self.project_image = (nn.Linear(one.width, width, bias=False) for one in (self.text, self.image))
        self.log_scale = nn.Parameter(torch.tensor(1 / 0.07).log())

    def forward(self, frames: Tensor, texts: Sequence[str]) -> Tensor:
        """(B, B') scaled cosines between images (rows) and texts (columns)."""
        of_text = functional.normalize(self.project_text(self.text.whole(self.text(texts))), dim=1)
        of_image = functional.normalize(self.project_image(self.image(frames).mean(1)), dim=1)
        return self.log_scale.exp().clamp(max=100) * of_image @ of_text.T


def alignment_loss(draw: Callable[[torch.Generator], tuple[Tensor, Sequence[str]]]) -> Loss:
    """The symmetric contrastive loss of CLIP (Radford 2021) for `models.trainer.fit`, where equal texts are no negatives.

    In a small data set most batches hold the same text more than once; telling such pairs apart cannot be learned. The target
    of an image is shared by all texts equal to its own.

    Args:
        draw: rng -> frames (B, C, H, W) and their texts.
    """

    def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
        frames, texts = draw(rng)
        logits = net(frames.to(next(net.parameters()).device), texts)
        distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        number = torch.tensor([distinct[text] for text in texts], device=logits.device)
        target = (number[:, None] == number).float()
        target = target / target.sum(1, keepdim=True)
        return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2

    return loss


def train_aligned(params: AlignmentParams, clips: DescribedClips, hook: StateHook, seed: int) -> tuple[Aligned, list[float]]:
    """Train both encoders on random frames of the clips that have a text; returns them and the loss of every step.

    Without two different texts there is nothing to contrast: the encoders stay as they begin, and there are no losses.

    Raises:
        ValueError: for a folder without an encoder.
    """
    texts = clips.texts
    rows = [row for row, text in enumerate(texts) if text]
    frames, channels = clips.read([0]).frames.shape[1:3]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "alignment"))
        net = _begin(params, vocabulary(texts), channels)
    if len({texts[row] for row in rows}) < 2:
        return net.eval(), []

    def draw(rng: torch.Generator) -> tuple[Tensor, Sequence[str]]:
        size = params.train.batch_size
        batch = clips.read([rows[place] for place in torch.randint(len(rows), (size,), generator=rng).tolist()])
        return batch.frames[torch.arange(size), torch.randint(frames, (size,), generator=rng)], batch.condition.texts

    return net, fit(net, alignment_loss(draw), params.train, phase="alignment", seed=seed, hook=hook)


def _begin(params: AlignmentParams, known: Sequence[str], channels: int) -> Aligned:
    """Both encoders before training: random, or what a folder holds."""
    given = {"text": load_text_encoder(params.text_folder) if params.text_folder else None,
             "image": load_image_encoder(params.image_folder) if params.image_folder else None}
    configs = {f"local_{name}": _config(net) for name, net in given.items() if net}
    aligned = Aligned(known, channels, params.width, params.grid, **configs)
    for name, net in given.items():
        if net:
            getattr(aligned, name).load_state_dict(net.state_dict())
    return aligned


def _config(net: ModelMixin) -> dict[str, Any]:
    return {key: value for key, value in net.config.items() if not key.startswith("_")}

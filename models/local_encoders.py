"""Pretrained text and image encoders of the `transformers` library (extra `transformers`), from a folder on disk.

Ctrl-GenAug's own are CLIP for words and MedSAM for images. They stand in for the small encoders of `models.alignment`, and are
aligned with the training split like those: the paper fine-tunes CLIP on its data first. A checkpoint holds their weights, and
the words' tokenizer as text, so nothing is read from the folder again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

from models.weight_files import configuration, loading

_FROM_DISK: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
"""Nothing is fetched, no code of the folder is run, and no pickle is read: weights in a .bin are not looked for."""

Half = Literal["text_model", "vision_model"]
"""Of a model of both, as CLIP and SigLIP call them."""


class LocalTextEncoder(ModelMixin, ConfigMixin):
    """A text model with its tokenizer.

    Args:
        settings: the configuration of the transformers model.
        tokenizer: what `tokenizers.Tokenizer.to_str` gives, with padding and truncation set.
        masked: tokens beyond a text's end are unseen and zero; Stable Diffusion's U-Net wants them as they come.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, settings: dict[str, Any], tokenizer: str, masked: bool = True) -> None:
        super().__init__()
        from tokenizers import Tokenizer

        self.model = _empty(settings, "text_model")
        self.width = int(settings["hidden_size"])
        self._tokenizer = Tokenizer.from_str(tokenizer)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Tokens (B, L, width) of the texts."""
        read = self._tokenizer.encode_batch(list(texts))
        device = next(self.parameters()).device
        numbers, there = (torch.tensor([getattr(one, what) for one in read], device=device)
                          for what in ("ids", "attention_mask"))
        masked = self.config.masked
        tokens: Tensor = self.model(input_ids=numbers, attention_mask=there if masked else None).last_hidden_state
        return tokens * there[..., None] if masked else tokens

    def whole(self, tokens: Tensor) -> Tensor:
        """(B, width): the mean of a text's tokens; which one stands for the whole differs between models."""
        there = tokens.abs().sum(2, keepdim=True) > 0
        return tokens.sum(1) / there.sum(1).clamp_min(1)


class LocalImageEncoder(ModelMixin, ConfigMixin):
    """An image model, transformer or convolutional.

    Args:
        settings: the configuration of the transformers model.
        mean, std: of its pixels in [0, 1], by channel.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, settings: dict[str, Any], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = _empty(settings, "vision_model")
        self.width = int(settings["hidden_size"] if "hidden_size" in settings else settings["hidden_sizes"][-1])
        self.size = settings.get("image_size")
        for name, values in (("centre", mean), ("spread", std)):
            self.register_buffer(name, torch.tensor(list(values)).view(-1, 1, 1), persistent=False)

    def _seen(self, frames: Tensor) -> Tensor:
        wanted = len(self.centre)
        seen = frames if frames.shape[1] == wanted else frames.mean(1, keepdim=True).expand(-1, wanted, -1, -1)
        if self.size:
            size = (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
            seen = functional.interpolate(seen, size, mode="bilinear", antialias=True, align_corners=False)
        return ((seen + 1) / 2 - self.centre) / self.spread

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (B, C, H, W) in [-1, 1] -> tokens (B, N, width)."""
        tokens: Tensor = self.model(pixel_values=self._seen(frames)).last_hidden_state
        return tokens.flatten(2).transpose(1, 2) if tokens.ndim == 4 else tokens

    def maps(self, frames: Tensor) -> list[Tensor]:
        """What every layer sees, channels first: (B, C', H', W') of a convolutional model, (B, width, N) of a transformer."""
        seen = self.model(pixel_values=self._seen(frames), output_hidden_states=True).hidden_states
        return [one if one.ndim == 4 else one.transpose(1, 2) for one in seen]


class ClipTower(nn.Module):
    """The image half of a CLIP with its projection to where texts are.

    Args:
        model: `CLIPModel` or `CLIPVisionModelWithProjection` of transformers.
        mean, std: of its pixels in [0, 1], by channel.
    """

    def __init__(self, model: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.vision, self.projection = model.vision_model, model.visual_projection
        self.settings: dict[str, Any] = {**self.vision.config.to_dict(), "projection_dim": self.projection.out_features}
        self._centre, self._spread = (torch.tensor(list(values)).view(-1, 1, 1) for values in (mean, std))

    def forward(self, pixels: Tensor) -> Tensor:
        """Pictures (B, 3, image_size, image_size) in [0, 1] -> (B, projection_dim), not of unit length."""
        found: Tensor = self.projection(self.vision(pixel_values=(pixels - self._centre) / self._spread).pooler_output)
        return found


def load_text_encoder(folder: Path, words: Path | None = None, longest: int = 77, masked: bool = True) -> LocalTextEncoder:
    """From a folder that `save_pretrained` of transformers wrote, model and tokenizer; of CLIP's, its text half.

    Args:
        words: the tokenizer's folder, where it has one of its own, as in Stable Diffusion's layout.
        longest: tokens of a text that are read at most.
        masked: see `LocalTextEncoder`.

    Raises:
        ValueError: if the folder does not hold both, or transformers is not installed.
    """
    config, weights = _read(folder, "text_model")
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    home, padding = words or folder, config.get("pad_token_id") or 0
    if (home / "tokenizer_config.json").exists():
        with loading(home):
            whole = AutoTokenizer.from_pretrained(home, local_files_only=True, trust_remote_code=False)
        tokenizer, padding = whole.backend_tokenizer, padding if whole.pad_token_id is None else whole.pad_token_id
    elif (home / "tokenizer.json").exists():
        with loading(home):
            tokenizer = Tokenizer.from_file(str(home / "tokenizer.json"))
    else:
        raise ValueError(f"{home} holds no tokenizer; save it there with save_pretrained of transformers")
    longest = min(longest, config.get("max_position_embeddings") or longest)
    tokenizer.enable_truncation(longest)
    tokenizer.enable_padding(length=longest, pad_id=padding, pad_token=tokenizer.id_to_token(padding) or "[PAD]")
    with loading(folder):
        net = LocalTextEncoder(config, tokenizer.to_str(), masked)
        net.model.load_state_dict(weights)
    return net


def load_image_encoder(folder: Path) -> LocalImageEncoder:
    """From a folder that `save_pretrained` of transformers wrote; of CLIP's, its image half.

    Raises:
        ValueError: if there is no model, or transformers is not installed.
    """
    config, weights = _read(folder, "vision_model")
    scale, channels = _scale(folder), config.get("num_channels", 3)
    with loading(folder):
        net = LocalImageEncoder(config, *(scale.get(what) or [0.5] * channels for what in ("image_mean", "image_std")))
        net.model.load_state_dict(weights)
    return net


def load_clip_tower(folder: Path) -> ClipTower:
    """From a folder that `save_pretrained` of transformers wrote, of a whole CLIP or of its image half; in eval mode.

    Raises:
        ValueError: if it holds another model, no projection, or not how pixels are scaled, or transformers is not installed.
    """
    transformers = _library(folder)
    classes = {"clip": transformers.CLIPModel, "clip_vision_model": transformers.CLIPVisionModelWithProjection}
    kind = configuration(folder / "config.json").get("model_type")
    if not isinstance(kind, str) or kind not in classes:
        raise ValueError(f"{folder} holds a model of type {kind}; give one of type {' or '.join(classes)}")
    scale = _scale(folder)
    if missing := {"image_mean", "image_std"} - set(scale):
        raise ValueError(f"{folder} has no {' and '.join(sorted(missing))} in preprocessor_config.json; CLIP needs its own")
    with loading(folder):
        model, about = classes[kind].from_pretrained(folder, **_FROM_DISK, output_loading_info=True)
    if about["missing_keys"]:
        raise ValueError(f"{folder} has no weights for {', '.join(sorted(about['missing_keys']))}; save the model with its "
                         "projection")
    return ClipTower(model, scale["image_mean"], scale["image_std"]).eval()


def _scale(folder: Path) -> dict[str, Any]:
    """What a folder says of how pixels are made ready; {} if nothing."""
    path = folder / "preprocessor_config.json"
    return configuration(path) if path.exists() else {}


def _library(folder: Path) -> Any:
    """transformers, if it is there and the folder looks like one of its models."""
    try:
        import transformers
    except ImportError:
        raise ValueError(f"{folder}: encoders from a folder need the extra `transformers`: pip install 'cinefab[transformers]'"
                         ) from None
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} holds no config.json; give a folder that save_pretrained of transformers wrote")
    return transformers


def _read(folder: Path, half: Half) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights of the model in a folder, or of that half of it."""
    library = _library(folder)
    with loading(folder):
        model = library.AutoModel.from_pretrained(folder, **_FROM_DISK)
        part = getattr(model, half, model)
        return part.config.to_dict(), part.state_dict()


def _empty(config: dict[str, Any], half: Half) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    model = AutoModel.from_config(AutoConfig.for_model(**config))
    part: nn.Module = getattr(model, half, model)
    return part

"""Attention of Ctrl-GenAug: decoupled cross-attention, key frames, motion field, and frames at one place.

Tokens are (B F, N, W): the frames of a clip lie side by side in the batch, N places in row order, W channels. `F` is 1 for an
image. Linear layers and heads are those of diffusers' `Attention`.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional

from models.motion import NONE


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(..., N, W) -> (..., heads, N, W / heads)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(-3, -2)


def merge_heads(tokens: Tensor) -> Tensor:
    """The inverse of `split_heads`."""
    return tokens.transpose(-3, -2).flatten(-2)


def key_frame_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Every frame looks at the first frame and the one before it; the first at itself twice (KA, section 3.4).

    Args:
        query, key, value: (B, F, heads, N, d).

    Returns:
        (B, F, heads, N, d).
    """
    before = [max(frame - 1, 0) for frame in range(query.shape[1])]
    keys, values = (torch.cat([one[:, :1].expand_as(one), one[:, before]], 3) for one in (key, value))
    return functional.scaled_dot_product_attention(query, keys, values)


def motion_field_attention(tokens: Tensor, table: Tensor) -> Tensor:
    """Every patch looks at the patches on its trajectory, itself included; no projections (MFA, section 3.4).

    Args:
        tokens: (B, F, heads, N, d), the output of `key_frame_attention`: query, keys and values at once.
        table: (B, F, N, F) places along each patch's trajectory, from `models.motion.trajectories`.

    Returns:
        (B, F, heads, N, d).
    """
    batch, frames, heads, places, depth = tokens.shape
    flat = tokens.transpose(2, 3).reshape(batch, frames * places, heads * depth)
    there = table != NONE
    index = (table.clamp_min(0) + places * torch.arange(frames, device=table.device)).flatten(1)  # (frame, place) order
    along = flat.gather(1, index[..., None].expand(-1, -1, flat.shape[2]))
    along = along.view(batch, frames, places, frames, heads, depth)
    scores = torch.einsum("bfhnd,bfnshd->bfhns", tokens, along) / depth**0.5
    weights = scores.masked_fill(~there[:, :, None], -torch.inf).softmax(-1)
    return torch.einsum("bfhns,bfnshd->bfhnd", weights, along)


class SequenceBlock(nn.Module):
    """In place of diffusers' `BasicTransformerBlock`, whose `forward` it has.

    LN -> self-attention (of a sequence: SAM) -> text and image cross-attention, each with projections and norm of its own ->
    feed-forward -> (of a sequence) LN -> attention over frames; each residual.

    A sequence block starts exactly as the image block it takes its weights from, frame by frame: attention over frames begins
    with a zero output, and SAM is mixed in by a gate, `self + tanh(gate) (SAM - self)`, that begins at 0. The paper has no
    gate: its KA replaces self-attention at once, and so changes the image model's output; `gated=False` is that. Without
    `augmented` (an ablation) self-attention stays what it was and only attention over frames is new.
    """

    def __init__(self, width: int, heads: int, text_width: int, image_width: int, sequence: bool, gated: bool = True,
                 augmented: bool = True) -> None:
        super().__init__()
        self.heads, self.gated, self.augmented = heads, gated, sequence and augmented
        depth = width // heads
        self.norm_self, self.norm_text, self.norm_image, self.norm_forward = (nn.LayerNorm(width) for _ in range(4))
        self.attend_self = Attention(width, heads=heads, dim_head=depth)
        self.attend_text = Attention(width, text_width, heads=heads, dim_head=depth)
        self.attend_image = Attention(width, image_width, heads=heads, dim_head=depth)
        self.feed_forward = FeedForward(width, activation_fn="geglu")
        self.sequence = sequence
        if sequence:
            if self.augmented and gated:
                self.gate = nn.Parameter(torch.zeros(()))
            self.norm_frames = nn.LayerNorm(width)
            self.attend_frames = Attention(width, heads=heads, dim_head=depth)
            nn.init.zeros_(self.attend_frames.to_out[0].weight)
            nn.init.zeros_(self.attend_frames.to_out[0].bias)

    def forward(self, hidden_states: Tensor, attention_mask: None = None, encoder_hidden_states: Tensor | None = None,
                encoder_attention_mask: None = None, timestep: None = None,
                cross_attention_kwargs: dict[str, Any] | None = None, class_labels: None = None) -> Tensor:
        """(B F, N, W) tokens; text (B F, L, D) as `encoder_hidden_states`; the rest in `cross_attention_kwargs`.

        There: `image` (B F, M, D') tokens, `frames` F, and `trajectories`, None or a table as `motion_field_attention` takes
        it. It serves the level whose number of places it has; the others have key frames alone.
        """
        extra = cross_attention_kwargs or {}
        h = hidden_states
        h = h + self._self_attention(self.norm_self(h), extra["frames"], extra.get("trajectories"))
        text = self.attend_text(self.norm_text(h), encoder_hidden_states)
        h = h + text + self.attend_image(self.norm_image(h), extra["image"])
        h = h + self.feed_forward(self.norm_forward(h))
        return h + self._over_frames(self.norm_frames(h), extra["frames"]) if self.sequence else h

    def _self_attention(self, h: Tensor, frames: int, trajectories: Tensor | None) -> Tensor:
        attend = self.attend_self
        query, key, value = (split_heads(project(h), self.heads) for project in (attend.to_q, attend.to_k, attend.to_v))
        if not self.augmented:
            attended = functional.scaled_dot_product_attention(query, key, value)
        else:
            attended = self._augmented(query, key, value, frames, trajectories)
            if self.gated:
                plain = functional.scaled_dot_product_attention(query, key, value)
                attended = plain + self.gate.tanh() * (attended - plain)
        out: Tensor = attend.to_out[0](merge_heads(attended))
        return out

    def _augmented(self, query: Tensor, key: Tensor, value: Tensor, frames: int, trajectories: Tensor | None) -> Tensor:
        """SAM before its output projection: key frames and, at the level the trajectories are for, the motion field."""
        attended = key_frame_attention(*(one.unflatten(0, (-1, frames)) for one in (query, key, value)))
        if trajectories is not None and trajectories.shape[2] == attended.shape[3]:
            attended = motion_field_attention(attended, trajectories)
        return attended.flatten(0, 1)

    def _over_frames(self, h: Tensor, frames: int) -> Tensor:
        """Attention over the frames of one place; no position is told, as in the paper's code: KA and motion give the order."""
        places = h.shape[1]
        columns = h.unflatten(0, (-1, frames)).transpose(1, 2).flatten(0, 1)  # (B N, F, W)
        attended: Tensor = self.attend_frames(columns)
        return attended.unflatten(0, (-1, places)).transpose(1, 2).flatten(0, 1)

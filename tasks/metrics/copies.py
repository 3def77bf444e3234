"""Which real picture a picture may be a copy of: a copy-sensitive space, and the nearest clips in it.

A frame becomes a unit vector of 16 x 16 block means less what is smooth over a block and its neighbours, as in
`tasks.split.thumbnails`: products are correlations, brightness and contrast drop out, gamma, blur and noise change little.
Flips and crops are looked for: every known frame is seen through `BOXES`, down to crops of 0.71 of its sides, and in all four
flips. Crops lie between the boxes, so the likeliest few known clips are looked at again with boxes moved and scaled until
nothing is nearer. Measured on lung ultrasound (`benchmarks/copies.py`, 32 x 32 pixels): of copies cropped to 0.75 this finds 38
of 40, of exact ones and of all others it makes every one, at half a per cent of false alarms.

Two clips are as alike as their two likest frames: a copied still or another window of the same video is a copy too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

SIDE, OVER, LARGEST = 16, 3, 64
"""Blocks along a side; points sampled along a side of each block; larger pictures are averaged down to so many pixels first."""
FLIPS = ((1, 1), (1, -1), (-1, 1), (-1, -1))
"""Signs of a box's half height and half width."""
SMALLEST = 0.6
"""Of the known frame's sides: what a refined crop may shrink to."""
TOP, ROUNDS, STEP = 4, 4, 0.06
"""Known clips looked at again, and how often, with steps of so much that are halved each time."""
_MOVES = torch.cartesian_prod(*[torch.tensor([0.0, -1.0, 1.0])] * 3)


def _boxes() -> Tensor:
    """(V, 4) centre y, centre x, half height, half width in [-1, 1]: the whole frame, then crops at evenly spread places."""
    found = [(0.0, 0.0, 1.0, 1.0)]
    for scale, places in ((0.92, 3), (0.85, 4), (0.78, 5), (0.71, 6)):
        middles = torch.linspace(scale - 1, 1 - scale, places).tolist()
        found += [(y, x, scale, scale) for y in middles for x in middles]
    return torch.tensor(found)


BOXES = _boxes()


@dataclass(frozen=True)
class Question:
    """Which known clips count, (N, M) bool for N queries and M known clips; a query's frames before `first` are left out."""

    allowed: Tensor
    first: int = 0


@dataclass(frozen=True)
class Nearest:
    """The likest known clip of every query: (N,) similarity in -1..1, NaN where none is allowed, and (N,) its row, or -1."""

    similarity: Tensor
    row: Tensor


def pictures(frames: NDArray[np.uint8]) -> Tensor:
    """(N, T, H, W, C) uint8 -> (N, T, h, w) float32, grey, at most `LARGEST` pixels along a side."""
    grey = torch.from_numpy(frames).to(torch.float32).mean(-1)
    size = (min(grey.shape[-2], LARGEST), min(grey.shape[-1], LARGEST))
    return functional.adaptive_avg_pool2d(grey, size)


def details(seen: Tensor) -> Tensor:
    """(N, T, h, w) -> (N, T, D) unit vectors of whole frames; 0 where there is no detail at all."""
    whole = BOXES[:1].expand(seen.shape[0] * seen.shape[1], 1, 4)
    return _unit(_look(seen.flatten(0, 1), whole)).view(*seen.shape[:2], -1)


def views(seen: Tensor) -> Tensor:
    """(N, T, h, w) -> (N, T, 4 V, D): every frame through every box in every flip."""
    boxes = BOXES.expand(seen.shape[0] * seen.shape[1], *BOXES.shape)
    blocks = _look(seen.flatten(0, 1), boxes)  # (N T, V, S, S)
    turned = [blocks.flip([axis for axis, sign in zip((-2, -1), flip, strict=True) if sign < 0]) for flip in FLIPS]
    return _unit(torch.stack(turned, 1)).view(*seen.shape[:2], len(FLIPS) * len(BOXES), -1)


def nearest(queries: Tensor, count: int, read: Callable[[Sequence[int]], Tensor], questions: Sequence[Question],
            block: int = 8) -> list[Nearest]:
    """The likest of `count` known clips, for every question. Beside one number a query and one bit a pair, memory is flat.

    Args:
        queries: (N, T, D) as `details` gives them.
        read: rows of known clips -> their `pictures`, (B, T, h, w). Every second frame is viewed, and its neighbours after it.
        block: known clips in memory at a time.
    """
    kept = [_Candidates.none(len(queries)) for _ in questions]
    for start in range(0, count, block):
        rows = torch.arange(start, min(start + block, count))
        seen = views(read(rows.tolist())[:, ::2])
        value, place = (torch.cat(parts) for parts in zip(*(_likest(part, seen) for part in queries.split(64)), strict=True))
        for number, question in enumerate(questions):
            best, frame = value[:, question.first :].max(1)
            frame = frame + question.first
            best = best.masked_fill(~question.allowed[:, rows], -torch.inf)
            where = place.gather(1, frame[:, None])[:, 0]
            kept[number] = kept[number].joined(best, rows.expand_as(best), frame, where)
    return [_refined(queries, one, read, block) for one in kept]


def _likest(queries: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """(N, T, D) and (B, F, V, D) -> (N, T, B) highest product over frames and views, and its place among the F V."""
    alike = (queries.flatten(0, 1) @ seen.flatten(0, 2).T).view(*queries.shape[:2], len(seen), -1)
    value, place = alike.max(-1)
    return value, place


@dataclass(frozen=True)
class _Candidates:
    """(N, K) likeliest known clips: similarity (-inf where none), row, the query's frame, and number of frame and view."""

    value: Tensor
    row: Tensor
    frame: Tensor
    place: Tensor

    @classmethod
    def none(cls, number: int) -> _Candidates:
        nothing = torch.zeros(number, 0, dtype=torch.long)
        return cls(torch.zeros(number, 0), nothing, nothing, nothing)

    def joined(self, *more: Tensor) -> _Candidates:
        both = [torch.cat(pair, 1) for pair in zip((self.value, self.row, self.frame, self.place), more, strict=True)]
        order = both[0].topk(min(TOP, both[0].shape[1]), 1).indices
        return _Candidates(*(one.gather(1, order) for one in both))


def _refined(queries: Tensor, found: _Candidates, read: Callable[[Sequence[int]], Tensor], block: int) -> Nearest:
    """The candidates again, through boxes that fit better, in the viewed frame and in those beside it."""
    value = found.value.clone()
    for start in range(0, len(queries), block):
        at, candidate = (found.value[start : start + block] > -torch.inf).nonzero(as_tuple=True)
        if not len(at):
            continue
        at = at + start
        rows, own = found.row[at, candidate].unique(return_inverse=True)
        seen = read(rows.tolist())
        place = found.place[at, candidate]
        flip, box = (place % (len(FLIPS) * len(BOXES))) // len(BOXES), place % len(BOXES)
        boxes = BOXES[box] * torch.tensor([[1, 1, *signs] for signs in FLIPS], dtype=torch.float32)[flip]
        time = 2 * (place // (len(FLIPS) * len(BOXES)))
        beside = (time[:, None] + torch.tensor([-1, 0, 1])).clamp(0, seen.shape[1] - 1)  # (P, 3)
        wanted = queries[at, found.frame[at, candidate]]
        near = [_alike(seen[own, one], boxes[:, None], wanted)[:, 0] for one in beside.unbind(1)]
        chosen = beside.gather(1, torch.stack(near, 1).argmax(1, keepdim=True))[:, 0]
        fitted = torch.stack([_fit(seen[own, chosen], boxes, wanted), value[at, candidate]])
        value[at, candidate] = fitted.amax(0).clamp(-1, 1)
    best, which = value.max(1)
    none = best == -torch.inf
    row = found.row.gather(1, which[:, None])[:, 0]
    return Nearest(best.masked_fill(none, torch.nan), row.masked_fill(none, -1))


def _fit(seen: Tensor, boxes: Tensor, wanted: Tensor) -> Tensor:
    """(P,) highest similarity of pictures (P, h, w) to vectors (P, D), boxes (P, 4) being moved and scaled step by step."""
    step, highest = STEP, torch.full((len(boxes),), -1.0)
    for _ in range(ROUNDS):
        moves = torch.cat([step * _MOVES[:, :2], torch.zeros(len(_MOVES), 2)], 1)
        scaled = torch.cat([torch.ones(len(_MOVES), 2), (1 + step * _MOVES[:, 2:]).expand(-1, 2)], 1)
        tried = (boxes[:, None] + moves) * scaled
        sides = tried[..., 2:].abs().clamp(SMALLEST, 1)
        middles = tried[..., :2].clamp(sides - 1, 1 - sides)
        tried = torch.cat([middles, sides * boxes[:, None, 2:].sign()], -1)
        best, which = _alike(seen, tried, wanted).max(1)
        boxes = tried[torch.arange(len(boxes)), which]
        highest, step = torch.maximum(highest, best), step / 2
    return highest


def _alike(seen: Tensor, boxes: Tensor, wanted: Tensor) -> Tensor:
    """(P, h, w), (P, K, 4) and (P, D) -> (P, K)."""
    return (_unit(_look(seen, boxes)) * wanted[:, None]).sum(-1)


def _look(seen: Tensor, boxes: Tensor) -> Tensor:
    """Pictures (P, h, w) through boxes (P, K, 4) -> (P, K, S, S) block means less what is smooth, with mean 0."""
    number, views_each = boxes.shape[:2]
    points = (torch.arange(SIDE * OVER) + 0.5) / (SIDE * OVER) * 2 - 1
    y, x = (boxes[..., axis, None] + boxes[..., axis + 2, None] * points for axis in (0, 1))  # (P, K, S OVER)
    shape = (number, views_each, len(points), len(points))
    grid = torch.stack([x[..., None, :].expand(shape), y[..., :, None].expand(shape)], -1)
    sampled = functional.grid_sample(seen[:, None], grid.flatten(1, 2), padding_mode="border", align_corners=False)
    blocks = functional.avg_pool2d(sampled.view(shape), OVER)
    ramp = torch.arange(-4, 5, dtype=torch.float32)
    bell = torch.softmax(-(ramp**2) / 2, 0)
    padded = functional.pad(blocks.view(-1, 1, SIDE, SIDE), (4, 4, 4, 4), mode="reflect")
    smooth = functional.conv2d(functional.conv2d(padded, bell.view(1, 1, -1, 1)), bell.view(1, 1, 1, -1)).view_as(blocks)
    fine = blocks - smooth
    return fine - fine.mean((-2, -1), keepdim=True)


def _unit(fine: Tensor) -> Tensor:
    """(..., S, S) -> (..., D) of norm 1; 0 where there is less than rounding to whole grey values makes."""
    flat = fine.flatten(-2)
    norm = flat.norm(dim=-1, keepdim=True)
    return torch.where(norm > 1, flat / norm.clamp_min(1), 0)


def threshold_of(similarity: NDArray[np.float64], false_alarms: float) -> float:
    """From which similarity a clip is a near copy: at most this share of these, which are none, lie above.

    Returns:
        The quantile's next higher value, plus the least that can be, so that the value itself is no alarm.
    """
    return float(np.nextafter(np.quantile(similarity, 1 - false_alarms, method="higher"), np.inf))


def left_out_alarms(similarity: NDArray[np.float64], patients: Sequence[str], false_alarms: float) -> float | None:
    """Share of clips at or above a threshold that the other patients' clips gave, averaged over clips; None for one patient.

    What the threshold itself promises for clips it was made from, this says of those of a patient it has not seen.
    """
    names = np.asarray(patients)
    if len(set(patients)) < 2:
        return None
    alarms = [similarity[names == name] >= threshold_of(similarity[names != name], false_alarms) for name in np.unique(names)]
    return float(np.concatenate(alarms).mean())


def distance_ratio(training: NDArray[np.float64], held_out: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance to the nearest training clip over that to the nearest held-out one; below 1 the training clip is nearer.

    Both are distances of unit vectors, sqrt(2 - 2 s); two of 0 have ratio 1.
    """
    near, far = (np.sqrt(np.maximum(2 - 2 * one, 1e-12)) for one in (training, held_out))
    ratio: NDArray[np.float64] = near / far
    return ratio

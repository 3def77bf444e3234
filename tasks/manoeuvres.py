"""What a simulated guidewire does, frame by frame: one manoeuvre a clip, or one after the other, some of them rare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MANOEUVRES = {"advance": "the guidewire advances", "retract": "the guidewire is pulled back",
              "rotate": "the guidewire's tip rotates", "idle": "the guidewire rests"}
"""What the wire may do: the label of a clip, and how its text says so."""
ACTIONS = {**MANOEUVRES, "inject": "contrast agent fills the vessel"}
"""What may happen in a sequence."""
SKEWED = {"idle": 0.42, "advance": 0.26, "retract": 0.2, "rotate": 0.08, "inject": 0.04}
"""How often; as uneven as the actions of SAR-RARP50 (SurV-Gen, Fig. 1)."""
HALF = 0.5
"""Of the wire's range is what one manoeuvre covers."""


@dataclass(frozen=True)
class Script:
    """Of every frame.

    Attributes:
        travel: (F,) how far the wire is out, 0 to 1.
        turn: (F,) how far its tip is turned aside, -1 to 1; None: a rotation of unknown phase over the whole clip.
        dye: (F,) how much contrast agent is in the vessel, 0 to 1.
        labels: what happens, of a sequence.
    """

    travel: NDArray[np.float64]
    turn: NDArray[np.float64] | None
    dye: NDArray[np.float64]
    labels: tuple[str, ...] | None = None


def single(manoeuvre: str, frames: int) -> Script:
    """One of `MANOEUVRES` from the first frame to the last."""
    progress = np.linspace(0, 1, frames)
    travel = {"advance": progress, "retract": 1 - progress}.get(manoeuvre, np.full_like(progress, 0.5))
    return Script(travel, None if manoeuvre == "rotate" else np.zeros(frames), np.zeros(frames))


def sequence(rng: np.random.Generator, frames: int, lasts: int, frequencies: Mapping[str, float]) -> Script:
    """Actions of `lasts` frames each, drawn by their frequencies; the wire advances only while it can, and likewise back."""
    travel, turn, dye, labels = np.empty(frames), np.zeros(frames), np.zeros(frames), []
    place = 0.5
    for start in range(0, frames, lasts):
        possible = {name: share for name, share in sorted(frequencies.items())
                    if not (name == "advance" and place > 1 - HALF) and not (name == "retract" and place < HALF)}
        shares = np.array(list(possible.values()))
        action = list(possible)[int(rng.choice(len(possible), p=shares / shares.sum()))]
        part = slice(start, min(start + lasts, frames))
        done = np.arange(1, part.stop - start + 1) / lasts
        step = {"advance": HALF, "retract": -HALF}.get(action, 0.0)
        travel[part] = place + step * done
        if action == "rotate":
            turn[part] = np.sin(2 * np.pi * done)
        elif action == "inject":
            dye[part] = np.sin(np.pi * done)
        place += step * done[-1]
        labels += [action] * (part.stop - start)
    return Script(travel, turn, dye, tuple(labels))

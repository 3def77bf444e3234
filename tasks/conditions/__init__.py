"""Condition banks: what generators are asked for, made from the training split, or from outside images; one module a kind.

A module offers `Params` and `bank(params, seed, prepared) -> Bank`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from tasks.records import ConditionRecord, QuarantineRecord
from tasks.store import ArraySpec


@dataclass(frozen=True)
class Bank:
    """A bank not yet written.

    Attributes:
        count: conditions.
        arrays: what one condition holds: "masks" (T, H, W), and "frames" (T, H, W, C) where it has a reference clip.
        make: numbers of conditions -> their rows and arrays; a condition is a function of its number alone.
        content: ids of all that is read beside the prepared data set; part of the bank's fingerprint.
        refused: inputs that could not be used, and why.
    """

    count: int
    arrays: dict[str, ArraySpec]
    make: Callable[[Sequence[int]], tuple[list[ConditionRecord], dict[str, NDArray[Any]]]]
    content: tuple[str, ...] = ()
    refused: tuple[QuarantineRecord, ...] = ()

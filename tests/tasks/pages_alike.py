"""Whether a committed page of numbers is what code gives now: the same words, numbers within a tolerance."""

from __future__ import annotations

import math
import re

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def difference(written: str, made: str, share: float, least: float) -> str | None:
    """The first line where two pages differ, in words or by more than `share` of a number and more than `least`; None: none."""
    before, now = written.splitlines(), made.splitlines()
    for old, new in zip(before, now, strict=False):
        pairs = zip(NUMBER.findall(old), NUMBER.findall(new), strict=False)
        close = all(math.isclose(float(a), float(b), rel_tol=share, abs_tol=least) for a, b in pairs)
        if NUMBER.sub("#", old) != NUMBER.sub("#", new) or not close:
            return f"written: {old}\nmade now: {new}"
    return None if len(before) == len(now) else f"written: {len(before)} lines\nmade now: {len(now)}"

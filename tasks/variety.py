"""How much clips of one still differ from each other, in the eyes of every network that looks at the set."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from models.lpips import Lpips
from tasks.features import load_extractor
from tasks.metrics.diversity import features_apart
from tasks.params import ControlParams

_SQUARED = "mean squared difference of a feature between two clips of one still (DIV in these features; not times 1000)"


class Variety:
    """DIV in the features of every extractor of `control.features`, and LPIPS and DIV by its backbone, where there is one.

    Frames are taken after the first, which is the still itself, except by networks that look at whole clips.

    Attributes:
        what: name of a measure -> in words.

    Raises:
        ValueError: if a network is not there.
    """

    def __init__(self, params: ControlParams, critics: Path, lpips: Lpips | None) -> None:
        self._extractors = [load_extractor(entry, critics) for entry in params.extractors]
        self._lpips = lpips
        self.what = {one.look.name: _SQUARED for one in self._extractors}
        if lpips:
            self._names = f"LPIPS ({lpips.word})", f"{lpips.word} (LPIPS's five layers; own size)"
            self.what |= {self._names[0]: "mean LPIPS between two clips of one still, frame by frame", self._names[1]: _SQUARED}

    def __call__(self, draws: Tensor) -> dict[str, Tensor]:
        """(B, S, T, C, H, W) in [-1, 1], S >= 2 draws of each still, T >= 2 -> (B,) of every measure."""
        found = {}
        for one in self._extractors:
            seen = one(draws.flatten(0, 1)).unflatten(0, draws.shape[:2])
            found[one.look.name] = features_apart(seen if seen.ndim == 3 else seen[:, :, 1:])
        if self._lpips:
            places = draws[:, :, 1:].transpose(1, 2)
            for name, values in zip(self._names, self._lpips.apart(places.flatten(0, 1)), strict=True):
                found[name] = values.unflatten(0, places.shape[:2]).mean(1)
        return found

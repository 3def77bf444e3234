"""How well the audit finds what it is for: exact and altered copies of training clips, at the false alarms it allows.

    python benchmarks/copies.py data --out docs/results/copies_lung.json

Reads the prepared clips of a finished run. Training clips are copied and altered; held-out patients' clips are what nobody
copied.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from statsmodels.stats.proportion import proportion_confint
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))

from tasks.audit import FALSE_ALARMS
from tasks.metrics.copies import Question, details, left_out_alarms, nearest, pictures, threshold_of
from tasks.params import load_params
from tasks.records import ClipRecord
from tasks.store import ClipStore
from tasks.tables import read_table

Clip = NDArray[np.uint8]
Alter = Callable[[Clip, np.random.Generator], Clip]


def _crop(share: float) -> Alter:
    """A window of so much of both sides, anywhere, enlarged to the whole frame."""

    def crop(clip: Clip, rng: np.random.Generator) -> Clip:
        height, width = clip.shape[1:3]
        high, wide = round(share * height), round(share * width)
        top, left = rng.integers(height - high + 1), rng.integers(width - wide + 1)
        part = torch.from_numpy(clip[:, top : top + high, left : left + wide].astype(np.float32)).movedim(-1, 1)
        return _grey(functional.interpolate(part, (height, width), mode="bilinear").movedim(1, -1).numpy())

    return crop


def _grey(values: NDArray[Any]) -> Clip:
    return np.asarray(values).clip(0, 255).round().astype(np.uint8)


def _gamma(power: float) -> Alter:
    return lambda clip, _: _grey(255 * (clip / 255.0) ** power)


ALTERED: dict[str, Alter] = {
    "exact": lambda clip, _: clip,
    "flipped left to right": lambda clip, _: clip[:, :, ::-1],
    "flipped upside down": lambda clip, _: clip[:, ::-1],
    "cropped to 0.9": _crop(0.9),
    "cropped to 0.75": _crop(0.75),
    "darker, less contrast": lambda clip, _: _grey(0.6 * clip + 20),
    "brighter, clipped": lambda clip, _: _grey(1.3 * clip + 20),
    "gamma 0.7": _gamma(0.7),
    "gamma 1.5": _gamma(1.5),
    "noise of 8 grey values": lambda clip, rng: _grey(clip + rng.normal(0, 8, clip.shape)),
    "blurred": lambda clip, _: _grey(gaussian_filter(clip.astype(np.float32), (0, 0.7, 0.7, 0))),
    "one frame, standing still": lambda clip, _: np.repeat(clip[len(clip) // 2][None], len(clip), 0),
    "cropped, flipped, gamma, noise": lambda clip, rng: _grey(
        0.9 * 255 * (_crop(0.85)(clip, rng)[:, :, ::-1] / 255.0) ** 0.8 + rng.normal(0, 4, clip.shape)),
}


def recall(training: Clip, held_out: Clip, patients: list[str], copied: list[int],
           false_alarms: float = FALSE_ALARMS) -> dict[str, Any]:
    """{"threshold", "false_alarms", "left_out", "held_out_clips", "found": {kind: {found, of, share, low, high}}}.

    Args:
        training, held_out: (N, T, H, W, C).
        patients: of the held-out clips.
        copied: training clips that are copied and altered in every way.
    """
    rng = np.random.default_rng(0)
    altered = {kind: np.stack([alter(training[row], rng) for row in copied]) for kind, alter in ALTERED.items()}
    queries = torch.cat([details(pictures(clips)) for clips in (held_out, *altered.values())])
    everyone = Question(torch.ones(len(queries), len(training), dtype=torch.bool))
    (found,) = nearest(queries, len(training), lambda rows: pictures(training[list(rows)]), [everyone])
    real, *copies = np.split(found.similarity.double().numpy(), np.cumsum([len(held_out)] + [len(copied)] * (len(altered) - 1)))
    threshold = threshold_of(real, false_alarms)
    table = {}
    for kind, similarity in zip(altered, copies, strict=True):
        hits = int((similarity >= threshold).sum())
        low, high = proportion_confint(hits, len(copied), method="wilson")
        table[kind] = {"found": hits, "of": len(copied), "share": hits / len(copied), "low": float(low), "high": float(high)}
    return {"threshold": threshold, "false_alarms": float((real >= threshold).mean()), "held_out_clips": len(held_out),
            "held_out_patients": len(set(patients)), "left_out": left_out_alarms(real, patients, false_alarms), "found": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--copies", type=int, default=40, help="training clips that are copied")
    wanted = parser.parse_args()
    params = load_params(wanted.params)
    records = read_table(wanted.data / "prepared" / "manifest.parquet", ClipRecord)
    store = ClipStore.open(wanted.data / "prepared" / "clips.zarr")
    train, test = ([row for row, record in enumerate(records) if record.split == split] for split in ("train", "test"))
    copied = np.random.default_rng(0).permutation(len(train))[: wanted.copies].tolist()
    found = recall(store.load(train)["frames"], store.load(test)["frames"], [records[row].patient for row in test], copied,
                   FALSE_ALARMS)
    wanted.out.write_text(json.dumps({"dataset": params.dataset.name, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()

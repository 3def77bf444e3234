"""Are synthetic clips like each other (DS), and like the training clips (OS)? Beside both, what other patients' real clips are.

High numbers tell a set that repeats itself or its training clips, picture for picture in place. Low ones are no merit: noise is
like nothing. Copies that were flipped, cropped or moved are not seen here: that is the audit's business (`tasks.audit`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from models.clip import spread
from tasks.features import MEASURED, real_clips
from tasks.fingerprint import fingerprint
from tasks.kept import kept
from tasks.metrics.similarity import likest, likest_other, similarity_name
from tasks.records import ProvenanceRecord
from tasks.statistics import few, pooled_mean
from tasks.store import ClipStore
from tasks.tables import read_table, write_json
from tasks.train import training_clips

WHAT = {
    "DS": "highest similarity of a synthetic clip to another one of its set, whatever its condition: how much the set repeats "
          "itself",
    "OS": "highest similarity of a synthetic clip to any training clip, in place and frame for frame; not a test for copies, "
          "which is the audit",
}
NO_MERIT = "; noise lowers it, so less than real clips have is no merit"


def likeness(prepared: Path, clips: Path, cache: Path, out: Path) -> dict[str, dict[str, Any]]:
    """Write `likeness.json` of a set: {value, sd, low, high, real, clips, frames, similarity, direction, span, what, flags} of
    "DS" and "OS".

    `value` and `sd` are over at most `MEASURED` clips, spread over the set, with the 95 % bootstrap interval of the mean over
    conditions; `real` is the same of held-out clips, as many if there are, some of which may be of one recording. None where
    there is no such number; `flags` say what is doubtful.
    """
    made = ClipStore.open(clips / "clips.zarr")
    training, trained_on = training_clips(prepared)

    def measured(store: ClipStore, rows: Sequence[int]) -> dict[str, Tensor]:
        """(N,) of both; {} of fewer than two clips. Held-out clips are measured once for all sets of a size."""
        if len(rows) < 2:
            return {}
        chosen, digests = store.subset(rows), store.digests
        mark = fingerprint("likeness", trained_on["digest"], [digests[row] for row in rows])
        return kept(cache, mark, lambda: {"DS": likest_other(chosen), "OS": likest(chosen, training)})

    rows = spread(len(made), MEASURED)
    store, others = real_clips(prepared, "test", len(rows))
    of_set, of_real = measured(made, rows), measured(store, others)
    provenance = read_table(clips / "provenance.parquet", ProvenanceRecord)
    conditions = [provenance[row].condition_id for row in rows]
    frames, height, width, _ = made.arrays["frames"].shape
    basis = {"clips": {"training": len(training), "synthetic": len(rows), "held-out": len(others)}, "frames": frames,
             "similarity": similarity_name(height, width), "direction": "lower is better", "span": [-1, 1],
             "flags": _doubts(len(made), len(others), len(set(conditions)))}
    found = {}
    for name, what in WHAT.items():
        mean = pooled_mean(of_set[name].numpy(), conditions) if of_set else None
        ends = {"low": mean.low, "high": mean.high} if mean and mean.n > 1 else {"low": None, "high": None}
        found[name] = {"value": mean.mean if mean else None, "sd": float(of_set[name].std()) if of_set else None, **ends,
                       "real": float(of_real[name].mean()) if of_real else None, **basis, "what": what + NO_MERIT}
    write_json(out / "likeness.json", found)
    return found


def _doubts(synthetic: int, held_out: int, conditions: int) -> list[str]:
    if synthetic < 2:
        return [f"refused: {synthetic} synthetic clip, needs 2"]
    looked_at = min(synthetic, MEASURED)
    part = [f"{looked_at} of {synthetic} synthetic clips were looked at"] if looked_at < synthetic else []
    fewer = [f"{held_out} held-out clips stand beside {looked_at} synthetic ones"] if held_out < looked_at else []
    return few(conditions, "conditions") + part + fewer

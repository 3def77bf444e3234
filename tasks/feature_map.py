"""Real and synthetic clips as points of a plane, in which those lie together that are alike to a frozen network.

The map is t-SNE's (van der Maaten and Hinton, JMLR 2008), to be looked at and not to be measured: it keeps who is whose
neighbour, but neither how far apart groups are nor how large or dense they are. Numbers are in `tasks.distribution`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from models.clip import spread
from tasks.features import features, load_extractor, real_clips
from tasks.params import ControlParams
from tasks.records import MapRecord, Origin
from tasks.store import ClipStore
from tasks.tables import write_json, write_table

PLACED: dict[Origin, int] = {"training": 200, "held-out": 200, "synthetic": 600}
"""Clips of each origin that are placed at most, spread over all: t-SNE of a thousand takes seconds, however large the sets."""

PERPLEXITY = 30
"""About how many neighbours a clip looks at; fewer where there are not three times as many."""


def feature_map(params: ControlParams, critics: Path, prepared: Path, clips: Path, cache: Path, out: Path) -> None:
    """Write `map.parquet` of a set, a `MapRecord` a clip, and `map.json`, {extractor, perplexity}.

    Places are those of the first extractor's features, averaged over frames. Without an extractor there is neither file.
    """
    for name in ("map.parquet", "map.json"):
        (out / name).unlink(missing_ok=True)  # of an extractor that the parameters had before
    if not params.extractors:
        return
    extractor = load_extractor(params.extractors[0], critics)
    made = ClipStore.open(clips / "clips.zarr")
    # the same rows as in `tasks.distribution`, so that the cache has them
    parts: dict[Origin, tuple[ClipStore, list[int]]] = {
        "training": real_clips(prepared, "train"), "held-out": real_clips(prepared, "test", len(made)),
        "synthetic": (made, list(range(len(made))))}
    placed, seen = [], []
    for origin, (store, rows) in parts.items():
        taken = spread(len(rows), PLACED[origin]) if rows else []
        placed += [(store.ids[rows[at]], origin) for at in taken]
        seen += [features(extractor, store, rows, cache).mean(1)[taken].numpy()] if taken else []
    number = perplexity(len(placed))
    places = plane(np.concatenate(seen), number)
    found = [MapRecord(clip, origin, *place) for (clip, origin), place in zip(placed, places.tolist(), strict=True)]
    write_table(out / "map.parquet", found, MapRecord)
    write_json(out / "map.json", {"extractor": extractor.look.name, "perplexity": number})


def perplexity(clips: int) -> float:
    """`PERPLEXITY`, or a third of the other clips where they are few; at least 1."""
    return max(1.0, min(float(PERPLEXITY), (clips - 1) / 3))


def plane(seen: NDArray[np.float32], number: float) -> NDArray[np.float64]:
    """(N, D) features -> (N, 2) by t-SNE of this perplexity; the same features give the same places.

    It begins at the first two principal components, so that what is far apart on the whole begins so. Clips that are all the
    same, or fewer than three, have no map: they lie at 0.
    """
    if len(seen) < 3 or not np.ptp(seen, axis=0).any():
        return np.zeros((len(seen), 2))
    places: NDArray[np.float64] = TSNE(perplexity=number, init="pca", random_state=0).fit_transform(seen).astype(np.float64)
    return places

"""Raw files -> clip store, manifest, quarantine and summary.

Two passes, so that memory does not grow with the pixels: the first decodes every source and keeps ids and thumbnails, from
which patients and near-duplicate groups are dealt to splits; the second decodes again and writes the shards that are missing,
the masks of training patients who are to count as not annotated replaced by UNKNOWN.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from models import plugin
from models.clip import UNKNOWN
from tasks.decoder import decoded
from tasks.derived import volume_labels
from tasks.fingerprint import fingerprint
from tasks.geometry import Geometry, of_clip, typical
from tasks.params import DatasetParams
from tasks.readers import QuarantinedError, Source, Volume
from tasks.records import ClipRecord, QuarantineRecord
from tasks.split import annotated_patients, check_no_leak, groups_of, split_groups, thumbnails
from tasks.store import ArraySpec, ClipStore, clip_digest
from tasks.tables import read_json, write_json, write_table
from tasks.windows import check_volume, cut, window_starts

log = logging.getLogger(__name__)
Clip = tuple[int, NDArray[np.uint8], NDArray[np.uint8]]
"""First frame (or row), frames (T, H, W, C), masks (T, H, W)."""


@dataclass(frozen=True)
class _Found:
    """What the first pass keeps of one clip."""

    source: int
    first_frame: int
    clip_id: str
    annotated: bool
    views: NDArray[np.float16]
    mask_volume: float | None
    label: str | None
    geometry: Geometry


def prepare(dataset: DatasetParams, seed: int, out: Path) -> dict[str, Any]:
    """Write `out`/clips.zarr, manifest.parquet, quarantine.parquet and, last, summary.json; returns the summary.

    Done again with the same parameters, files and code it returns at once; killed, it goes on with the missing shards.

    Raises:
        ValueError: if the location or its table is missing, nothing is usable, the split is impossible or would leak, fewer
            patients have masks than are to be annotated, or a file changes while it is read.
    """
    location = Path(dataset.location)
    if not location.exists():
        raise ValueError(f"dataset.location: {location} does not exist; give the folder that holds the data")
    options = plugin.params("tasks.readers", {"kind": dataset.reader, **dataset.options})
    if not (sources := decoded(dataset.reader, location, options, dataset.decoder)):
        raise ValueError(f"dataset.location: {location} holds nothing that reader {dataset.reader} can read")
    unread = [_unread(source, dataset) for source in sources]
    digests = [source.found_by(closed(source, dataset) is None) for source in sources]
    listed = [[one.name, one.patient, one.label, one.text, one.site, digest]
              for one, digest in zip(sources, digests, strict=True)]
    mark = fingerprint("prepare", dataset.model_dump(mode="json", exclude={"location"}), seed, listed)
    if (summary := _finished(out, mark)) is not None:
        return summary
    (out / "summary.json").unlink(missing_ok=True)

    found, refused, shape = _survey(sources, digests, unread, dataset)
    write_table(out / "quarantine.parquet", refused, QuarantineRecord)
    if not found:
        first = refused[0]
        raise ValueError(f"dataset: none of {len(sources)} files is usable, e.g. {first.file[:16]} {first.reason}; all reasons "
                         f"are in {out / 'quarantine.parquet'}, `cinefab source {first.file[:16]}` finds the file")
    records, unmasked = _split(found, sources, digests, dataset, seed)
    store = ClipStore.create(out / "clips.zarr", {"frames": ArraySpec(shape, "uint8"), "masks": ArraySpec(shape[:3], "uint8")},
                             dataset.shard_clips, mark)
    shares = _write(store, sources, found, records, unmasked, dataset)
    write_table(out / "manifest.parquet", records, ClipRecord)
    summary = {"fingerprint": mark, "store": ClipStore.open(store.path).digest,
               **_summary(dataset, sources, found, records, refused, shape, shares)}
    write_json(out / "summary.json", summary)
    return summary


def _finished(out: Path, mark: str) -> dict[str, Any] | None:
    """The summary of a finished run with this fingerprint whose files are all there and whose store is whole."""
    if not all((out / name).exists() for name in ("summary.json", "manifest.parquet", "quarantine.parquet")):
        return None
    try:
        summary: dict[str, Any] = read_json(out / "summary.json")
        store = ClipStore.open(out / "clips.zarr")
        same = summary["fingerprint"] == mark and store.digest == summary["store"]
    except (ValueError, KeyError, TypeError):
        return None
    return summary if same and store.is_whole() else None


def closed(source: Source, dataset: DatasetParams) -> str | None:
    """Why a source is not even opened; None if it is."""
    if (reason := source.outside(Path(dataset.location))) is not None:
        return reason
    size = source.megabytes()
    return f"is larger than dataset.max_file_mb: {size:.0f} MB" if size > dataset.max_file_mb else None


def _unread(source: Source, dataset: DatasetParams) -> str | None:
    """Why a source is not decoded; None if it is to be."""
    if (reason := closed(source, dataset)) is not None:
        return reason
    if not source.patient:
        return "has no patient in dataset.options.table or by dataset.options.patient_pattern"
    return "is empty" if any(file.stat().st_size == 0 for file in source.files) else None


def _clips(source: Source, dataset: DatasetParams,
           refuse: Callable[[str], None]) -> Iterator[tuple[Clip, Volume, str | None]]:
    """The clips of one source, with the whole volume and the class of each; `refuse` is told the reason of all that
    gives none."""
    try:
        volume = source.read()
        check_volume(volume, len(dataset.classes))
        starts = window_starts(len(volume.frames), dataset.clip_frames, dataset.stride, dataset.clips_per_source,
                               dataset.hop)
    except QuarantinedError as error:
        refuse(str(error))
        return
    for start in starts:
        try:
            frames, masks = cut(volume, start, dataset)
        except QuarantinedError as error:
            refuse(str(error))
            continue
        label = source.label
        if volume.labels is not None:
            middle = start + (dataset.clip_frames // 2) * dataset.stride
            label = volume.labels[min(middle, len(volume.labels) - 1)] or None
        yield (start, frames, masks), volume, label


def _clip_id(frames: NDArray[np.uint8], masks: NDArray[np.uint8]) -> str:
    return clip_digest({"frames": frames, "masks": masks})


def _survey(sources: list[Source], digests: list[str], unread: list[str | None],
            dataset: DatasetParams) -> tuple[list[_Found], list[QuarantineRecord], tuple[int, ...]]:
    """First pass: what every clip is, what was refused and why, and the one shape (T, H, W, C)."""
    found: list[_Found] = []
    refused: list[QuarantineRecord] = []
    owner: dict[str, str] = {}
    shape: tuple[int, ...] = ()
    bar = tqdm(sources, desc="survey", unit="file", mininterval=2)
    for number, source in enumerate(bar):
        if (reason := unread[number]) is not None:
            refused.append(QuarantineRecord(digests[number], reason))
            continue
        reasons: list[str] = []
        for (start, frames, masks), volume, label in _clips(source, dataset, reasons.append):
            shape = shape or frames.shape
            if frames.shape != shape:
                reasons.append(f"has {frames.shape[-1]} channels, the files before it have {shape[-1]}")
                break
            clip_id = _clip_id(frames, masks)
            if clip_id in owner:
                reasons.append(f"repeats the pixels of {owner[clip_id][:16]}")
                continue
            owner[clip_id] = digests[number]
            annotated = bool((masks != UNKNOWN).reshape(len(masks), -1).all(1).any())
            found.append(_Found(number, start, clip_id, annotated, thumbnails(frames), volume.mask_volume, label,
                                of_clip(volume, dataset)))
        if reasons:
            more = f"; and so on, {len(reasons)} clips in all" if len(reasons) > 1 else ""
            refused.append(QuarantineRecord(digests[number], reasons[0] + more))
        bar.set_postfix(clips=len(found), refused=len(refused), refresh=False)
    for record in refused:
        log.warning("quarantined: %s %s", record.file[:16], record.reason)
    return found, refused, shape


def _split(found: list[_Found], sources: list[Source], digests: list[str], dataset: DatasetParams,
           seed: int) -> tuple[list[ClipRecord], list[bool]]:
    """The manifest, and for every clip whether its masks are to be replaced by UNKNOWN."""
    patients = [sources[clip.source].patient for clip in found]
    groups = groups_of(patients, np.stack([clip.views for clip in found]), dataset.near_duplicate)
    labels = [clip.label for clip in found]
    sites = [sources[clip.source].site for clip in found]
    if strange := set(dataset.out_domain) - set(sites):
        raise ValueError(f"dataset.out_domain: {', '.join(sorted(strange))} is no site of a clip; there are "
                         f"{', '.join(sorted(set(sites) - {''})) or 'none: give dataset.options.site_column'}")
    splits = split_groups(groups, patients, labels, dataset.split, seed)
    trained = [splits[group] == "train" for group in groups]
    if dataset.label_from == "mask_volume":
        labels = [*volume_labels([clip.mask_volume for clip in found], patients, trained)]
    foreign = [train and site in dataset.out_domain for train, site in zip(trained, sites, strict=True)]
    labels = [None if hidden else label for hidden, label in zip(foreign, labels, strict=True)]
    candidates = [patient for patient, clip, train in zip(patients, found, trained, strict=True) if train and clip.annotated]
    keep = annotated_patients(candidates, dataset.annotated_patients, seed)
    unmasked = [train and patient not in keep for train, patient in zip(trained, patients, strict=True)]
    records = [
        ClipRecord(clip.clip_id, patient, digests[clip.source], clip.first_frame, dataset.stride, label,
                   _text(sources[clip.source], clip.label), clip.annotated and not hidden, group, splits[group], site)
        for clip, patient, label, group, hidden, site in zip(found, patients, labels, groups, unmasked, sites, strict=True)
    ]
    check_no_leak(records)
    return records, unmasked


def _text(source: Source, label: str | None) -> str:
    return source.texts.get(label or "", source.text) if source.texts else source.text


def _write(store: ClipStore, sources: list[Source], found: list[_Found], records: list[ClipRecord], unmasked: list[bool],
           dataset: DatasetParams) -> list[int]:
    """Second pass: the missing shards, one in memory at a time; then the pixels of every label over all annotated frames."""
    rows = {(clip.source, clip.first_frame): row for row, clip in enumerate(found)}
    done = store.done()
    missing = {row for row in range(len(found)) if row // dataset.shard_clips not in done}
    bar = tqdm(sorted({found[row].source for row in missing}), desc="clips", unit="file", mininterval=2)
    ids: list[str] = []
    frames: list[NDArray[np.uint8]] = []
    masks: list[NDArray[np.uint8]] = []
    for row, pixels, labels in _rows(bar, sources, rows, missing, records, dataset):
        if _clip_id(pixels, labels) != records[row].clip_id:
            raise ValueError(f"{records[row].source[:16]}: changed while it was read; run prepare again")
        ids.append(records[row].clip_id)
        frames.append(pixels)
        masks.append(np.full_like(labels, UNKNOWN) if unmasked[row] else labels)
        if (row + 1) % dataset.shard_clips == 0 or row + 1 == len(found):
            store.write_shard(row // dataset.shard_clips, ids, {"frames": np.stack(frames), "masks": np.stack(masks)})
            ids, frames, masks = [], [], []
    store.finish(len(found))
    return _label_pixels(store, len(dataset.classes))


def _rows(numbers: Iterable[int], sources: list[Source], rows: dict[tuple[int, int], int], wanted: set[int],
          records: list[ClipRecord], dataset: DatasetParams) -> Iterator[Clip]:
    """Row, frames and masks of the wanted clips, in row order."""
    owed: dict[int, set[int]] = {}
    for (source, _), place in rows.items():
        if place in wanted:
            owed.setdefault(source, set()).add(place)
    for number in numbers:
        left, reasons = owed[number], ["gives none"]
        for (start, frames, masks), _, _ in _clips(sources[number], dataset, reasons.append):
            row = rows.get((number, start))
            if row in wanted and row is not None:
                left.discard(row)
                yield row, frames, masks
        if left:
            raise ValueError(f"{records[min(left)].source[:16]}: gave {len(left)} clips the first time, but now it "
                             f"{reasons[-1]}; run prepare again")


def _label_pixels(store: ClipStore, classes: int) -> list[int]:
    counts = np.zeros(256, np.int64)
    for first in range(0, len(store), store.shard_clips):
        rows = range(first, min(first + store.shard_clips, len(store)))
        counts += np.bincount(store.conditions(rows).masks.numpy().ravel(), minlength=256)
    return [int(count) for count in counts[: classes + 1]]


def _summary(dataset: DatasetParams, sources: list[Source], found: list[_Found], records: list[ClipRecord],
             refused: list[QuarantineRecord], shape: tuple[int, ...], pixels: list[int]) -> dict[str, Any]:
    """Counts through the stage, by split where that says something."""
    splits: dict[str, dict[str, int]] = {}
    for split in ("train", "val", "test"):
        part = [record for record in records if record.split == split]
        marked = [record for record in part if record.annotated]
        splits[split] = {
            "clips": len(part),
            "patients": len({record.patient for record in part}),
            "annotated_clips": len(marked),
            "annotated_patients": len({record.patient for record in marked}),
        }
    known, names = max(1, sum(pixels)), ["background", *dataset.classes]
    return {
        "dataset": dataset.name,
        "simulated": dataset.simulated,
        "classes": list(dataset.classes),
        "sources": len(sources),
        "sources_used": len({clip.source for clip in found}),
        "quarantined": len(refused),
        "quarantine": dict(Counter(re.split("[:;]", record.reason)[0] for record in refused)),
        "clips": len(records),
        "patients": len({record.patient for record in records}),
        "groups": len({record.group for record in records}),
        "splits": splits,
        "sites": dict(Counter(record.site for record in records if record.site)),
        "labels": dict(Counter(record.label for record in records if record.label is not None)),
        "label_from": dataset.label_from or "the data set's own table",
        "shape": dict(zip(("frames", "height", "width", "channels"), shape, strict=True)),
        "geometry": typical([clip.geometry for clip, record in zip(found, records, strict=True) if record.split == "train"]),
        "scaling": {"window": list(dataset.window), "fit": dataset.fit},
        "mask_pixel_shares": {name: count / known for name, count in zip(names, pixels, strict=True)},
    }

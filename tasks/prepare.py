"""Raw files -> clips of one shape, a manifest with patient-level splits, and a quarantine with reasons.

Two passes over the sources, so that memory does not grow with the number of clips: the first decides what is usable, which
clips there are and how patients split; the second writes the store shard by shard.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from models import plugin
from models.clip import UNKNOWN
from tasks.fingerprint import fingerprint
from tasks.params import DatasetParams
from tasks.readers import Quarantined, Source
from tasks.records import ClipRecord, QuarantineRecord
from tasks.split import annotated_patients, check_no_leak, groups_of, split_groups, thumbnail
from tasks.store import ArraySpec, ClipStore, clip_digest
from tasks.tables import read_json, write_json, write_table
from tasks.windows import clips_of

logger = logging.getLogger(__name__)
Clip = tuple[int, NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True)
class _Found:
    """One usable clip: its record (split still open), its thumbnail and how many pixels each class has."""

    record: ClipRecord
    source: Source
    place: int
    thumbnail: NDArray[np.float32]
    pixels: Counter[int]


def prepare(dataset: DatasetParams, seed: int, out: Path) -> dict[str, Any]:
    """Write clips.zarr, manifest.parquet, quarantine.parquet and summary.json; returns the summary.

    A finished run with the same parameters, files and code returns at once; a killed one keeps its shards.

    Raises:
        ValueError: if the location does not exist, nothing usable is in it, or the split is impossible.
    """
    if not dataset.location.exists():
        raise ValueError(f"dataset.location: {dataset.location} does not exist; give a folder, or fetch the data (README, 'Data')")
    module = plugin.load("tasks.readers", dataset.reader)
    sources: list[Source] = module.sources(dataset.location, module.Params.model_validate(dataset.options))
    digests = {source.name: source.digest() for source in sources}
    mark = fingerprint("prepare", dataset.model_dump(mode="json", exclude={"location"}), seed, sorted(digests.items()))
    summary_path = out / "summary.json"
    if summary_path.exists() and read_json(summary_path)["fingerprint"] == mark:
        summary: dict[str, Any] = read_json(summary_path)
        return summary
    found, quarantine = _look(sources, digests, dataset)
    if not found:
        reasons = Counter(one.reason for one in quarantine).most_common(1)
        because = f"{len(quarantine)} quarantined, most often because: {reasons[0][0]}" if reasons else f"no file for reader {dataset.reader} in it"
        raise ValueError(f"dataset.location: nothing usable in {dataset.location} ({because})")
    found = _split(found, dataset, seed)
    check_no_leak([one.record for one in found])
    _write(found, dataset, mark, out / "clips.zarr")
    write_table(out / "manifest.parquet", [one.record for one in found], ClipRecord)
    write_table(out / "quarantine.parquet", quarantine, QuarantineRecord)
    summary = {**_summary(sources, found, quarantine, dataset), "fingerprint": mark}
    write_json(summary_path, summary)
    logger.info("%d clips of %d patients from %d of %d sources", len(found), summary["patients"], summary["sources_used"], len(sources))
    return summary


def _look(sources: Sequence[Source], digests: dict[str, str], dataset: DatasetParams) -> tuple[list[_Found], list[QuarantineRecord]]:
    """The usable clips by patient, source and time, and what was refused."""
    found: list[_Found] = []
    quarantine: list[QuarantineRecord] = []
    seen: dict[str, str] = {}
    for source in tqdm(sources, desc="prepare: read", mininterval=2):
        try:
            clips = _decode(source, dataset)
        except Quarantined as error:
            quarantine.append(QuarantineRecord(source.name, str(error)))
            continue
        for place, (start, frames, masks) in enumerate(clips):
            clip_id = clip_digest({"frames": frames, "masks": masks})
            if clip_id in seen:
                quarantine.append(QuarantineRecord(source.name, f"frames {start} and following are the same pixels as a clip of {seen[clip_id]}"))
                continue
            seen[clip_id] = source.name
            annotated = bool((masks != UNKNOWN).reshape(len(masks), -1).all(1).any())
            record = ClipRecord(clip_id, source.patient, digests[source.name], start, dataset.stride, source.label, annotated, -1, "train")
            pixels = Counter(dict(zip(*(part.tolist() for part in np.unique(masks, return_counts=True)), strict=True)))
            found.append(_Found(record, source, place, thumbnail(frames), pixels))
    found.sort(key=lambda one: (one.record.patient, one.source.name, one.record.first_frame))
    return found, quarantine


def _decode(source: Source, dataset: DatasetParams) -> list[Clip]:
    if not source.patient:
        raise Quarantined("no patient: the table does not list it or the pattern does not match its name")
    if any(file.stat().st_size == 0 for file in source.files):
        raise Quarantined("is empty")
    if (size := source.megabytes()) > dataset.max_file_mb:
        raise Quarantined(f"has {size:.0f} MB, more than max_file_mb = {dataset.max_file_mb:g}")
    return clips_of(source.read(), dataset)


def _split(found: list[_Found], dataset: DatasetParams, seed: int) -> list[_Found]:
    """The same clips with group, split and, for training patients beyond `annotated_patients`, annotated taken away."""
    patients = [one.record.patient for one in found]
    groups = groups_of(patients, np.stack([one.thumbnail for one in found]), dataset.near_duplicate)
    # the same file under two names and patients is one group whatever its pixels say
    splits = split_groups(groups, patients, dataset.split, seed)
    records = [replace(one.record, group=group, split=splits[group]) for one, group in zip(found, groups, strict=True)]
    candidates = [record.patient for record in records if record.split == "train" and record.annotated]
    keep = annotated_patients(candidates, dataset.annotated_patients if candidates else None, seed)
    return [
        replace(one, record=replace(record, annotated=record.annotated and (record.split != "train" or record.patient in keep)))
        for one, record in zip(found, records, strict=True)
    ]


def _write(found: list[_Found], dataset: DatasetParams, mark: str, path: Path) -> None:
    @lru_cache(maxsize=4)
    def decoded(name: str) -> list[Clip]:
        return _decode(by_name[name], dataset)

    by_name = {one.source.name: one.source for one in found}
    _, frames, masks = decoded(found[0].source.name)[found[0].place]
    store = ClipStore.create(path, {"frames": ArraySpec(frames.shape, "uint8"), "masks": ArraySpec(masks.shape, "uint8")}, dataset.shard_clips, mark)
    done = store.done()
    for shard, start in enumerate(tqdm(range(0, len(found), dataset.shard_clips), desc="prepare: write", mininterval=2)):
        if shard in done:
            continue
        part = found[start : start + dataset.shard_clips]
        clips = [decoded(one.source.name)[one.place] for one in part]
        hidden = [mask if one.record.annotated else np.full_like(mask, UNKNOWN) for one, (_, _, mask) in zip(part, clips, strict=True)]
        store.write_shard(shard, [one.record.clip_id for one in part], {"frames": np.stack([pictures for _, pictures, _ in clips]), "masks": np.stack(hidden)})
    store.finish(len(found))


def _summary(sources: Sequence[Source], found: list[_Found], quarantine: list[QuarantineRecord], dataset: DatasetParams) -> dict[str, Any]:
    records = [one.record for one in found]
    pixels = sum((one.pixels for one in found), Counter[int]())
    known = sum(count for label, count in pixels.items() if label != UNKNOWN)
    by_split: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        own = [record for record in records if record.split == split]
        annotated = [record for record in own if record.annotated]
        by_split[split] = {"clips": len(own), "patients": len({record.patient for record in own}), "annotated_clips": len(annotated),
                           "annotated_patients": len({record.patient for record in annotated})}
    return {
        "dataset": dataset.name,
        "sources": len(sources),
        "sources_used": len({one.source.name for one in found}),
        "quarantined": len(quarantine),
        "quarantine_reasons": dict(Counter(one.reason for one in quarantine).most_common(20)),
        "clips": len(found),
        "patients": len({record.patient for record in records}),
        "groups": len({record.group for record in records}),
        "splits": by_split,
        "labels": dict(sorted(Counter(record.label for record in records if record.label is not None).items())),
        "mask_share": {name: pixels[label] / known if known else 0.0 for label, name in enumerate(dataset.classes, start=1)},
        "clip_shape": [dataset.clip_frames, *dataset.frame_size],
    }

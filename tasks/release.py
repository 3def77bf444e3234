"""The accepted clips of one synthetic set, with all that proves them, as one folder that zarr and pyarrow open alone.

`release.json` is written last: a folder without it is not a release. A second run leaves the same bytes.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow.parquet as pq

from models.clip import UNKNOWN
from tasks.account import NAMES, SourceAccount, interval, p_value, read_benchmark, read_filters, read_sources
from tasks.audit import audit_decisions, audit_of, judge_release
from tasks.citation import citation, in_words
from tasks.croissant import File, columns, croissant
from tasks.fingerprint import fingerprint
from tasks.params import AuditParams, DatasetParams, ReleaseParams
from tasks.patients import outside_name
from tasks.records import AuditRecord, ClipRecord, Decision, ProvenanceRecord, accepted
from tasks.store import ClipStore
from tasks.store_check import verify
from tasks.tables import atomic_write, file_digest, read_json, read_table, write_json, write_table

logger = logging.getLogger(__name__)

TABLES = ("manifest.parquet", "decisions.parquet", "provenance.parquet", "audit.parquet")
FILES = (*TABLES, "README.md", "CITATION.cff", "croissant.json")


class RefusedError(ValueError):
    """Too many of the accepted clips are near copies of training clips."""



@dataclass(frozen=True)
class ReleasedClip:
    """One clip of a release: row i of `manifest.parquet` is clip i of the store.

    Attributes:
        patients: the real patients whose clips went into its condition; those of images from outside the data set begin with
            `outside:`.
        label, text: what it was asked to be; None and "" if nothing was said.
        classes: names of the classes that its masks show, in order.
        digest: hash of its frames and masks, as in `provenance.parquet`.
    """

    clip_id: str
    condition_id: str
    patients: list[str]
    generator: str
    label: str | None
    text: str
    classes: list[str]
    frames: int
    height: int
    width: int
    digest: str


def release(params: ReleaseParams, dataset: DatasetParams, audit: AuditParams, prepared: Path, clips: Path, decisions: Path,
            audits: Path, benchmark: Path, out: Path) -> dict[str, Any]:
    """Write clips.zarr, the four tables, README.md (the data card), CITATION.cff, croissant.json and release.json; resumes
    after a kill.

    Args:
        clips, decisions, audits: folders with one folder for each synthetic set.

    Returns:
        What release.json holds.

    Raises:
        RefusedError: if more of the accepted clips are near copies of training clips than `audit` lets pass; a release that
            was in the folder is withdrawn.
        ValueError: if no clip was accepted, if decisions or audit are not about these clips, if a clip was made from a
            held-out or unknown patient, or if the folder's pixels are not those that were sampled.
    """
    chosen = clips / params.source
    provenance = read_table(chosen / "provenance.parquet", ProvenanceRecord)
    judged = read_table(decisions / params.source / "decisions.parquet", Decision)
    rows = accepted([record.clip_id for record in provenance], judged)
    if not rows:
        worst, number = Counter(decision.filter for decision in judged if not decision.keep).most_common(1)[0]
        raise ValueError(
            f"release.source: the filters dropped all {len(provenance)} clips of {params.source!r}, {number} by {worst!r}; "
            f"loosen filters.{worst} or sample more clips"
        )
    kept = [provenance[row] for row in rows]
    _refuse_leaks(kept, read_table(prepared / "manifest.parquet", ClipRecord))
    source = ClipStore.open(chosen / "clips.zarr")
    audited, compared = _audited(audit, params.source, audits / params.source, source, kept, out)
    if audited["withheld"]:
        judged += audit_decisions(compared, audited["threshold"]["value"])
        kept = [record for record, row in zip(kept, compared, strict=True) if not row.near_copy]
        compared = [row for row in compared if not row.near_copy]
    mark = fingerprint("release", params.model_dump(mode="json"), source.digest, [record.clip_id for record in kept])
    out.mkdir(parents=True, exist_ok=True)
    _sweep(out)
    shown = _copy(source, kept, out / "clips.zarr", params.shard_clips, mark)
    manifest = _manifest(kept, shown, dataset, source)
    write_table(out / "manifest.parquet", manifest, ReleasedClip)
    write_table(out / "decisions.parquet", judged, Decision)
    write_table(out / "provenance.parquet", kept, ProvenanceRecord)
    write_table(out / "audit.parquet", compared, AuditRecord)
    sources = read_sources(prepared)
    facts = _facts(params, dataset, source, provenance, manifest, sources) | {"audit": audited}
    facts["clip"] |= read_json(prepared / "summary.json").get("geometry", {})
    facts["store_digest"] = ClipStore.open(out / "clips.zarr").digest
    card = _card(facts, params, dataset, sources, clips, benchmark, kept, judged)
    atomic_write(out / "README.md", card.encode())
    atomic_write(out / "CITATION.cff", citation(facts).encode())
    described = [File(name, file_digest(out / name), (out / name).stat().st_size,
                      columns(pq.read_schema(out / name)) if name in TABLES else None) for name in FILES[:-1]]
    write_json(out / "croissant.json", croissant(facts, described, {"clips.zarr": "clips.zarr/**"}))
    if problems := verify(out / "clips.zarr"):
        more = f"{problems[0]} ({len(problems)} problems)"
        raise ValueError(f"{out / 'clips.zarr'}: {more}; delete {out} and run `cinefab release` again")
    facts |= {"fingerprint": mark, "files": {name: file_digest(out / name) for name in FILES}}
    write_json(out / "release.json", facts)
    return facts


def _refuse_leaks(kept: list[ProvenanceRecord], records: list[ClipRecord]) -> None:
    """Every patient behind a clip is of the training split, or comes from outside and has no held-out patient's name.

    The manifest is asked first, so that nobody in it passes by being called outside. That two collections know one person by
    different names cannot be seen here; `tasks.conditions.stills` looks at the pixels.
    """
    split = {record.patient: record.split for record in records}
    for record in kept:
        for patient in record.patients:
            found = split.get(patient)
            if found is None and (name := outside_name(patient)):
                found = split.get(name, "train")
            if found != "train":
                where = f"the {found} split" if found else "no split of the manifest"
                raise ValueError(
                    f"clip {record.clip_id}: its condition is of patient {patient!r}, who is in {where}; "
                    "run the line from `condition` again"
                )


def _audited(params: AuditParams, name: str, folder: Path, source: ClipStore, kept: list[ProvenanceRecord],
             out: Path) -> tuple[dict[str, Any], list[AuditRecord]]:
    """What the audit says of these clips, with the numbers of the whole set, and its rows about them; too many are refused."""
    found = audit_of(folder, source)
    if found is None:
        raise ValueError(f"{folder}: no audit of the clips that set {name!r} has now; run `cinefab audit {name}`")
    by_id = {row.clip_id: row for row in read_table(folder / "audit.parquet", AuditRecord)}
    rows = [by_id[record.clip_id] for record in kept]
    judged = judge_release(params, rows)
    if judged["refused"]:
        (out / "release.json").unlink(missing_ok=True)
        raise RefusedError(
            f"audit: {judged['copies']} of {judged['clips']} accepted clips of {name!r} ({judged['value']:.1%}) are near "
            f"copies of training clips, beyond doubt more than audit.most ({params.most:.1%}); look at "
            f"{folder / 'audit.webp'} and the report, then train on more clips or for fewer "
            "steps, or set audit.refuse: false to release them all the same"
        )
    return judged | {what: found[what] for what in ("threshold", "ratio", "own", "sentence")}, rows


def _sweep(out: Path) -> None:
    """Withdraw what was released, and remove what no release writes, so that equal releases are equal folders."""
    (out / "release.json").unlink(missing_ok=True)  # first, so that it never stands beside other tables
    for path in out.iterdir():
        if path.name not in {*FILES, "clips.zarr"}:
            logger.info("%s: not part of the release, removed", path)
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _copy(source: ClipStore, kept: list[ProvenanceRecord], path: Path, shard_clips: int, mark: str) -> list[list[int]]:
    """Copy the clips shard by shard, skipping finished shards; returns the mask values 1..K that each clip shows."""
    place = {clip_id: row for row, clip_id in enumerate(source.ids)}
    store = ClipStore.create(path, source.arrays, shard_clips, mark)
    done = store.done()
    shown: list[list[int]] = []
    for shard, start in enumerate(range(0, len(kept), shard_clips)):
        records = kept[start : start + shard_clips]
        arrays = source.load([place[record.clip_id] for record in records])
        for masks in arrays["masks"]:
            shown.append([int(label) for label in np.unique(masks) if label not in (0, UNKNOWN)])
        if shard in done:
            continue
        written = store.write_shard(shard, [record.clip_id for record in records], arrays)
        for record, digest in zip(records, written.digests, strict=True):
            if digest != record.digest:
                raise ValueError(f"clip {record.clip_id}: other pixels than were sampled; delete its set and sample it again")
    store.finish(len(kept))
    return shown


def _manifest(kept: list[ProvenanceRecord], shown: list[list[int]], dataset: DatasetParams,
              source: ClipStore) -> list[ReleasedClip]:
    frames, height, width, _ = source.arrays["frames"].shape
    return [
        ReleasedClip(
            clip_id=record.clip_id,
            condition_id=record.condition_id,
            patients=record.patients,
            generator=record.generator,
            label=record.label,
            text=record.text,
            classes=[dataset.classes[label - 1] for label in labels],
            frames=frames,
            height=height,
            width=width,
            digest=record.digest,
        )
        for record, labels in zip(kept, shown, strict=True)
    ]


def _facts(params: ReleaseParams, dataset: DatasetParams, source: ClipStore, provenance: list[ProvenanceRecord],
           manifest: list[ReleasedClip], sources: SourceAccount) -> dict[str, Any]:
    frames, height, width, channels = source.arrays["frames"].shape
    patients = {patient for clip in manifest for patient in clip.patients}
    return {
        "name": params.name,
        "version": params.version,
        "synthetic": True,
        "dataset": dataset.model_dump(include={"name", "simulated", "licence", "classes"}),
        "set": params.source,
        "clip": {"frames": frames, "height": height, "width": width, "channels": channels},
        "counts": {
            "sampled": len(provenance),
            "dropped": len(provenance) - len(manifest),
            "clips": len(manifest),
            "conditions": len({clip.condition_id for clip in manifest}),
            "patients": len(patients),
            "outside_patients": sum(outside_name(patient) is not None for patient in patients),
            "clips_by_label": dict(sorted(Counter(clip.label for clip in manifest if clip.label).items())),
            "training_clips_by_label": {label: splits["train"] for label, splits in sources.labels.items()},
            "clips_by_class": {name: sum(name in clip.classes for clip in manifest) for name in dataset.classes},
        },
        "about": params.model_dump(mode="json", exclude_none=True,
                                   include={"title", "authors", "licence", "url", "released", "modality"}),
        "checkpoints": {record.generator: record.checkpoint_digest for record in provenance},
        "source_digest": source.digest,
    }


def _card(facts: dict[str, Any], params: ReleaseParams, dataset: DatasetParams, sources: SourceAccount, clips: Path,
          benchmark: Path, kept: list[ProvenanceRecord], judged: list[Decision]) -> str:
    """The data card; every number in it stands in a file that the line wrote."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"cell": _cell, "interval": interval, "p": p_value}
    return environment.get_template("card.md").render(
        facts=facts,
        names=NAMES,
        reference=in_words(facts),
        dataset=dataset,
        sources=sources,
        sampling=json.loads(kept[0].sampling),
        kind=read_json(clips / params.source / "plan.json")["kind"],
        digests=sorted({record.checkpoint_digest for record in kept}),
        params_digest=kept[0].params_digest,
        filters=read_filters(judged),
        outcome=read_benchmark(benchmark),
    )


def _cell(value: object) -> str:
    """Text that neither ends a Markdown table's cell nor opens a tag."""
    text = " ".join(str(value).split())
    for mark, harmless in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "'"), ("[", "\\["), ("]", "\\]")):
        text = text.replace(mark, harmless)
    return text

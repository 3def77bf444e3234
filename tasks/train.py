"""Fit one generator or one critic on the training split and commit its checkpoint."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from models import plugin
from models.clip import DescribedClips
from models.generators import Checkpoint, build
from models.processes import together
from models.seeding import derive_seed
from tasks.checkpoints import FolderStates, checkpoint_digest, is_done, save_checkpoint
from tasks.described import Described
from tasks.fingerprint import fingerprint
from tasks.params import Entry, pretrained_folders
from tasks.records import ClipRecord
from tasks.store import ClipStore
from tasks.tables import file_digest, read_json, read_table


def training_clips(prepared: Path) -> tuple[DescribedClips, dict[str, Any]]:
    """The training split, and what a checkpoint says it was trained on (clip ids, patients and their digest)."""
    records = read_table(prepared / "manifest.parquet", ClipRecord)
    rows = [row for row, record in enumerate(records) if record.split == "train"]
    ids = [records[row].clip_id for row in rows]
    facts = {
        "split": "train",
        "clips": ids,
        "annotated_clips": [records[row].clip_id for row in rows if records[row].annotated],
        "patients": sorted({records[row].patient for row in rows}),
        "digest": hashlib.blake2b("".join(ids).encode(), digest_size=16).hexdigest(),
    }
    return Described(ClipStore.open(prepared / "clips.zarr").subset(rows), records), facts


def held_out_clips(prepared: Path) -> tuple[DescribedClips, list[str]]:
    """The test split, which nothing was trained on, and every clip's patient."""
    records = read_table(prepared / "manifest.parquet", ClipRecord)
    rows = [row for row, record in enumerate(records) if record.split == "test"]
    return Described(ClipStore.open(prepared / "clips.zarr").subset(rows), records), [records[row].patient for row in rows]


def train_generator(name: str, entry: Entry, seed: int, prepared: Path, out: Path) -> str:
    """Fit `models.generators.<kind>`; a killed run resumes, a finished one returns at once. Returns the digest."""

    def fit(clips: DescribedClips, states: FolderStates, own_seed: int) -> Checkpoint:
        return build(entry["kind"], entry).fit(clips, states, own_seed)

    return _train(("generator", name), entry, seed, prepared, out, fit)


def train_critic(name: str, entry: Entry, seed: int, prepared: Path, out: Path) -> str:
    """Fit `models.critics.<kind>` likewise. Returns the digest."""

    def fit(clips: DescribedClips, states: FolderStates, own_seed: int) -> Checkpoint:
        return plugin.load("models.critics", entry["kind"]).fit(plugin.params("models.critics", entry), clips, states, own_seed)

    return _train(("critic", name), entry, seed, prepared, out, fit)


def _train(what: tuple[str, str], entry: Entry, seed: int, prepared: Path, out: Path, fit: Any) -> str:
    # other weights under an old path are another training
    weights = [file_digest(path) for folder in pretrained_folders(plugin.params(f"models.{what[0]}s", entry))
               for path in sorted(folder.rglob("*")) if path.is_file()]
    mark = fingerprint(*what, entry, seed, weights, ClipStore.open(prepared / "clips.zarr").digest,
                       file_digest(prepared / "manifest.parquet"))
    states, processes = FolderStates(out / ".state", mark), together()
    done = is_done(out, mark)
    processes.wait_for_everyone()  # all processes look before one writes
    if not done:
        clips, trained_on = training_clips(prepared)
        checkpoint = fit(clips, states, derive_seed(seed, *what))
        trained_on["scaling"] = read_json(prepared / "summary.json")["scaling"]
        processes.wait_for_everyone()  # nobody reads a state any more
        if processes.is_main_process:
            save_checkpoint(out, checkpoint, fingerprint=mark, trained_on=trained_on)
    if processes.is_main_process:
        states.clear()  # here too if it was done: killed between this line and the one before
    processes.wait_for_everyone()
    return checkpoint_digest(out)

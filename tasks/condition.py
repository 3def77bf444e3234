"""Training split (or outside images) -> condition bank: what generators are asked for."""

from __future__ import annotations

import logging
from pathlib import Path

from models import plugin
from tasks.fingerprint import fingerprint
from tasks.params import Entry
from tasks.records import ClipRecord, ConditionRecord, QuarantineRecord
from tasks.store import ClipStore
from tasks.tables import read_table, write_table

logger = logging.getLogger(__name__)
STORE = "bank.zarr"


def make_conditions(entry: Entry, seed: int, prepared: Path, out: Path, shard_clips: int = 64) -> int:
    """Write `bank.zarr` and `conditions.parquet`, row by row the same conditions, and `quarantine.parquet`, the inputs that
    could not be used; returns how many conditions there are.

    Raises:
        ValueError: when the training split has nothing to make them from.
    """
    params = plugin.params("tasks.conditions", entry)
    bank = plugin.load("tasks.conditions", entry["kind"]).bank(params, seed, prepared)
    for record in bank.refused:
        logger.warning("left out: %s %s", record.file, record.reason)
    # a folder counts by what the bank took from it, not by where it lies; rows whole: another split gives other conditions
    plain = {key: value for key, value in entry.items() if not isinstance(getattr(params, key, None), Path)}
    mark = fingerprint("conditions", plain, seed, ClipStore.open(prepared / "clips.zarr").digest,
                       read_table(prepared / "manifest.parquet", ClipRecord), bank.content)
    store = ClipStore.create(out / STORE, bank.arrays, shard_clips, mark)
    records: list[ConditionRecord] = []
    for start in range(0, bank.count, shard_clips):
        made, arrays = bank.make(range(start, min(start + shard_clips, bank.count)))
        records += made
        if not store.has(start // shard_clips):
            store.write_shard(start // shard_clips, [record.condition_id for record in made], arrays)
    store.finish(bank.count)
    write_table(out / "conditions.parquet", records, ConditionRecord)
    write_table(out / "quarantine.parquet", bank.refused, QuarantineRecord)
    return len(records)

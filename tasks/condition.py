"""Training split -> condition bank: what generators are asked for."""

from __future__ import annotations

from pathlib import Path

from models import plugin
from tasks.fingerprint import fingerprint
from tasks.params import Entry
from tasks.records import ClipRecord, ConditionRecord
from tasks.store import ClipStore
from tasks.tables import read_table, write_table

STORE = "bank.zarr"


def make_conditions(entry: Entry, seed: int, prepared: Path, out: Path, shard_clips: int = 64) -> int:
    """Write `bank.zarr` and `conditions.parquet`, row by row the same conditions; returns how many there are.

    Raises:
        ValueError: when the training split has nothing to make them from.
    """
    params = plugin.params("tasks.conditions", entry)
    bank = plugin.load("tasks.conditions", entry["kind"]).bank(params, seed, prepared)
    mark = fingerprint("conditions", entry, seed, ClipStore.open(prepared / "clips.zarr").digest,
                       [(record.label, record.text) for record in read_table(prepared / "manifest.parquet", ClipRecord)])
    store = ClipStore.create(out / STORE, bank.arrays, shard_clips, mark)
    records: list[ConditionRecord] = []
    for start in range(0, bank.count, shard_clips):
        made, arrays = bank.make(range(start, min(start + shard_clips, bank.count)))
        records += made
        if start // shard_clips not in store.done():
            store.write_shard(start // shard_clips, [record.condition_id for record in made], arrays)
    store.finish(bank.count)
    write_table(out / "conditions.parquet", records, ConditionRecord)
    return len(records)

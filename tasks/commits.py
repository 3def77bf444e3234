"""Commit records: what makes a shard exist. One JSON file a shard below the store, written after the shard's own files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from tasks.records import ShardRecord
from tasks.tables import read_sealed, stays_below, sync, write_sealed

FOLDER = "commits"


def record_name(shard: int) -> str:
    """The record's path inside its store."""
    return f"{FOLDER}/{shard:05d}.json"


def recorded_shards(store: Path) -> set[int]:
    """Numbers of the records there are, whole or not."""
    names = {file.stem for file in (store / FOLDER).glob("*.json")}
    return {int(name) for name in names if name.isdecimal() and name == f"{int(name):05d}"}


def write_record(store: Path, record: ShardRecord) -> None:
    """From the moment this returns the shard exists."""
    write_sealed(store / record_name(record.shard), asdict(record))


def read_record(store: Path, shard: int, fingerprint: str) -> ShardRecord:
    """The record of one shard.

    Raises:
        ValueError: naming the file, if it is missing, damaged, or of another shard or fingerprint.
    """
    path = store / record_name(shard)
    if not path.exists():
        raise ValueError(f"{path}: shard {shard} has no commit record, so it does not exist; run its stage again")
    try:
        record = ShardRecord(**read_sealed(path))
        digests = [*record.digests, *record.files.values()]
        whole = all(isinstance(word, str) for word in (*record.ids, *digests)) and all(map(stays_below, record.files))
    except (TypeError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(f"{path}: is not a commit record; delete it and run its stage again")
    if (record.shard, record.fingerprint) != (shard, fingerprint):
        raise ValueError(f"{path}: is of shard {record.shard} and fingerprint {record.fingerprint}; run its stage again")
    return record


def remove_record(store: Path, shard: int) -> None:
    """The shard stops existing, durably: to be called before its files change."""
    path = store / record_name(shard)
    if path.exists():
        path.unlink()
        sync(path.parent)

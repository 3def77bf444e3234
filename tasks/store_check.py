"""Recompute everything a clip store says of itself."""

from __future__ import annotations

from pathlib import Path

from tasks import commits
from tasks.records import ShardRecord
from tasks.store import METADATA, ClipStore, clip_digest, metadata_files, read_layout, same_content
from tasks.tables import file_digest


def verify(path: Path) -> list[str]:
    """Recompute every checksum of a store: metadata, records, files and, decoded, every clip.

    Returns:
        One line for each thing that is broken, naming file, shard or clip; [] when the store is whole and finished. Of one
        that is not finished only what has a commit record is looked at: the rest is work in progress.
    """
    try:
        layout = read_layout(path)
    except ValueError as error:
        return [f"{METADATA}: {error}"]
    store, metadata = ClipStore(path, layout), metadata_files(layout)
    finished = None if layout["clips"] is None else -(-layout["clips"] // store.shard_clips)
    changed = [name for name, content in metadata.items() if not same_content(path / name, content)]
    problems = [f"{name}: is missing or not this store's metadata" for name in changed]
    if finished is None:
        problems = ["is not finished; run its stage again, the shards that are done are kept"]
    expected, owner = set(metadata), dict[str, int]()
    for shard in sorted(commits.recorded_shards(path) | set(range(finished or 0))):
        expected.add(commits.record_name(shard))
        try:
            record = store.record(shard)
        except ValueError as error:
            problems.append(f"{commits.record_name(shard)}: {error}")
            expected |= _names(store, shard)
            continue
        expected |= set(record.files)
        problems += _shard_problems(store, record)
        if finished is not None:
            size = min(store.shard_clips, layout["clips"] - shard * store.shard_clips)
            if len(record.ids) != size:
                problems.append(f"{commits.record_name(shard)}: holds {len(record.ids)} clips, but must hold {max(0, size)}")
        for clip in record.ids:
            if owner.setdefault(clip, shard) != shard:
                problems.append(f"clip {clip}: is in shards {owner[clip]} and {shard}")
    if finished is not None and not problems and layout["digest"] != store.digest:
        problems.append(f"{METADATA}: its digest is not that of the commit records")
    if finished is None:
        return problems
    found = {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}
    return problems + [f"{name}: belongs to no shard" for name in sorted(found - expected)]


def _shard_problems(store: ClipStore, record: ShardRecord) -> list[str]:
    """What is wrong with one shard that has a record: its files, then each of its clips."""
    problems = []
    sizes = {len(record.ids), len(set(record.ids)), len(record.digests)}
    if set(record.files) != _names(store, record.shard) or len(sizes) > 1:
        problems.append(f"{commits.record_name(record.shard)}: its files, ids and digests do not fit the store")
    for name, digest in sorted(record.files.items()):
        if not (store.path / name).is_file():
            problems.append(f"{name}: is missing (shard {record.shard})")
        elif file_digest(store.path / name) != digest:
            problems.append(f"{name}: its bytes are not those of the commit record (shard {record.shard})")
    for place, (clip, digest) in enumerate(zip(record.ids, record.digests, strict=False)):
        try:
            arrays = store.load([record.shard * store.shard_clips + place])
        except (ValueError, RuntimeError) as error:  # numcodecs raises RuntimeError for a frame that is not zstd
            problems.append(f"clip {clip}: {error}")
            continue
        if clip_digest({name: values[0] for name, values in arrays.items()}) != digest:
            problems.append(f"clip {clip}: its pixels are not those of the commit record (shard {record.shard})")
    return problems


def _names(store: ClipStore, shard: int) -> set[str]:
    return {path.relative_to(store.path).as_posix() for path in store.files(shard).values()}

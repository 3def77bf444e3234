"""Shards made by workers that do not share our disk: what they need goes to object storage, and shards come back from there.

    URL/FINGERPRINT/inputs/checkpoint/..., inputs/conditions/...
    URL/FINGERPRINT/set/plan.json, plan.parquet
    URL/FINGERPRINT/set/clips.zarr/...      the store's own files; a put is atomic, and a shard's record is put last

Nothing in it outlives the set: whatever is taken back is checked against the shard's record first.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from tasks import commits
from tasks.checkpoints import checkpoint_digest
from tasks.local_copy import inside
from tasks.sample import Made, sample_shard
from tasks.store import METADATA, ClipStore
from tasks.tables import PARTIAL, read_json

_STORE = "clips.zarr"
_PLAN = ("plan.json", "plan.parquet")


def offer(url: str, checkpoint: Path, conditions: Path, out: Path) -> str:
    """Put what the plan in `out` needs below `url`, an fsspec URL such as s3://bucket/cinefab; returns its address there."""
    address = f"{url.rstrip('/')}/{read_json(out / 'plan.json')['fingerprint']}"
    storage, root = _storage(address)
    if not storage.exists(f"{root}/inputs/whole"):
        for name, folder in (("checkpoint", checkpoint), ("conditions", conditions)):
            _put(storage, folder, f"{root}/inputs/{name}")
        storage.pipe_file(f"{root}/inputs/whole", b"")
    for name in _PLAN:  # a later round has a longer plan
        storage.put_file(str(out / name), f"{root}/set/{name}")
    for path in (out / _STORE).rglob(METADATA):
        storage.put_file(str(path), f"{root}/set/{path.relative_to(out).as_posix()}")
    return address


def sample_shard_at(address: str, shard: int, device: str = "cpu") -> Made:
    """What a worker does: `sample_shard` in a folder of its own, then the shard's files go to the address, the record last."""
    storage, root = _storage(address)
    if storage.exists(f"{root}/set/{_STORE}/{commits.record_name(shard)}"):
        return Made()
    inputs = _inputs(address)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for name in storage.find(f"{root}/set"):
            if name.endswith((METADATA, *_PLAN)):
                _get(storage, name, out / inside(name, f"{root}/set"))
        made = sample_shard(shard, inputs / "checkpoint", inputs / "conditions", out, device)
        store = ClipStore.resume(out / _STORE, read_json(out / "plan.json")["fingerprint"])
        for name in (*store.record(shard).files, commits.record_name(shard)):
            storage.put_file(str(store.path / name), f"{root}/set/{_STORE}/{name}")
    return made


def take_shard(address: str, shard: int, out: Path) -> None:
    """Bring a shard that a worker made into the set's own store.

    Raises:
        ValueError: if its bytes are not those of its record.
    """
    storage, root = _storage(address)
    store = ClipStore.resume(out / _STORE, read_json(out / "plan.json")["fingerprint"])
    with tempfile.TemporaryDirectory() as folder:
        _get(storage, f"{root}/set/{_STORE}/{commits.record_name(shard)}", Path(folder) / commits.record_name(shard))
        record = commits.read_record(Path(folder), shard, store.fingerprint)
    store.adopt(record, {name: storage.cat_file(f"{root}/set/{_STORE}/{name}") for name in record.files})


def withdraw(address: str) -> None:
    """Remove everything at the address: the set is whole, here."""
    storage, root = _storage(address)
    storage.rm(root, recursive=True)


@lru_cache(maxsize=1)
def _inputs(address: str) -> Path:
    """Checkpoint and conditions on this worker's disk, once a process."""
    storage, root = _storage(address)
    folder = Path(tempfile.mkdtemp(prefix="cinefab-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in storage.find(f"{root}/inputs"):
        _get(storage, name, folder / inside(name, f"{root}/inputs"))
    checkpoint_digest(folder / "checkpoint")  # raises if it did not arrive whole
    return folder


def _storage(address: str) -> tuple[AbstractFileSystem, str]:
    storage, root = url_to_fs(address, use_listings_cache=False)
    return storage, str(root)


def _put(storage: AbstractFileSystem, folder: Path, place: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.endswith(PARTIAL):
            storage.put_file(str(path), f"{place}/{path.relative_to(folder).as_posix()}")


def _get(storage: AbstractFileSystem, name: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.get_file(name, str(path))

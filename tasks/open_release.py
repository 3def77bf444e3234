"""A release to be read, not checked out: a version by its name, or the folder or address of one.

    release = open_release("phantom@v1")                          # a tag of this repository, or of the one that `repo` names
    clips = release.load([3, 5])                                  # uint8 arrays by name, nothing else is read
    loader = DataLoader(release, batch_size=8, shuffle=True)      # a torch Dataset
    for batch in release.batches(8, seed=epoch):                  # ClipBatch, the next one being read meanwhile
        ...
    release.array("frames")                                       # a Zarr array

What is in DVC's cache is read in place, the rest by ranges from the remote, and nothing is written: whoever goes through a
remote version many times should `cinefab pull` it first. Memory holds the manifest and the shards' indexes, some hundred bytes
a clip, whatever the clips' size.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from numpy.typing import NDArray
from torch.utils.data import Dataset

from models.clip import ClipBatch, clip_batch
from tasks.placed_shards import Place, PlacedShards
from tasks.release_facts import release_facts
from tasks.store import METADATA, ArraySpec, PlainArray, clip_digest, plain_array, store_digest
from tasks.versions import FACTS, NAMED, RELEASE, STORE, VersionFiles


class Release(Dataset[dict[str, Any]]):
    """The clips of one release by row, with what is known of them. A `DescribedClips`, and a torch `Dataset` of single clips.

    It may be given to a DataLoader with workers, forked or spawned. Every clip's pixels are compared with the digest in the
    manifest when it is first read; the manifest's own hash is in git.

    Attributes:
        name: as it was opened.
        facts: what release.json holds: counts, checkpoints, the audit, ...
        manifest: `manifest.parquet`, row i is clip i.
        arrays: layout by name; shapes are of one clip.
        ids, labels, texts: of the clips, in row order; "" where nothing was asked for.
        digests: `clip_digest` of every clip.
    """

    def __init__(self, name: str, repo: str) -> None:
        self.name, self._repo = name, repo
        if NAMED.fullmatch(name):
            self._files: AbstractFileSystem = VersionFiles(name, repo)
            self._folder = RELEASE
        else:
            self._files, self._folder = url_to_fs(name)
        self.facts: dict[str, Any] = release_facts(self._content(FACTS), f"{name}/{FACTS}")
        layout = json.loads(self._content(f"{STORE}/{METADATA}"))["attributes"]
        self.arrays = {key: ArraySpec(tuple(one["shape"]), one["dtype"]) for key, one in sorted(layout["arrays"].items())}
        self.manifest = self.table("manifest")
        self.ids: tuple[str, ...] = tuple(self.manifest["clip_id"].to_pylist())
        self.digests: list[str] = self.manifest["digest"].to_pylist()
        if store_digest(self.arrays, self.ids, self.digests) != self.facts["store_digest"]:
            raise ValueError(f"{name}: its manifest is of other clips than its release.json; pull it again")
        self._known = np.zeros(len(self.ids), bool)
        self._readers = {key: PlacedShards(self._place, f"{STORE}/{key}", layout["shard_clips"], spec.shape, spec.dtype)
                         for key, spec in self.arrays.items()}

    def __len__(self) -> int:
        return len(self.ids)

    def __reduce__(self) -> tuple[Any, ...]:
        return Release, (self.name, self._repo)  # a spawned worker opens it itself

    @cached_property
    def labels(self) -> tuple[str, ...]:
        return self._words("label")

    @cached_property
    def texts(self) -> tuple[str, ...]:
        return self._words("text")

    def load(self, rows: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Every array at these rows, (len(rows), *shape), in this order; repeats allowed.

        Raises:
            IndexError: for a row the release does not have.
            ValueError: for bytes that are missing or are not those that were released.
        """
        wanted = [int(row) for row in rows]
        if outside := [row for row in wanted if not 0 <= row < len(self)]:
            raise IndexError(f"{self.name}: has no rows {outside[:8]}; it has {len(self)} clips")
        try:
            found = {key: reader.read(wanted) for key, reader in self._readers.items()}
        except FileNotFoundError as error:
            raise ValueError(f"{self.name}: {error} is not on the remote; ask whoever released it to run `dvc push`") from None
        for number, row in enumerate(wanted):
            if not self._known[row]:
                if clip_digest({key: values[number] for key, values in found.items()}) != self.digests[row]:
                    raise ValueError(f"{self.name}: clip {self.ids[row]} has other pixels than were released; pull it again")
                self._known[row] = True
        return found

    def read(self, rows: Sequence[int]) -> ClipBatch:
        """Clips for training: frames (B, T, C, H, W) float32 in [-1, 1], with masks, class and text."""
        ids, labels, texts = (tuple(words[row] for row in rows) for words in (self.ids, self.labels, self.texts))
        return clip_batch(ids, self.load(rows), labels, texts)

    def batches(self, size: int, seed: int) -> Iterator[ClipBatch]:
        """Every clip once, in an order that the seed decides; the last batch may be smaller. The next one is read meanwhile."""
        order = np.random.default_rng(seed).permutation(len(self)).tolist()
        with ThreadPoolExecutor(1, "release") as pool:
            waiting = pool.submit(self.read, order[:size])
            for start in range(size, len(self), size):
                batch, waiting = waiting.result(), pool.submit(self.read, order[start : start + size])
                yield batch
            yield waiting.result()

    def __getitem__(self, row: int) -> dict[str, Any]:
        """{clip_id, frames (T, C, H, W) float32 in [-1, 1], masks (T, H, W) uint8, label, text}."""
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: list[int]) -> list[dict[str, Any]]:
        """What a DataLoader calls for a whole batch."""
        batch = self.read(rows)
        asked = batch.condition
        return [{"clip_id": clip_id, "frames": batch.frames[number], "masks": asked.masks[number],
                 "label": asked.labels[number], "text": asked.texts[number]} for number, clip_id in enumerate(batch.ids)]

    def array(self, name: str) -> PlainArray:
        """An array of all clips, e.g. "frames" (N, T, H, W, C), as zarr opens it: its own pace, and no digests compared."""
        where = f"{self._folder}/{STORE}/{name}"
        if isinstance(self._files, VersionFiles):
            return plain_array(where, self._files)
        return plain_array(self._files.unstrip_protocol(where))

    def table(self, name: str) -> pa.Table:
        """`NAME.parquet`: manifest, decisions, provenance or audit.

        Raises:
            ValueError: if there is none, or its bytes are not those that release.json has the digest of.
        """
        content = self._content(file := f"{name}.parquet")
        if hashlib.sha256(content).hexdigest() != self.facts["files"].get(file):
            raise ValueError(f"{self.name}: {file} has other bytes than were released; pull it again")
        return pq.read_table(io.BytesIO(content))

    def _content(self, name: str) -> bytes:
        try:
            content: bytes = self._files.cat_file(f"{self._folder}/{name}")
        except FileNotFoundError:
            raise ValueError(f"{self.name}: has no {name}, so it is no release of cinefab") from None
        return content

    def _place(self, name: str) -> Place:
        where = f"{self._folder}/{name}"
        return self._files.place(where) if isinstance(self._files, VersionFiles) else (self._files, where)

    def _words(self, column: str) -> tuple[str, ...]:
        return tuple(word or "" for word in self.manifest[column].to_pylist())


def open_release(name: str, repo: str = ".") -> Release:
    """Open a release.

    Args:
        name: NAME@vN, or the folder of a release, or its address as fsspec takes it (`s3://...`).
        repo: path or URL of the git repository that has the version.

    Raises:
        ValueError: if there is no such version or release, or its files are nowhere or damaged.
    """
    return Release(name, repo)

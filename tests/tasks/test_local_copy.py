"""A data set behind a URL; the URL of a local folder here, of a real S3 server in tests/flows/test_object_storage.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from tasks import local_copy as module
from tasks.local_copy import local_copy


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw data"  # with what a URL might trip over
    for name, content in (("a.txt", b"one"), ("deep/er/b.bin", b"two"), ("deep/c", b"")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stamps(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def test_a_path_stays_what_it_is(tmp_path: Path) -> None:
    assert local_copy(tmp_path / "nowhere", tmp_path / "cache") == tmp_path / "nowhere"
    assert not (tmp_path / "cache").exists()


def test_a_copy_follows_what_it_is_of(raw: Path, tmp_path: Path) -> None:
    url, cache = f"file://{raw}", tmp_path / "cache"
    copy = local_copy(url, cache)
    assert tree(copy) == tree(raw) and copy.is_relative_to(cache)
    first = stamps(copy)
    assert local_copy(url, cache) == copy and stamps(copy) == first  # nothing was fetched again
    (raw / "a.txt").write_bytes(b"ONE")  # the same size
    os.utime(raw / "a.txt", (1, 1))
    (raw / "deep/c").unlink()
    (raw / "new").write_bytes(b"four")
    local_copy(url, cache)
    assert tree(copy) == tree(raw) == {"a.txt": b"ONE", "deep/er/b.bin": b"two", "new": b"four"}
    assert stamps(copy)["deep/er/b.bin"] == first["deep/er/b.bin"]
    assert local_copy(f"file://{raw}/deep", cache) != copy  # another URL, another copy


def test_an_interrupted_copy_goes_on(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", 1)
    fetch, calls = LocalFileSystem.get, list[str]()

    def once(self: LocalFileSystem, names: list[str], *rest: object, **more: object) -> object:
        if len(calls) == 1:
            raise ConnectionResetError("gone")
        calls.extend(names)
        return fetch(self, names, *rest, **more)

    monkeypatch.setattr(LocalFileSystem, "get", once)
    with pytest.raises(ValueError, match=r"dataset.location: file://.*raw data: gone"):
        local_copy(f"file://{raw}", tmp_path / "cache")
    monkeypatch.setattr(LocalFileSystem, "get", fetch)
    before = stamps(tmp_path / "cache")
    copy = local_copy(f"file://{raw}", tmp_path / "cache")
    assert tree(copy) == tree(raw)
    done = copy / Path(calls[0]).relative_to(raw)
    assert done.stat().st_ino == before[done.relative_to(tmp_path / "cache").as_posix()]


@pytest.mark.parametrize(("url", "message"), [
    ("file:///nowhere/at/all", "holds no file"),
    ("nope://bucket/raw", "Protocol not known: nope"),
    ("abfs://container/raw", "Install adlfs"),
])
def test_what_cannot_be_read_is_one_line(url: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"dataset.location: {url}: .*{message}.*; give the URL of a folder"):
        local_copy(url, tmp_path)


@pytest.mark.parametrize("name", ["bucket/raw/../../etc/passwd", "bucket/raw/a/../../../b", "bucket/raw"])
def test_names_lead_nowhere_else(name: str) -> None:
    with pytest.raises(ValueError, match="no file below"):
        module.inside(name, "bucket/raw")

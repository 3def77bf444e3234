"""Versions on S3, against a server on this machine: pushed and pulled by DVC, read by ranges."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_factory
from tiny_factory import ROOT, contents, run

from tasks.open_release import open_release
from tasks.pull import pull
from tasks.store import ClipStore
from tasks.versions import VersionFiles

pytest.importorskip("dvc_s3", reason="needs the extra s3")
server = pytest.importorskip("moto.server", reason="needs moto[server], of the extra dev")
s3fs = pytest.importorskip("s3fs")


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tiny factory, with a bucket of a server on this machine as its remote."""
    folder = tmp_path_factory.mktemp("s3") / "factory"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "of-this-test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        running.start()
        try:
            host, port = running.get_host_and_port()
            address = f"http://{host}:{port}"
            s3fs.S3FileSystem(endpoint_url=address).mkdir("wires")
            tiny_factory.build(folder, "s3://wires/store", endpointurl=address)
            yield folder
        finally:
            running.stop()


@pytest.fixture
def clone(factory: Path, tmp_path: Path) -> Path:
    run(tmp_path, "git", "clone", "-q", str(factory), "clone")
    return tmp_path / "clone"


def test_a_clone_reads_the_older_version_by_ranges(factory: Path, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = open_release("tiny-wires@v1", str(clone))
    fetched: list[int] = []
    read = s3fs.S3FileSystem._cat_file

    async def counted(self: object, *args: object, **kwargs: object) -> bytes:
        content: bytes = await read(self, *args, **kwargs)
        fetched.append(len(content))
        return content

    monkeypatch.setattr(s3fs.S3FileSystem, "_cat_file", counted)
    one = release.load([1])
    stored = ClipStore.open(factory / "data" / "prepared" / "clips.zarr").files(0).values()  # the same scenes, the same size
    assert len(fetched) == 4 and sum(fetched) < sum(path.stat().st_size for path in stored) / 2
    assert not any(path.is_file() and path.suffix != ".dir" for path in (clone / ".dvc" / "cache" / "files").rglob("*"))
    np.testing.assert_array_equal(release.array("frames")[1], one["frames"][0])
    folder = pull("tiny-wires@v1", clone / "data" / "releases" / "v1", str(clone))
    np.testing.assert_array_equal(one["masks"], ClipStore.open(folder / "clips.zarr").load([1])["masks"])
    place, _ = VersionFiles("tiny-wires@v1", str(clone)).place("data/release/clips.zarr/frames/c.0.0.0.0.0")
    assert place.protocol == ("file", "local")  # now that it is pulled


def test_forked_workers_read_it(factory: Path, clone: Path) -> None:
    release = factory / "data" / "release"
    run(ROOT, sys.executable, "-m", "tests.tasks.forked_workers", "tiny-wires@v2", str(clone), str(release))


def test_dvc_alone_is_enough(factory: Path, tmp_path: Path) -> None:
    run(tmp_path, "dvc", "get", str(factory), "data/release", "--rev", "tiny-wires-v2", "--out", "wires")
    assert contents(tmp_path / "wires") == contents(factory / "data" / "release")


def test_a_bucket_that_is_a_release_needs_no_repository(factory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", run(factory, "dvc", "config", "remote.store.endpointurl").strip())
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().put(str(factory / "data" / "release"), "wires/plain", recursive=True)
    release = open_release("s3://wires/plain")
    whole = ClipStore.open(factory / "data" / "release" / "clips.zarr")
    np.testing.assert_array_equal(release.load([6, 0])["frames"], whole.load([6, 0])["frames"])
    np.testing.assert_array_equal(release.array("masks")[6], whole.load([6])["masks"][0])

"""Fetching: a copy on disk, the real downloader against a server of our own, and no network at all."""

from __future__ import annotations

import hashlib
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tasks.fetch import TASK, fetch_hippocampus


def write_pairs(images: Path, labels: Path, count: int = 2, label: int = 2) -> None:
    for folder in (images, labels):
        folder.mkdir(parents=True)
    for number in range(count):
        values = np.random.default_rng(number).integers(0, 100, (6, 7, 8)).astype(np.int16)
        for folder, voxels in ((images, values), (labels, (values > 50).astype(np.uint8) * label)):
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / f"hippocampus_{number:03d}.nii.gz")
    (images / "._hippocampus_000.nii.gz").write_bytes(b"\0\5\26\7")  # as in the real archive


@pytest.mark.parametrize("names", [("images", "labels"), ("imagesTr", "labelsTr")])
def test_a_copy_is_real_and_checked(tmp_path: Path, names: tuple[str, str]) -> None:
    write_pairs(tmp_path / "from" / names[0], tmp_path / "from" / names[1])
    target = tmp_path / "raw" / "hippocampus"
    assert fetch_hippocampus(target, tmp_path / "from").endswith("holds 2 volumes with masks")
    for folder, name in zip(("images", "labels"), names, strict=True):
        copies = sorted((target / folder).iterdir())
        assert [copy.name for copy in copies] == ["hippocampus_000.nii.gz", "hippocampus_001.nii.gz"]
        for copy in copies:
            original = tmp_path / "from" / name / copy.name
            assert copy.read_bytes() == original.read_bytes()
            assert copy.stat().st_ino != original.stat().st_ino
    assert sorted(path.name for path in target.parent.iterdir()) == ["hippocampus"]
    assert fetch_hippocampus(target, tmp_path / "from").endswith("holds 2 volumes with masks")  # again, over it
    assert fetch_hippocampus(target).endswith("holds 2 volumes with masks already")


def test_a_copy_that_is_not_whole_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "raw" / "hippocampus"
    with pytest.raises(ValueError, match="has neither images/ with labels/ nor"):
        fetch_hippocampus(target, tmp_path)
    source = tmp_path / "from"
    write_pairs(source / "images", source / "labels")
    content = (source / "images" / "hippocampus_001.nii.gz").read_bytes()
    (source / "images" / "hippocampus_001.nii.gz").write_bytes(content[:100])
    with pytest.raises(ValueError, match=r"images/hippocampus_001.nii.gz cannot be read"):
        fetch_hippocampus(target, source)
    (source / "images" / "hippocampus_001.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"1 files in .* lack their partner, e.g. hippocampus_001.nii.gz"):
        fetch_hippocampus(target, source)
    write_pairs(tmp_path / "other" / "images", tmp_path / "other" / "labels", label=7)
    with pytest.raises(ValueError, match=f"labels above 2; this is not {TASK}"):
        fetch_hippocampus(target, tmp_path / "other")
    assert list(target.parent.iterdir()) == []


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small archive of the real layout behind an HTTP server, as MONAI's tables would name it."""
    from monai.apps.datasets import DecathlonDataset

    write_pairs(tmp_path / TASK / "imagesTr", tmp_path / TASK / "labelsTr")
    path = tmp_path / "served" / f"{TASK}.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        tar.add(tmp_path / TASK, TASK)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(path.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setitem(DecathlonDataset.resource, TASK, f"http://127.0.0.1:{server.server_port}/{TASK}.tar")
    monkeypatch.setitem(DecathlonDataset.md5, TASK, hashlib.md5(path.read_bytes()).hexdigest())
    yield path
    server.shutdown()
    server.server_close()


def test_the_archive_is_downloaded_and_unpacked(archive: Path, tmp_path: Path) -> None:
    target = tmp_path / "raw" / "hippocampus"
    assert fetch_hippocampus(target).endswith("holds 2 volumes with masks")
    assert len(list((target / "labels").iterdir())) == 2
    assert sorted(path.name for path in target.parent.iterdir()) == ["hippocampus"]


def test_another_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"the MD5 of .* is not its owners'"):
        fetch_hippocampus(tmp_path / "raw" / "hippocampus")
    assert not (tmp_path / "raw" / "hippocampus").exists()


def test_without_a_network_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(ValueError, match=r"cannot be downloaded .* --from FOLDER") as caught:
        fetch_hippocampus(tmp_path / "raw" / "hippocampus")
    assert "\n" not in str(caught.value)

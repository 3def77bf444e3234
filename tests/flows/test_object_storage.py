"""A whole line whose raw data lie in a bucket and whose shards travel through one, against an S3 server on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import checkout, command, environment, tree_digest
from test_own_data import FILES, scene, write_masks, write_mp4

server = pytest.importorskip("moto.server", reason="needs moto, of the extra dev")
s3fs = pytest.importorskip("s3fs", reason="needs the extra s3")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The server's file system; its address and keys are in the environment, where S3's own tools look for them."""
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    for name, value in (("ENDPOINT_URL", f"http://{host}:{port}"), ("ACCESS_KEY_ID", "of-this-test"),
                        ("SECRET_ACCESS_KEY", "of-this-test"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    storage = s3fs.S3FileSystem(use_listings_cache=False)
    storage.makedirs("clinic", exist_ok=True)  # moto keeps one set of buckets a process
    yield storage
    running.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def raw(folder: Path) -> Path:
    for number in range(FILES):
        film, masks = scene(number)
        write_masks(folder / "masks" / f"P{number}_scan", masks)
        write_mp4(folder / f"P{number}_scan.mp4", film)
    return folder


def line(folder: Path, location: str, **engine: Any) -> Path:
    """A checkout whose data set lies there."""
    checkout(folder)
    tree: dict[str, Any] = yaml.safe_load((folder / "params.yaml").read_text())
    tree["dataset"] = {
        "name": "theirs", "reader": "video", "location": location, "classes": ["bar"], "clip_frames": 4, "stride": 1,
        "options": {"masks": "masks", "patient_pattern": "(?P<patient>P[0-9]+)_"}, "frame_size": [16, 16],
        "split": {"train": 0.5, "val": 0.1, "test": 0.4}, "shard_clips": 4,
    }
    tree["engine"] = engine or {"kind": "threads"}
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_line_through_buckets_is_the_line_on_disk(bucket: Any, api: str, tmp_path: Path) -> None:
    theirs = raw(tmp_path / "theirs")
    bucket.put(str(theirs), "clinic/raw", recursive=True)
    away = line(tmp_path / "away", "s3://clinic/raw", kind="dask", workers=2, exchange="s3://clinic/exchange")
    here = line(tmp_path / "here", str(theirs))
    for folder in (away, here):
        command(folder, api, "dvc", "repro", "release")
    for name in ("prepared", "clips", "decisions", "release"):
        assert tree_digest(away / "data" / name) == tree_digest(here / "data" / name), name
    assert bucket.find("clinic/exchange") == []  # nothing is left behind

    assert "Data and pipelines are up to date" in command(away, api, "dvc", "repro", "release")
    copies = {path: path.stat().st_ino for path in (away / ".cinefab" / "objects").rglob("*.mp4")}
    film, _ = scene(FILES + 1)
    write_mp4(tmp_path / "other.mp4", film)
    bucket.put_file(str(tmp_path / "other.mp4"), "clinic/raw/P3_scan.mp4")
    assert "changed deps" in command(away, api, "dvc", "status", "prepare")  # DVC sees the bucket itself
    command(away, api, "dvc", "repro", "prepare")
    assert {path.name for path, inode in copies.items() if path.stat().st_ino != inode} == {"P3_scan.mp4"}
    assert tree_digest(away / "data" / "prepared") != tree_digest(here / "data" / "prepared")


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_one_line(bucket: Any, api: str, tmp_path: Path) -> None:
    folder = line(tmp_path / "checkout", "s3://nobody/raw")
    words = ["python", "-m", "flows", "prepare"]
    done = subprocess.run(words, cwd=folder, env=environment(api), capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "dataset.location: s3://nobody/raw: The specified bucket does not exist" in done.stderr.strip().splitlines()[-1]

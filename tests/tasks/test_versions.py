"""Released versions out of a clone that has nothing but git and a remote: by DVC alone, pulled, and read clip by clip."""

from __future__ import annotations

import copy
import hashlib
import shutil
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_factory
from tiny_factory import ROOT, contents, run
from typer.testing import CliRunner

from flows.__main__ import app
from flows.layout import Layout
from tasks.export import export
from tasks.open_release import open_release
from tasks.pull import pull
from tasks.store import ClipStore
from tasks.version_diff import METRICS, PREPARED
from tasks.versions import RELEASE, VersionFiles, versions


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("versions") / "factory"
    tiny_factory.build(folder, str(folder.parent / "store"))
    return folder


@pytest.fixture(scope="module")
def first(factory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 as it was released, by way of DVC's own checkout."""
    folder = tmp_path_factory.mktemp("first") / "clone"
    run(factory.parent, "git", "clone", "-q", "-b", "tiny-wires-v1", str(factory), str(folder))
    run(folder, "dvc", "pull", "-q", "data/release")
    return folder / "data" / "release"


@pytest.fixture
def clone(factory: Path, request: pytest.FixtureRequest) -> Path:
    """A clone with nothing in its cache."""
    folder = factory.parent / f"clone_{request.node.name[:40]}"
    run(factory.parent, "git", "clone", "-q", str(factory), str(folder))
    return folder


def cached(folder: Path) -> list[Path]:
    return [path for path in (folder / ".dvc" / "cache" / "files").rglob("*") if path.is_file() and path.suffix != ".dir"]


def links(folder: Path) -> set[tuple[int, int]]:
    return {(path.stat().st_dev, path.stat().st_ino) for path in folder.rglob("*") if path.is_file()}


def test_versions_are_the_annotated_tags(factory: Path) -> None:
    found = versions(str(factory))
    assert [str(one) for one in found] == ["tiny-wires@v1", "tiny-wires@v2"]
    assert found[0].summary == "7 clips released of 10 sampled"


def test_the_paths_are_the_layout_s() -> None:
    assert Path(RELEASE) == Layout().release
    assert Path(PREPARED) == Layout().prepared
    assert Path(METRICS) == Layout().benchmark / "metrics.json"


def test_what_the_line_wrote_is_the_cache_itself_and_releasing_again_leaves_the_cache_whole(factory: Path) -> None:
    """Version 2 was written over hard links into the cache of version 1."""
    for out in ("release", "prepared"):
        files = [path for path in (factory / "data" / out).rglob("*") if path.is_file()]
        assert links(factory / "data" / out) <= links(factory / ".dvc" / "cache")
        assert not any(path.stat().st_mode & stat.S_IWUSR for path in files)
    for path in (factory / ".dvc" / "cache" / "files" / "md5").rglob("*"):
        if path.is_file():
            assert hashlib.md5(path.read_bytes()).hexdigest() == path.parent.name + path.name.removesuffix(".dir")


def test_pull_gives_the_older_version_once(clone: Path, first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone)
    out = pull("tiny-wires@v1", Path("data/releases/tiny-wires-v1"))
    assert contents(out) == contents(first)
    assert links(out) <= links(clone / ".dvc" / "cache")
    assert not any(path.stat().st_mode & stat.S_IWUSR for path in out.rglob("*") if path.is_file())
    assert run(clone, "git", "status", "--short") == ""
    assert pull("tiny-wires@v1", out) == out  # again: looked at, and left alone
    with pytest.raises(ValueError, match="is there already and is not tiny-wires@v2"):
        pull("tiny-wires@v2", out)
    table = out / "manifest.parquet"
    table.unlink()
    table.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"manifest.parquet: its bytes are not those .*delete .* and pull tiny-wires@v1 again"):
        pull("tiny-wires@v1", out)


def test_pull_from_an_address_needs_no_repository_here(factory: Path, first: Path, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = pull("tiny-wires@v1", tmp_path / "wires", f"file://{factory}")
    assert contents(out) == contents(first)
    assert not links(out) & links(factory.parent / "store")  # whoever edits it must not reach the remote


@pytest.mark.parametrize("recipe", ["get", "import", "pull"])
def test_dvc_alone_is_enough(factory: Path, first: Path, tmp_path: Path, recipe: str) -> None:
    """The three recipes of the README, line by line."""
    url, version = str(factory), "tiny-wires-v1"
    if recipe == "get":
        run(tmp_path, "dvc", "get", url, "data/release", "--rev", version, "--out", "wires")
        out = tmp_path / "wires"
    elif recipe == "import":
        run(tmp_path, "git", "init", "-q")
        run(tmp_path, "dvc", "init", "-q")
        run(tmp_path, "dvc", "import", url, "data/release", "--rev", version, "--out", "wires")
        assert contents(tmp_path / "wires") == contents(first)
        run(tmp_path, "dvc", "update", "--rev", "tiny-wires-v2", "wires.dvc")
        assert contents(tmp_path / "wires") == contents(factory / "data" / "release")
        return
    else:
        folder = factory.parent / "pulled"
        run(factory.parent, "git", "clone", "-q", "--branch", version, url, "pulled")
        run(folder, "dvc", "pull", "data/release")
        out = folder / "data" / "release"
        assert links(out) <= links(folder / ".dvc" / "cache")
    assert contents(out) == contents(first)


def test_one_clip_is_read_without_anything_being_stored(clone: Path, first: Path) -> None:
    release = open_release("tiny-wires@v1", str(clone))
    whole = ClipStore.open(first / "clips.zarr")
    assert release.ids == whole.ids and release.digests == list(whole.digests)
    for name, values in release.load([5, 2, 5]).items():
        np.testing.assert_array_equal(values, whole.load([5, 2, 5])[name])
    assert cached(clone) == []
    assert not (clone / "data").exists() or not any((clone / "data").iterdir())


def test_every_form_has_the_same_clips(clone: Path, first: Path) -> None:
    release = open_release("tiny-wires@v1", str(clone))
    whole = ClipStore.open(first / "clips.zarr")
    everything, batch = whole.load(range(7)), whole.read(range(7))
    for name in ("frames", "masks"):
        np.testing.assert_array_equal(release.array(name)[:], everything[name])
    np.testing.assert_array_equal(release.array("frames")[3:5, 1:], everything["frames"][3:5, 1:])
    read = release.read(range(7))
    assert read.ids == batch.ids and (read.frames == batch.frames).all()
    assert (read.condition.masks == batch.condition.masks).all()
    item = release[4]
    assert item["clip_id"] == whole.ids[4] and (item["frames"] == batch.frames[4]).all()
    assert (item["masks"] == batch.condition.masks[4]).all()
    found = [clip for part in release.batches(3, seed=1) for clip in zip(part.ids, part.frames, strict=True)]
    assert [clip for clip, _ in found] != list(whole.ids) and {clip for clip, _ in found} == set(whole.ids)
    assert all((frames == batch.frames[whole.ids.index(clip)]).all() for clip, frames in found)
    assert [part.ids for part in release.batches(3, seed=1)] != [part.ids for part in release.batches(3, seed=2)]
    again = copy.copy(release)  # as a spawned worker gets it
    assert again is not release and again.ids == release.ids


def test_forked_workers_read_it(clone: Path, first: Path) -> None:
    run(ROOT, sys.executable, "-m", "tests.tasks.forked_workers", "tiny-wires@v1", str(clone), str(first))


def test_a_version_is_exported_as_its_folder_is(clone: Path, first: Path, tmp_path: Path) -> None:
    out = export(open_release("tiny-wires@v1", str(clone)), "nifti", tmp_path / "version")
    assert contents(out) == contents(export(open_release(str(first)), "nifti", tmp_path / "folder"))


def test_two_versions_at_once(clone: Path, factory: Path) -> None:
    old, new = (open_release(f"tiny-wires@{version}", str(clone)) for version in ("v1", "v2"))
    assert new.ids == ClipStore.open(factory / "data" / "release" / "clips.zarr").ids != old.ids
    assert new.facts["version"] == "v2" and old.facts["version"] == "v1"


def test_a_folder_is_read_the_same_way(first: Path) -> None:
    release = open_release(str(first))
    whole = ClipStore.open(first / "clips.zarr")
    np.testing.assert_array_equal(release.load([6])["frames"], whole.load([6])["frames"])
    np.testing.assert_array_equal(release.array("masks")[6], whole.load([6])["masks"][0])
    with pytest.raises(IndexError, match=r"has no rows \[7\]; it has 7 clips"):
        release.load([7])


def spoil(clone: Path, store: Path, name: str, content: bytes | None) -> None:
    """Give the clone a remote of its own, in which one file of version 1 is another, or is missing."""
    shutil.copytree(store, clone.with_suffix(".remote"))
    run(clone, "dvc", "remote", "modify", "--local", "store", "url", str(clone.with_suffix(".remote")))
    where = Path(VersionFiles("tiny-wires@v1", str(clone)).place(f"data/release/{name}")[1])
    assert where.is_relative_to(clone.with_suffix(".remote"))
    where.unlink()
    if content is not None:
        where.write_bytes(content)


def test_other_pixels_under_a_sound_checksum_are_noticed(clone: Path, factory: Path, first: Path) -> None:
    """A shard that decodes, but not to what was released: another one, of the same layout."""
    other = ClipStore.open(factory / "data" / "prepared" / "clips.zarr").files(0)["frames"].read_bytes()
    spoil(clone, factory.parent / "store", "clips.zarr/frames/c.0.0.0.0.0", other)
    release = open_release("tiny-wires@v1", str(clone))
    with pytest.raises(ValueError, match=f"clip {release.ids[2]} has other pixels than were released"):
        release.load([2])
    assert release.load([5])["frames"].any()  # of the other shard


def test_a_missing_shard_is_no_black_clip(clone: Path, factory: Path) -> None:
    spoil(clone, factory.parent / "store", "clips.zarr/frames/c.0.0.0.0.0", None)
    release = open_release("tiny-wires@v1", str(clone))
    with pytest.raises(ValueError, match="no such shard"):
        release.load([2])
    with pytest.raises(ValueError, match=r"c\.0\.0\.0\.0\.0 is neither in DVC's cache nor on the remote; .*`dvc push`"):
        release.array("frames")[2]


def test_a_changed_table_is_noticed(clone: Path, factory: Path) -> None:
    spoil(clone, factory.parent / "store", "manifest.parquet", b"PAR1")
    with pytest.raises(ValueError, match=r"manifest.parquet has other bytes than were released"):
        open_release("tiny-wires@v1", str(clone))


def test_the_remote_of_today_has_the_versions_of_yesterday(clone: Path, factory: Path) -> None:
    """The old tag's own config names a folder that is gone."""
    moved = clone.with_suffix(".moved")
    shutil.copytree(factory.parent / "store", moved)
    run(clone, "dvc", "remote", "add", "-q", "--default", "new", str(moved))
    files = VersionFiles("tiny-wires@v1", str(clone))
    assert Path(files.place("data/release/manifest.parquet")[1]).is_relative_to(moved)


@pytest.mark.parametrize(("name", "message"), [
    ("tiny-wires@v3", "has no annotated tag tiny-wires-v3; versions there: tiny-wires@v1, tiny-wires@v2"),
    ("wires@v1", "has no annotated tag wires-v1; versions there: tiny-wires@v1"),
])
def test_an_unknown_version_is_one_line(factory: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        open_release(name, str(factory))
    assert "\n" not in str(caught.value)


def test_no_repository_and_no_release_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no git repository, so it has no versions"):
        versions(str(tmp_path))
    with pytest.raises(ValueError, match=r"has no release\.json, so it is no release of cinefab"):
        open_release(str(tmp_path))


def test_the_command_line(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone)
    listed = CliRunner().invoke(app, ["list"]).output.splitlines()
    assert [line.split()[0] for line in listed] == ["tiny-wires@v1", "tiny-wires@v2"]
    assert listed[1].endswith("7 clips released of 10 sampled, others")
    pulled = CliRunner().invoke(app, ["pull", "tiny-wires@v1"]).output.split()
    assert pulled == ["data/releases/tiny-wires-v1"] and (clone / pulled[0] / "release.json").exists()

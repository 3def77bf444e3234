"""The store against plain zarr, against kills and against damage."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import tasks.store
import tasks.tables
from models.clip import UNKNOWN
from tasks import shard_reader
from tasks.store import ArraySpec, ClipStore, clip_digest
from tasks.store_check import verify
from tasks.tables import file_digest

FRAMES, MASKS = ArraySpec((3, 8, 6, 1), "uint8"), ArraySpec((3, 8, 6), "uint8")
SPECS = {"frames": FRAMES, "masks": MASKS}
ROOT = Path(__file__).parents[2]
OPEN_FILES = Path("/proc/self/fd")


def clips(first: int, count: int) -> dict[str, np.ndarray]:
    """Clips first..first+count-1 of an endless sequence; clip 1 is all zero."""
    frames, masks = [], []
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        frames.append(rng.integers(0, 256, FRAMES.shape, dtype=np.uint8) * (number != 1))
        masks.append(rng.integers(0, 3, MASKS.shape, dtype=np.uint8) * (number != 1))
    return {"frames": np.stack(frames), "masks": np.stack(masks)}


def names(first: int, count: int) -> list[str]:
    return [f"clip{number}" for number in range(first, first + count)]


def fill(path: Path, total: int = 10, shard_clips: int = 4, fingerprint: str = "f") -> ClipStore:
    store = ClipStore.create(path, SPECS, shard_clips, fingerprint)
    for shard in range(-(-total // shard_clips)):
        first, count = shard * shard_clips, min(shard_clips, total - shard * shard_clips)
        if shard not in store.done():
            store.write_shard(shard, names(first, count), clips(first, count))
    store.finish(total)
    return store


def tree(path: Path) -> dict[str, str]:
    return {file.relative_to(path).as_posix(): file_digest(file) for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "clips.zarr"
    fill(path)
    return path


def test_plain_zarr_reads_the_same_bytes_and_warns_of_nothing(whole: Path) -> None:
    expected = clips(0, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(whole, mode="r")
        assert {name for name, _ in group.arrays()} == {"frames", "masks"}
        for name, values in expected.items():
            array = group[name]
            assert isinstance(array, zarr.Array)
            assert array.chunks == (1, *SPECS[name].shape) and array.shards == (4, *SPECS[name].shape)
            np.testing.assert_array_equal(array[:], values)
    store = ClipStore.open(whole)
    rows = [9, 0, 1, 1, 5]
    for name, values in store.load(rows).items():
        np.testing.assert_array_equal(values, expected[name][rows])
    assert verify(whole) == []


def test_shard_files_are_those_zarr_writes_itself(tmp_path: Path) -> None:
    """An independent writer: zarr with the store's own metadata fills a second folder."""
    fill(tmp_path / "ours.zarr", total=8)
    for file in (tmp_path / "ours.zarr").rglob("zarr.json"):
        copy = tmp_path / "theirs.zarr" / file.relative_to(tmp_path / "ours.zarr")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    with zarr.config.set({"array.write_empty_chunks": True}):
        group = zarr.open_group(tmp_path / "theirs.zarr", mode="r+")
        for name, values in clips(0, 8).items():
            group[name][:] = values  # type: ignore[index]
    ours = {name: digest for name, digest in tree(tmp_path / "ours.zarr").items() if "commits/0" not in name}
    assert tree(tmp_path / "theirs.zarr") == ours


def test_read_gives_clips_as_models_want_them(whole: Path) -> None:
    store, raw = ClipStore.open(whole), clips(0, 10)
    batch = store.read([7, 2])
    assert batch.ids == batch.condition.ids == ("clip7", "clip2")
    assert batch.frames.shape == (2, 3, 1, 8, 6) and batch.frames.dtype == torch.float32 and batch.frames.is_contiguous()
    for place, row in enumerate([7, 2]):
        np.testing.assert_allclose(batch.frames[place, :, 0].numpy(), raw["frames"][row][..., 0] / 127.5 - 1, atol=1e-6)
        np.testing.assert_array_equal(batch.condition.masks[place].numpy(), raw["masks"][row])
    torch.testing.assert_close(store.conditions([7, 2]).masks, batch.condition.masks, rtol=0, atol=0)


def test_channels_move_to_the_front(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (1, 2, 4, 5, 3), dtype=np.uint8)
    store = ClipStore.create(tmp_path / "rgb.zarr", {"frames": ArraySpec((2, 4, 5, 3), "uint8")}, 1, "f")
    store.write_shard(0, ["a"], {"frames": values})
    store.finish(1)
    batch = store.read([0])
    np.testing.assert_allclose(batch.frames.numpy(), values.transpose(0, 1, 4, 2, 3) / 127.5 - 1, atol=1e-6)
    assert (batch.condition.masks == UNKNOWN).all() and batch.condition.masks.shape == (1, 2, 4, 5)  # a store without masks


def test_subset_is_a_source_of_its_own(whole: Path) -> None:
    store = ClipStore.open(whole)
    subset = store.subset([8, 3, 5])
    assert len(subset) == 3 and subset.ids == ("clip8", "clip3", "clip5")
    torch.testing.assert_close(subset.read([2, 0]).frames, store.read([5, 8]).frames, rtol=0, atol=0)
    with pytest.raises(ValueError, match="10"):
        store.subset([10])


@pytest.mark.parametrize("dtype", ["bool", "int16", "float32", "float64"])
def test_other_dtypes(tmp_path: Path, dtype: str) -> None:
    values = (np.random.default_rng(0).normal(size=(3, 4)) * 100).astype(dtype)
    store = ClipStore.create(tmp_path / "x.zarr", {"x": ArraySpec((4,), dtype)}, 2, "f")
    store.write_shard(0, ["a", "b"], {"x": values[:2]})
    store.write_shard(1, ["c"], {"x": values[2:]})
    store.finish(3)
    np.testing.assert_array_equal(ClipStore.open(store.path).load([2, 0, 1])["x"], values[[2, 0, 1]])
    np.testing.assert_array_equal(zarr.open_group(store.path, mode="r")["x"][:], values)  # type: ignore[index]
    assert verify(store.path) == []


def test_a_shard_without_its_record_does_not_exist(tmp_path: Path) -> None:
    store = ClipStore.create(tmp_path / "clips.zarr", SPECS, 4, "f")
    store.write_shard(1, names(4, 4), clips(4, 4))
    np.testing.assert_array_equal(store.load([5])["frames"][0], clips(5, 1)["frames"][0])
    for row in (0, 3, 8, -1):
        with pytest.raises(ValueError):
            store.load([row])
    (store.path / "commits/00001.json").unlink()
    again = ClipStore.resume(store.path, "f")
    assert again.done() == set()
    with pytest.raises(ValueError, match="no commit record"):
        again.load([5])


def test_only_a_finished_store_opens(tmp_path: Path) -> None:
    path = tmp_path / "clips.zarr"
    with pytest.raises(ValueError, match="no clip store"):
        ClipStore.open(path)
    store = ClipStore.create(path, SPECS, 4, "f")
    store.write_shard(0, names(0, 4), clips(0, 4))
    with pytest.raises(ValueError, match="not finished"):
        ClipStore.open(path)
    assert any("not finished" in problem for problem in verify(path))
    assert zarr.open_group(path, mode="r")["frames"].shape[0] == 0  # type: ignore[union-attr]  # no zeros to be mistaken for clips
    with pytest.raises(ValueError, match="shards 1, 2 of 3 are missing"):
        store.finish(10)
    store.write_shard(2, names(8, 2), clips(8, 2))
    store.write_shard(1, names(4, 3), clips(4, 3))
    with pytest.raises(ValueError, match="must hold 4, but holds 3"):
        store.finish(10)
    store.write_shard(1, names(4, 4), clips(4, 4))
    with pytest.raises(ValueError, match="but 2 exist"):
        store.finish(8)
    store.finish(10)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    store.finish(10)
    ClipStore.create(path, SPECS, 4, "f").finish(10)
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before
    assert ClipStore.open(path).ids == tuple(names(0, 10)) and len(ClipStore.open(path)) == 10


def test_one_id_in_two_shards_is_refused(tmp_path: Path) -> None:
    store = ClipStore.create(tmp_path / "clips.zarr", SPECS, 2, "f")
    store.write_shard(0, ["a", "b"], clips(0, 2))
    store.write_shard(1, ["c", "a"], clips(2, 2))
    with pytest.raises(ValueError, match="clip id a is in shards 0 and 1"):
        store.finish(4)
    with pytest.raises(ValueError, match="twice"):
        store.write_shard(1, ["c", "c"], clips(2, 2))


@pytest.mark.parametrize(
    ("ids", "arrays", "says"),
    [
        (names(0, 5), clips(0, 5), "5 clips"),
        ([], clips(0, 1), "0 clips"),
        (names(0, 2), {"frames": clips(0, 2)["frames"]}, "arrays are"),
        (names(0, 2), clips(0, 3), "but must be"),
        (names(0, 1), {name: value.astype(np.int16) for name, value in clips(0, 1).items()}, "int16"),
    ],
)
def test_a_shard_that_does_not_fit_is_refused(tmp_path: Path, ids: list[str], arrays: dict[str, np.ndarray], says: str) -> None:
    store = ClipStore.create(tmp_path / "clips.zarr", SPECS, 4, "f")
    with pytest.raises(ValueError, match=says):
        store.write_shard(0, ids, arrays)
    assert store.done() == set()


def test_another_fingerprint_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "clips.zarr"
    fill(path, fingerprint="old")
    assert ClipStore.create(path, SPECS, 4, "old").done() == {0, 1, 2}
    new = ClipStore.create(path, SPECS, 4, "new")
    assert new.done() == set() and not list(path.rglob("c.*"))
    with pytest.raises(ValueError, match="not finished"):
        ClipStore.open(path)
    with pytest.raises(ValueError, match="fingerprint new, not old"):
        ClipStore.resume(path, "old")
    fill(path, fingerprint="new")
    fill(tmp_path / "fresh.zarr", fingerprint="new")
    assert tree(path) == tree(tmp_path / "fresh.zarr")


def test_a_record_of_another_fingerprint_does_not_count(tmp_path: Path) -> None:
    fill(tmp_path / "old.zarr", fingerprint="old")
    store = ClipStore.create(tmp_path / "new.zarr", SPECS, 4, "new")
    for name in ("commits/00000.json", "frames/c.0.0.0.0.0", "masks/c.0.0.0.0"):
        shutil.copy(tmp_path / "old.zarr" / name, store.path / name)
    assert store.done() == set()
    with pytest.raises(ValueError, match="old"):
        store.load([0])


def test_another_layout_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "clips.zarr"
    fill(path)
    store = ClipStore.create(path, {"masks": MASKS}, 4, "f")
    assert store.done() == set() and sorted(child.name for child in path.iterdir()) == ["commits", "masks", "zarr.json"]


def test_a_folder_that_is_no_store_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="holds files but no clip store"):
        ClipStore.create(tmp_path, SPECS, 4, "f")
    assert (tmp_path / "thesis.txt").exists()


def test_leftovers_of_a_killed_writer_are_swept(tmp_path: Path) -> None:
    path = tmp_path / "clips.zarr"
    fill(path)
    before = tree(path)
    (path / "frames/.c.7.0.0.0.0.123-4.partial").write_bytes(b"half a shard")
    assert any("partial" in problem for problem in verify(path))
    ClipStore.create(path, SPECS, 4, "f")
    assert tree(path) == before


def test_a_hard_link_into_the_cache_is_never_written_through(tmp_path: Path) -> None:
    path = tmp_path / "clips.zarr"
    store = fill(path)
    cache = tmp_path / "cache"
    cache.mkdir()
    for number, file in enumerate(sorted(file for file in path.rglob("*") if file.is_file())):
        os.link(file, cache / str(number))
        file.chmod(0o444)
    before = tree(cache)
    store.load([2])
    store.write_shard(0, [f"other{number}" for number in range(4)], clips(20, 4))
    store.finish(10)
    assert tree(cache) == before
    np.testing.assert_array_equal(store.load([2])["frames"][0], clips(22, 1)["frames"][0])  # not the old file, still open
    assert verify(path) == []


def test_the_digest_is_of_the_clips_not_of_their_shards(tmp_path: Path, whole: Path) -> None:
    digest = ClipStore.open(whole).digest
    assert fill(tmp_path / "a.zarr", shard_clips=3, fingerprint="g").digest == digest
    assert fill(tmp_path / "b.zarr", total=9).digest != digest


def test_clip_digest_sees_every_part() -> None:
    clip = {name: values[0] for name, values in clips(3, 1).items()}
    flipped = {**clip, "masks": clip["masks"] ^ 1}
    swapped = {"frames": clip["masks"], "masks": clip["frames"]}
    reshaped = {**clip, "masks": clip["masks"].reshape(3, 6, 8)}
    retyped = {**clip, "masks": clip["masks"].view(np.int8)}
    assert len({clip_digest(one) for one in (clip, flipped, swapped, reshaped, retyped)}) == 5
    assert clip_digest({name: np.asfortranarray(clip[name]) for name in ("masks", "frames")}) == clip_digest(clip)


def test_descriptors_stay_bounded_while_threads_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_reader, "OPEN_SHARDS", 2)
    store = fill(tmp_path / "clips.zarr", total=24, shard_clips=2)
    expected, wrong = clips(0, 24)["frames"], []
    descriptors = len(list(OPEN_FILES.iterdir())) if OPEN_FILES.exists() else None

    def read(seed: int) -> None:
        for row in np.random.default_rng(seed).integers(0, 24, 200):
            if not np.array_equal(store.load([int(row)])["frames"][0], expected[row]):
                wrong.append(row)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    if descriptors is not None:
        assert len(list(OPEN_FILES.iterdir())) <= descriptors + 4  # two arrays, two files each


# ---- damage


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_is_found_and_its_file_named(whole: Path, data: st.DataObject) -> None:
    files = sorted(file for file in whole.rglob("*") if file.is_file())
    file = data.draw(st.sampled_from(files))
    content = bytearray(file.read_bytes())
    position = data.draw(st.integers(0, len(content) * 8 - 1))
    original = bytes(content)
    content[position // 8] ^= 1 << position % 8
    file.write_bytes(content)
    try:
        problems = verify(whole)
    finally:
        file.write_bytes(original)
    name = file.relative_to(whole).as_posix()
    assert any(name in problem for problem in problems), (name, problems)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_truncation_is_found_and_never_read(whole: Path, data: st.DataObject) -> None:
    files = sorted(whole.rglob("c.*"))
    file = data.draw(st.sampled_from(files))
    original = file.read_bytes()
    file.write_bytes(original[: data.draw(st.integers(0, len(original) - 1))])
    try:
        problems = verify(whole)
        shard = int(file.name.split(".")[1])
        with pytest.raises(ValueError, match=file.name):
            ClipStore.open(whole).load([shard * 4])
        with tempfile.TemporaryDirectory() as folder:
            again = shutil.copytree(whole, Path(folder) / "clips.zarr")
            assert ClipStore.create(again, SPECS, 4, "f").done() == {0, 1, 2} - {shard}
    finally:
        file.write_bytes(original)
    assert any(file.relative_to(whole).as_posix() in problem for problem in problems)
    assert any(f"clip{shard * 4}" in problem for problem in problems)


def test_a_flipped_pixel_names_its_clip_alone(tmp_path: Path, whole: Path) -> None:
    path = tmp_path / "clips.zarr"
    shutil.copytree(whole, path)
    file = path / "frames/c.1.0.0.0.0"
    content = bytearray(file.read_bytes())
    content[5] ^= 16  # in the first chunk of shard 1
    file.write_bytes(content)
    problems = verify(path)
    assert {problem.split(":")[0] for problem in problems} == {"frames/c.1.0.0.0.0", "clip clip4"}
    store = ClipStore.open(path)
    with pytest.raises(ValueError, match="checksum"):
        store.load([4])
    np.testing.assert_array_equal(store.load([5])["frames"], clips(5, 1)["frames"])


def test_missing_and_foreign_files_are_named(tmp_path: Path, whole: Path) -> None:
    for name in sorted(tree(whole)):
        path = tmp_path / "clips.zarr"
        shutil.copytree(whole, path)
        (path / name).unlink()
        assert any(name in problem for problem in verify(path)), name
        shutil.rmtree(path)
    shutil.copytree(whole, path)
    (path / "frames/c.3.0.0.0.0").write_bytes(b"?")
    assert verify(path) == ["frames/c.3.0.0.0.0: belongs to no shard"]


def test_a_swapped_shard_is_found(tmp_path: Path, whole: Path) -> None:
    """Sound files and a sound record of other clips, made under the same fingerprint."""
    path, other = tmp_path / "clips.zarr", tmp_path / "other.zarr"
    shutil.copytree(whole, path)
    store = ClipStore.create(other, SPECS, 4, "f")
    store.write_shard(0, names(40, 4), clips(40, 4))
    for name in ("commits/00000.json", "frames/c.0.0.0.0.0", "masks/c.0.0.0.0"):
        shutil.copy(other / name, path / name)
    assert any("digest" in problem for problem in verify(path))


def test_what_a_killed_worker_left_is_gone_when_others_have_finished(whole: Path, tmp_path: Path) -> None:
    """A run whose workers are several goes on when one is killed, so that nobody opens the store anew."""
    path = tmp_path / "clips.zarr"
    store = ClipStore.create(path, SPECS, 4, "f")
    for shard in range(3):
        first, count = 4 * shard, min(4, 10 - 4 * shard)
        (path / "masks" / f".c.{shard}.0.0.0.1-1{tasks.tables.PARTIAL}").write_bytes(b"torn")
        store.write_shard(shard, names(first, count), clips(first, count))
    store.finish(10)
    assert tree(path) == tree(whole) and verify(path) == []


def test_a_shard_of_another_place_is_adopted_whole_or_not_at_all(whole: Path, tmp_path: Path) -> None:
    source, path = ClipStore.open(whole), tmp_path / "clips.zarr"
    store = ClipStore.create(path, SPECS, 4, "f")
    for shard in range(3):
        record = source.record(shard)
        contents = {name: (whole / name).read_bytes() for name in record.files}
        name = next(iter(contents))
        for wrong in ({**contents, name: contents[name] + b"x"}, {name: contents[name]}, {**contents, "../stray": b""}):
            with pytest.raises(ValueError, match=f"shard {shard} did not arrive as its record says"):
                store.adopt(record, wrong)
        for other in (replace(record, fingerprint="g"), replace(record, shard=7), replace(record, files={"../stray": "0"})):
            with pytest.raises(ValueError, match="did not arrive"):
                store.adopt(other, contents)
        assert store.done() == set(range(shard))
        store.adopt(record, contents)
    store.finish(10)
    assert tree(path) == tree(whole) and not (tmp_path / "stray").exists()


# ---- kills

KILLER = """
    import os, random, signal, sys, time
    sys.path[:0] = {paths!r}
    from pathlib import Path
    import numpy as np
    from test_store import SPECS, clips, names
    from tasks.store import ClipStore

    def write(path):
        store = ClipStore.create(path, SPECS, 4, "f")
        for shard in range(30):
            if shard not in store.done():
                store.write_shard(shard, names(4 * shard, 4), clips(4 * shard, 4))
        store.finish(120)

    path, rng, counts = Path(sys.argv[1]), random.Random(0), []
    for kill in range(12):
        writer = os.fork()  # of a process that has not used zarr yet, so zarr's own thread starts in the child
        if writer == 0:
            write(path)
            os._exit(0)
        time.sleep(rng.uniform(0, 0.15))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        counts.append(len(list(path.glob("commits/0*.json"))))
    print(*counts)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment_a_store_ends_the_same(tmp_path: Path) -> None:
    path = tmp_path / "clips.zarr"
    script = textwrap.dedent(KILLER).format(paths=[str(ROOT), str(Path(__file__).parent)])
    run = subprocess.run([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True, check=True)
    counts = [int(count) for count in run.stdout.split()]
    assert counts == sorted(counts) and counts[-1] > 0, counts
    killed = ClipStore.create(path, SPECS, 4, "f")
    assert len(killed.done()) == counts[-1]
    for shard in killed.done():  # what is committed is whole
        np.testing.assert_array_equal(killed.load(range(4 * shard, 4 * shard + 4))["frames"], clips(4 * shard, 4)["frames"])
    for resumed in (path, tmp_path / "undisturbed.zarr"):
        fill(resumed, total=120)
    assert tree(path) == tree(tmp_path / "undisturbed.zarr")
    assert verify(path) == []


def test_dying_at_any_write_leaves_no_half_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is written by `atomic_write`: die before the n-th, for every n, where nothing, an old or the same store is."""
    write, path = tasks.store.atomic_write, tmp_path / "clips.zarr"
    fill(tmp_path / "undisturbed.zarr", total=6)
    for old in (None, "old", "f"):
        for deaths in range(100):
            shutil.rmtree(path, ignore_errors=True)
            if old is not None:
                fill(path, total=6, fingerprint=old)
            left = iter(range(deaths))

            def dying(target: Path, content: bytes, left: Iterator[int] = left) -> None:
                if next(left, None) is None:
                    raise KeyboardInterrupt
                write(target, content)

            monkeypatch.setattr(tasks.store, "atomic_write", dying)
            monkeypatch.setattr(tasks.tables, "atomic_write", dying)
            try:
                fill(path, total=6)
                survived = True
            except KeyboardInterrupt:
                survived = False
            monkeypatch.undo()
            try:
                ClipStore.open(path)
            except ValueError:
                assert not survived
            else:
                assert verify(path) == []
            fill(path, total=6)
            assert tree(path) == tree(tmp_path / "undisturbed.zarr")
            if survived:
                break
        assert survived and deaths == (0 if old == "f" else 13)  # 4 zarr.json, 2 shards of 3 files, 3 zarr.json with lengths


def test_dying_while_a_shard_is_rewritten_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, path = tasks.store.atomic_write, tmp_path / "clips.zarr"
    for deaths in range(3):
        store = fill(path, total=6)
        left = iter(range(deaths))

        def dying(target: Path, content: bytes, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            write(target, content)

        monkeypatch.setattr(tasks.store, "atomic_write", dying)
        monkeypatch.setattr(tasks.tables, "atomic_write", dying)
        with pytest.raises(KeyboardInterrupt):
            store.write_shard(1, ["x", "y"], clips(50, 2))
        monkeypatch.undo()
        assert ClipStore.create(path, SPECS, 4, "f").done() == {0}
        with pytest.raises(ValueError, match="no commit record"):
            ClipStore.open(path)


def test_a_shard_of_another_length_than_its_index_says_is_not_done(tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole, tmp_path / "clips.zarr")
    file = tmp_path / "clips.zarr/frames/c.1.0.0.0.0"
    content = file.read_bytes()
    file.write_bytes(content[:10] + content[11:])  # the index, at the end, is sound
    assert ClipStore.create(tmp_path / "clips.zarr", SPECS, 4, "f").done() == {0, 2}


def test_records_are_json_a_stranger_can_read(whole: Path) -> None:
    record = json.loads((whole / "commits/00002.json").read_text())
    store = ClipStore.open(whole)
    assert record["ids"] == ["clip8", "clip9"] and record["digests"] == list(store.digests[8:])
    assert record["files"] == {name: file_digest(whole / name) for name in ("frames/c.2.0.0.0.0", "masks/c.2.0.0.0")}
    rewritten = ClipStore.create(whole, SPECS, 4, "f").write_shard(2, names(8, 2), clips(8, 2))
    assert asdict(rewritten) == {key: value for key, value in record.items() if key != "checksum"}

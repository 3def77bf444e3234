"""Kills, faults, damage and rivals, as many as asked for. Each trial asserts, and returns the numbers of its row."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from tasks.store import ClipStore
from tasks.verify import verify_tree
from tests.trust.bench import FOLDERS, Bench, Line, digests, units

UNFINISHED = re.compile(r"is not finished; run its stage again|\.partial: belongs to no shard|no clip store here")
"""What `verify` may say of a line that was interrupted: that work is left. Anything else would be damage."""

Row = dict[str, Any]


def broken(data: Path) -> list[str]:
    """What `verify` names, beside work that is left; nothing of a folder that is not there yet."""
    return [] if not data.exists() else [problem for problem in verify_tree(data)[1] if not UNFINISHED.search(problem)]


def is_whole(line: Line, data: Path) -> None:
    """Byte for byte the undisturbed line's, no clip lost, none there twice."""
    assert digests(data) == line.files
    assert verify_tree(data)[1] == []
    ids = ClipStore.open(data / "release" / "clips.zarr").ids
    table = pq.read_table(data / "release" / "manifest.parquet")["clip_id"].to_pylist()
    assert list(ids) == table and len(set(ids)) == len(ids)


def kills(bench: Bench, line: Line, folder: Path, count: int, rng: random.Random) -> Row:
    """Whole lines whose process group is killed at uniformly random instants, begun again until they have ended."""
    hit, lines, repeated = 0, 0, Counter[str]()
    worst = 0
    while hit < count:
        data = Path(tempfile.mkdtemp(dir=folder)) / "data"
        job, log, mine = bench.job(line.params, data), data.parent / "work.log", 0
        while True:
            # up to half a line from where it stands: some lines are killed three times, some ten
            result = bench.do_or_kill(job, rng.uniform(0, line.seconds / 2)) if hit < count else bench.do(job)[0]
            assert result["error"] is None, result
            if not result["killed"]:
                break
            hit, mine = hit + 1, mine + 1
            assert broken(data) == []
            with log.open("a") as file:
                file.write("null\n")
        is_whole(line, data)
        lines += 1
        again = repeats(units(log), line)
        worst = max([worst, *(len(some) for some in again)])
        repeated.update(unit[0] for some in again for unit in some)
        assert worst <= 1, again
        surveys = sum(words == ("survey",) for attempt in units(log) for words in attempt) - 1
        repeated["survey"] += surveys
        shutil.rmtree(data.parent)
    return {"runs": hit + lines, "faults": hit, "lines": lines, "repeated": dict(repeated), "most repeated units a kill": worst}


def repeats(attempts: Sequence[Sequence[tuple[Any, ...]]], line: Line) -> list[list[tuple[Any, ...]]]:
    """The units that each attempt began although an earlier one had; steps of a training up to its next save are one."""
    save_every = yaml.safe_load(line.params.read_text())["critics"]["vae"]["train"]["save_every"]
    known: set[tuple[Any, ...]] = set()
    found = []
    for attempt in attempts:
        now = {(*words[:2], words[2] // save_every) if words[0] == "step" else words for words in attempt} - {("survey",)}
        found.append(sorted(now & known, key=str))
        known |= now
    return found


def faults(bench: Bench, line: Line, folder: Path, stage: str, kind: str, share: float, rng: random.Random) -> Row:
    """One stage, once for every n: the n-th thing it does to the disk goes wrong.

    Args:
        share: of all n that are tried, drawn at random; 1 tries every one.
    """
    whole = line.copy(folder, [stage])
    (counted,) = bench.do(bench.job(line.params, whole, [stage], kind="short write" if kind == "short write" else "count"))
    assert counted["error"] is None and digests(whole) == line.files, counted
    total = counted["calls"]
    numbers = list(range(1, total + 1)) if share == 1 else sorted(rng.sample(range(1, total + 1), max(1, round(share * total))))
    ends = Counter[str]()
    shutil.rmtree(whole.parent)
    for nth in numbers:
        data = line.copy(folder, [stage])
        (result,) = bench.do(bench.job(line.params, data, [stage], kind=kind, nth=nth))
        where = stage, kind, nth, result
        assert broken(data / FOLDERS[stage]) == [], where
        if "SIGKILL" in kind:
            assert result["killed"], where
            ends["killed"] += 1
        elif result["error"] is None:  # states and evidence may stay behind, which the next run takes away
            assert outputs(digests(data)) == line.files, where
            ends["unharmed"] += 1
        else:
            assert str(data) in result["error"], where
            assert kind != "short write", where
            if kind == "ENOSPC" and "DiskFullError" in result["error"]:
                assert re.search(r"its disk is full: it needs up to [\d,]+ bytes, [\d,]+ are free", result["error"]), where
            ends["said so"] += 1
        (again,) = bench.do(bench.job(line.params, data, [stage]))
        assert again["error"] is None and digests(data) == line.files, (*where, again)
        shutil.rmtree(data.parent)
    return {"runs": 2 * len(numbers), "faults": len(numbers), "of": total, "ends": dict(ends)}


def outputs(files: dict[str, str]) -> dict[str, str]:
    """Those that are not in hidden folders."""
    return {name: digest for name, digest in files.items() if not any(part.startswith(".") for part in Path(name).parts)}


def damage(bench: Bench, line: Line, folder: Path, count: int, mended: int, rng: random.Random) -> Row:
    """One bit flipped, or the end cut off, in files of a finished line: each kind of file as often as any other.

    Every file is to be named by `verify`; `mended` times its stage runs again, which is to write that file and no other shard.
    """
    data = line.copy(folder)
    kinds: dict[str, list[str]] = {}
    for name in line.files:
        kinds.setdefault(kind_of(name), []).append(name)
    found = Counter[str]()
    for number in range(count):
        kind = sorted(kinds)[number % len(kinds)]
        name = rng.choice(kinds[kind])
        content = (data / name).read_bytes()
        (data / name).unlink()
        (data / name).write_bytes(hurt(content, rng, cut=number // len(kinds) % 2 == 1))
        problems = verify_tree(data / FOLDERS[stage_of(name)])[1]
        store, _, inside = name.rpartition(".zarr/")
        naming = (str(data / f"{store}.zarr"), inside) if store else (str(data / name), "")
        assert any(all(word in one for word in naming) for one in problems), (name, problems)
        found[kind] += 1
        if number < mended:
            made_again(bench, line, data, name)
        else:
            (data / name).write_bytes(content)
    assert verify_tree(data)[1] == []
    return {"runs": mended, "faults": count, "found": dict(sorted(found.items()))}


def made_again(bench: Bench, line: Line, data: Path, name: str) -> None:
    """The stage of a damaged file makes it again, and of the shards only this one."""
    stage, log = stage_of(name), data.parent / "work.log"
    log.unlink(missing_ok=True)
    (result,) = bench.do(bench.job(line.params, data, [stage]))
    assert result["error"] is None and digests(data) == line.files, (name, result)
    if stage in ("prepare", "sample", "release"):
        shards = [words for words in units(log)[0] if words[0] in ("shard", "sample")]
        assert len(shards) == (kind_of(name) in ("shard", "commit record")), (name, shards)


def stage_of(name: str) -> str:
    """Whose file it is."""
    return next(stage for stage, folder in FOLDERS.items() if name.startswith(f"{folder}/"))


def kind_of(name: str) -> str:
    """What sort of file it is."""
    path = Path(name)
    if "/clips.zarr/" in name or "/bank.zarr/" in name:
        return "commit record" if "/commits/0" in name else "store metadata" if path.name == "zarr.json" else "shard"
    if path.parts[0] in ("checkpoints", "critics"):
        return "weights" if path.suffix == ".safetensors" else "checkpoint record"
    return "ledger" if path.name == "ledger.json" else "table" if path.suffix == ".parquet" else "other file"


def hurt(content: bytes, rng: random.Random, cut: bool) -> bytes:
    """A bit of it flipped, or its end missing."""
    if cut:
        return content[: rng.randrange(len(content))]
    place = rng.randrange(8 * len(content))
    return content[: place // 8] + bytes([content[place // 8] ^ 1 << place % 8]) + content[place // 8 + 1 :]


def rivals(bench: Bench, line: Line, folder: Path, stage: str, count: int) -> Row:
    """One stage started twice at once on one data set: both say that it is done, or one says who is in its way."""
    ends = Counter[str]()
    for _ in range(count):
        data = line.copy(folder, [stage])
        results = bench.do(*[bench.job(line.params, data, [stage])] * 2)
        errors = [one["error"] for one in results if one["error"] is not None]
        assert len(errors) < 2 and all(f"{data / FOLDERS[stage]}: another process is writing here" in one for one in errors)
        assert digests(data) == line.files and verify_tree(data)[1] == []
        ends["one was refused" if errors else "one after the other"] += 1
        shutil.rmtree(data.parent)
    return {"runs": 2 * count, "faults": count, "ends": dict(ends)}


def changed(bench: Bench, line: Line, other: Line, folder: Path, wanted: Sequence[str], count: int, rng: random.Random) -> Row:
    """Parameters changed over finished stages, killed on the way, and half of the times changed back: nothing stale stays."""
    back = 0
    for number in range(count):
        data = line.copy(folder)
        killed = bench.do_or_kill(bench.job(other.params, data, wanted), rng.uniform(0, other.seconds))
        assert killed["error"] is None and broken(data) == [], killed
        last = line if number % 2 else other
        back += number % 2
        (result,) = bench.do(bench.job(last.params, data, wanted))
        assert result["error"] is None and digests(data) == last.files, result
        shutil.rmtree(data.parent)
    return {"runs": 2 * count, "faults": count, "changed back": back}


def full_disk(bench: Bench, line: Line, folder: Path, disk: Path, kilobytes: Sequence[int]) -> Row:
    """A line on a disk of its own that is too small for it, again and again with a little more space.

    Args:
        disk: an empty folder; a file system in memory is mounted there.
        kilobytes: its sizes, the last of them enough.
    """
    said = Counter[str]()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes[0]}k", "tmpfs", disk], check=True)
    try:
        for size in kilobytes:
            subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
            (result,) = bench.do(bench.job(line.params, disk / "data"))
            if size == kilobytes[-1]:
                assert result["error"] is None, result
            elif result["error"] is not None:
                assert str(disk / "data") in result["error"] and "\n" not in result["error"], result
                said["named what it needs" if "its disk is full: it needs up to" in result["error"] else "named the file"] += 1
            assert broken(disk / "data") == []
        is_whole(line, disk / "data")
    finally:
        subprocess.run(["umount", disk], check=True)
    assert said["named what it needs"]
    return {"runs": len(kilobytes), "faults": said.total(), "ends": dict(said)}

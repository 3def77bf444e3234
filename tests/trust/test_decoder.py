"""Decoders work in a process of their own: whatever one of them does costs one file, and nothing else."""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

import tasks.readers
from tasks.decoder import decoded
from tasks.find_source import find_source
from tasks.params import DatasetParams, DecoderParams
from tasks.prepare import prepare
from tasks.readers import QuarantinedError, Source, images, phantom
from tasks.records import QuarantineRecord
from tasks.tables import read_table

HOSTILE = '''
import ctypes, os, sys, time
import numpy as np
from pydantic import BaseModel
from tasks.readers import QuarantinedError, Source, Volume

class Params(BaseModel):
    listing: str = ""

def good():
    frames = np.arange(2 * 3 * 4, dtype=">i2").reshape(2, 3, 4, 1)[::-1]
    return Volume(frames, np.ones((2, 3, 4), np.uint8), 40.0, 1.5, ("a", ""), (None, 0.5, 0.25))

def memory():
    kept = []
    while True:
        kept.append(np.empty(2**20))

def write():
    with open(os.environ["CINEFAB_CANARY"], "wb") as file:
        file.write(b"here")

def descriptors():
    kept = [open("/dev/null") for _ in range(1000)]

def raises():
    raise IndexError("Doe^Jane was here")

def refuses():
    raise QuarantinedError("is not nice")

def torch():
    if "torch" in sys.modules:
        raise QuarantinedError("torch is there")
    return good()

def liar():
    return Volume(np.zeros((1, 2, 2, 1), object))

BEHAVIOURS = {
    "crash": lambda: ctypes.string_at(0), "exit": lambda: os._exit(7), "good": good, "hang": lambda: time.sleep(3600),
    "liar": liar, "memory": memory, "descriptors": descriptors, "raises": raises, "refuses": refuses, "torch": torch,
    "write": write,
}

def sources(location, params):
    if params.listing:
        BEHAVIOURS[params.listing]()
    return [Source(name, (), "p", "l", read, "words", "k", "s", {"l": "w"}) for name, read in BEHAVIOURS.items()]
'''


@pytest.fixture(autouse=True)
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more reader, for both processes."""
    (tmp_path / "readers").mkdir()
    (tmp_path / "readers" / "hostile.py").write_text(HOSTILE)
    more = f"tasks.readers.__path__.append({str(tmp_path / 'readers')!r})"
    (tmp_path / "sitecustomize.py").write_text(f"import tasks.readers; {more}")
    monkeypatch.delitem(sys.modules, "tasks.readers.hostile", raising=False)
    monkeypatch.setattr(tasks.readers, "__path__", [*tasks.readers.__path__, str(tmp_path / "readers")])
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("CINEFAB_CANARY", str(tmp_path / "canary"))


def listed(tmp_path: Path, **options: str) -> list[Source]:
    from tasks.readers import hostile  # type: ignore[attr-defined]

    return decoded("hostile", tmp_path, hostile.Params(**options), DecoderParams(memory_gb=0.3, seconds=1))


def test_whatever_a_decoder_does_costs_one_file(tmp_path: Path) -> None:
    found = {source.name: source for source in listed(tmp_path)}
    reasons = {
        "crash": r"its decoder crashed \(SIGSEGV\)", "exit": r"its decoder crashed \(status 7\)",
        "memory": r"takes more memory to decode than dataset\.decoder\.memory_gb", "write": r"\(OSError\)",
        "descriptors": r"\(OSError\)", "hang": r"takes longer to decode than dataset\.decoder\.seconds: 1 s",
        "raises": r"^cannot be decoded \(IndexError\)$", "refuses": "^is not nice$", "liar": "not numbers: object",
    }
    for name, reason in reasons.items():
        with pytest.raises(QuarantinedError, match=reason):
            found[name].read()
        volume = found["torch"].read()
        assert volume.frames.dtype == ">i2"
        np.testing.assert_array_equal(volume.frames[..., 0], np.arange(24).reshape(2, 3, 4)[::-1])
    assert (tmp_path / "canary").read_bytes() == b""
    assert volume.masks is not None and volume.masks.all()
    assert (volume.frame_time_ms, volume.mask_volume, volume.labels) == (40.0, 1.5, ("a", ""))
    assert volume.spacing_mm == (None, 0.5, 0.25)
    one = found["good"]
    assert (one.patient, one.label, one.text, one.key, one.site, one.texts) == ("p", "l", "words", "k", "s", {"l": "w"})


def test_it_ends_with_whoever_asked(tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    found = listed(tmp_path)
    found[2].read()
    own = set(psutil.Process().children(recursive=True)) - before
    assert len(own) == 2
    del found
    gc.collect()
    _, alive = psutil.wait_procs(own, timeout=5)
    assert not alive


@pytest.mark.parametrize(("listing", "said"), [("raises", r"cannot be listed \(IndexError\)"), ("refuses", "is not nice"),
                                              ("crash", "the process that lists its files ended")])
def test_a_listing_that_fails_is_one_line(tmp_path: Path, listing: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        listed(tmp_path, listing=listing)
    assert str(raised.value).startswith(f"dataset.location: {tmp_path}: ")
    assert "Doe" not in str(raised.value)


def test_what_is_computed_is_computed_here() -> None:
    options = phantom.Params(patients=1, clips_per_patient=1, frames=2, size=(16, 16))
    before = len(psutil.Process().children(recursive=True))
    (source,) = decoded("phantom", Path(phantom.__file__), options, DecoderParams())
    assert source.read().frames.shape[:3] == (2, 16, 16)
    assert len(psutil.Process().children(recursive=True)) == before


def pictures(root: Path, patients: int = 6) -> DatasetParams:
    rng = np.random.default_rng(0)
    for patient in range(patients):
        (root / f"p{patient}").mkdir(parents=True)
        for number in range(4):
            Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(root / f"p{patient}" / f"{number}.png")
    return DatasetParams.model_validate({
        "name": "made", "reader": "images", "location": root, "clip_frames": 4, "frame_size": (16, 16),
        "options": {"patient_pattern": "(?P<patient>[a-z]+[0-9]+)"}, "split": {"train": 0.5, "val": 0.2, "test": 0.3}})


def test_pixels_are_those_the_reader_gives_here(tmp_path: Path) -> None:
    tree = pictures(tmp_path / "raw")
    options = images.Params.model_validate(tree.options)
    theirs = decoded("images", tmp_path / "raw", options, tree.decoder)
    for here, there in zip(images.sources(tmp_path / "raw", options), theirs, strict=True):
        assert (here.name, here.files, here.patient) == (there.name, there.files, there.patient)
        np.testing.assert_array_equal(here.read().frames, there.read().frames)


def test_links_that_lead_out_and_what_is_no_file_stay_unread(tmp_path: Path) -> None:
    tree = pictures(tmp_path / "raw")
    secret = tmp_path / "outside" / "s1"
    pictures(secret.parent, 1)
    secret.with_name("p0").rename(secret)
    (tmp_path / "raw" / "linked1").mkdir()
    for number in range(4):
        (tmp_path / "raw" / "linked1" / f"{number}.png").symlink_to(secret / f"{number}.png")
    (tmp_path / "raw" / "inner1").mkdir()
    for number in range(4):  # a link within the folder is none of our business, but the same pixels are
        (tmp_path / "raw" / "inner1" / f"{number}.png").symlink_to(tmp_path / "raw" / "p0" / f"{number}.png")
    opened = time.time() - 3600
    for file in secret.iterdir():
        os.utime(file, (opened, opened))
    prepare(tree, 0, tmp_path / "out")
    refused = read_table(tmp_path / "out" / "quarantine.parquet", QuarantineRecord)
    reasons = {find_source(record.file, tree)[-1].parent.name: record.reason for record in refused}
    assert reasons["linked1"].startswith("leads out of the data set's folder by a link")
    assert reasons["p0"] == f"repeats the pixels of {refused[1].file[:16]}"  # it has the very bytes of inner1
    assert set(reasons) == {"linked1", "p0"}
    assert all(file.stat().st_atime == opened for file in secret.iterdir())


def test_a_file_that_fails_the_second_time_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = pictures(tmp_path / "raw")
    from tasks import prepare as module

    survey = module._survey

    def then_broken(*arguments: object) -> object:
        found = survey(*arguments)  # type: ignore[arg-type]
        (tmp_path / "raw" / "p3" / "1.png").write_bytes(b"now it is broken")
        return found

    monkeypatch.setattr(module, "_survey", then_broken)
    with pytest.raises(ValueError, match=r"^[0-9a-f]{16}: gave 1 clips the first time, but now it .*cannot be read.*again"):
        prepare(tree, 0, tmp_path / "out")

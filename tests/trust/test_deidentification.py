"""Nothing that could tell who somebody is comes out: words planted all over a made DICOM corpus are looked for in every output.

`python tests/trust/test_deidentification.py` writes the table at the end of docs/deidentification.md.
"""

from __future__ import annotations

import base64
import contextlib
import faulthandler
import io
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import nibabel
import numpy as np
import pydicom
import pytest
import yaml
from made_dicom import BOXES, FORMS, NUMBER, REGION, WORD, found_below, found_in, write_corpus
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.datadict import dictionary_description
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels import pixel_array
from pydicom.tag import Tag
from typer.testing import CliRunner

from flows.__main__ import app
from tasks.confidentiality import DUMMIES, EDITION, PATIENT, required, table
from tasks.deidentify import Deidentified, copy_of, deidentify, lines
from tasks.dicom_header import KEPT
from tasks.find_source import find_source
from tasks.params import DatasetParams
from tasks.prepare import prepare
from tasks.pseudonyms import KEY, other_uid, pseudonym
from tasks.records import ClipRecord, QuarantineRecord
from tasks.tables import file_digest, read_table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "deidentification.md"
LEFT_OUT = {
    "burned_in": "says that text is burned into its pixels", "foreign_regions": "has an ultrasound region that is not within",
    "rows_are_text": "cannot be decoded", "interpretation_is_text": "cannot be decoded", "short": "cannot be decoded",
    "no_dicom": "cannot be decoded (InvalidDicomError)", "cut": "has no pixels",
}


@dataclass(frozen=True)
class Made:
    """The corpus, its de-identified copies, and what a run of both commands said."""

    words: list[str]
    files: dict[str, Path]
    root: Path
    out: Path
    found: Deidentified

    def copy(self, kind: str) -> pydicom.FileDataset:
        """The copy of a file."""
        original = pydicom.dcmread(self.files[kind], specific_tags=["SOPInstanceUID"])
        path, = self.out.glob(f"*/{pseudonym(other_uid(original.SOPInstanceUID))}.dcm")
        return pydicom.dcmread(path)


def make(folder: Path) -> Made:
    root = folder / "corpus"
    words, files = write_corpus(root)
    return Made(words, files, root, folder / "clean", deidentify(root, folder / "clean", None))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("deidentified"))


@contextlib.contextmanager
def logged() -> Iterator[io.StringIO]:
    """All that any library logs or warns of meanwhile."""
    stream = io.StringIO()
    handler, root = logging.StreamHandler(stream), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logging.captureWarnings(True)
    try:
        yield stream
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        root.setLevel(before)


def dataset(location: Path, **changed: object) -> DatasetParams:
    base = {"name": "made", "reader": "dicom", "location": location, "clip_frames": 4, "frame_size": (16, 16),
            "near_duplicate": 1.0, "split": {"train": 0.5, "val": 0.2, "test": 0.3}}
    return DatasetParams.model_validate({**base, **changed})


def spelled(made: Made) -> list[str]:
    """The words that the files, or their names, hold as text."""
    content = b"".join(file.read_bytes() + str(file).encode() for file in made.files.values())
    return [word for word in made.words if word.encode() in content]


# --- the words ------------------------------------------------------------------------------------------------------------


def test_the_search_would_find_the_words(made: Made) -> None:
    """Each of those that are there; a few are only drawn into pixels, or were replaced by a later one."""
    assert len(spelled(made)) >= 1000
    assert len(made.words) - len(spelled(made)) <= 2 * len(made.files)
    assert len(found_below(made.root)) == 2 * len(made.files)  # every file, and every folder by its name


def aborting() -> None:
    faulthandler.disable()  # pytest's, which would print a page
    os.abort()


def test_what_a_file_does_to_its_decoder_costs_that_file(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw").mkdir()
    kinds = [kind for kind in made.files if kind not in LEFT_OUT][:5]
    files = {kind: shutil.copy(made.files[kind], tmp_path / "raw" / f"{number}.dcm") for number, kind in enumerate(kinds)}
    digest = {kind: file_digest(Path(file)) for kind, file in files.items()}
    copied, does = copy_of, {digest[kinds[0]]: aborting, digest[kinds[1]]: lambda: time.sleep(60),
                             digest[kinds[2]]: lambda: bytearray(10**12), digest[kinds[3]]: lambda: 1 / 0}

    def hostile(file: Path, own: str, blank: object) -> FileDataset:
        does.get(own, int)()
        return copied(file, own, blank)  # type: ignore[arg-type]

    monkeypatch.setattr("tasks.deidentify.copy_of", hostile)
    monkeypatch.setattr("tasks.limits.SECONDS", 2)
    found = deidentify(tmp_path / "raw", tmp_path / "clean", None)
    reasons = {one.file: one.reason for one in found.left_out}
    assert found.written == 1 and len(reasons) == 4
    ends = ("crashed (SIGABRT)", "takes longer to decode than 2 s", "takes more memory", "crashed (status 1)")
    for kind, end in zip(kinds, ends, strict=False):
        assert end in reasons[digest[kind]]


@pytest.mark.parametrize("disguise", [
    lambda word: word.encode("utf-16-le"), lambda word: word.encode("utf-16-be"), lambda word: word.encode().hex().encode(),
    lambda word: word.lower().encode(),
    *(lambda word, before=before: base64.b64encode(b"x" * before + word.encode()) for before in range(3)),
])
def test_a_word_is_found_in_every_form(disguise: object) -> None:
    for word in (f"{WORD}0007", f"1.2.840.{NUMBER}.7"):
        assert found_in(b"..." + disguise(word) + b"...")  # type: ignore[operator]
    assert not found_in(b"0123456789abcdef" * 8 + b"QZXJ KW 777333")
    assert len(FORMS) == 18


def test_deidentified_copies_hold_no_word(made: Made, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with logged() as log:
        found = deidentify(made.root, tmp_path / "clean", None)
    told = "\n".join([*lines(found), log.getvalue(), *capfd.readouterr()])
    assert not found_in(told.encode())
    assert f"left out: {found.left_out[0].file[:16]} " in told
    assert found_below(tmp_path / "clean") == {}
    assert found.written == len(made.files) - len(LEFT_OUT)
    names = {file_digest(file): kind for kind, file in made.files.items()}
    reasons = {names[one.file]: one.reason for one in found.left_out}
    assert set(reasons) == set(LEFT_OUT)
    assert all(LEFT_OUT[kind] in reason for kind, reason in reasons.items())
    same = {path.relative_to(tmp_path / "clean"): path.read_bytes() for path in (tmp_path / "clean").rglob("*.dcm")}
    assert same == {path.relative_to(made.out): path.read_bytes() for path in made.out.rglob("*.dcm")}


@pytest.mark.parametrize("location", ["corpus", "clean"])
def test_what_prepare_writes_and_says_holds_no_word(made: Made, tmp_path: Path, location: str,
                                                    capfd: pytest.CaptureFixture[str]) -> None:
    where = made.root if location == "corpus" else made.out
    with logged() as log:
        summary = prepare(dataset(where), 0, tmp_path / "out")
    told = "\n".join([log.getvalue(), *capfd.readouterr()])
    assert "survey" in told  # the bar, on standard error
    assert not found_in(told.encode())
    assert found_below(tmp_path / "out") == {}
    assert (summary["sources_used"], summary["quarantined"]) == (8, 7 if location == "corpus" else 0)
    records = read_table(tmp_path / "out" / "manifest.parquet", ClipRecord)
    assert len({record.patient for record in records}) == 8
    if location == "corpus":
        identities = [pydicom.dcmread(made.files[kind]).PatientID for kind in made.files if kind not in LEFT_OUT]
        assert {record.patient for record in records} == {pseudonym(identity) for identity in identities}
        for one in read_table(tmp_path / "out" / "quarantine.parquet", QuarantineRecord):
            assert f"quarantined: {one.file[:16]} " in told
            path, = find_source(one.file[:16], dataset(where))
            assert file_digest(path) == one.file


def test_when_nothing_is_usable_that_is_said_without_a_word(made: Made, tmp_path: Path) -> None:
    broken = tmp_path / made.words[0]
    broken.mkdir()
    shutil.copy(made.files["no_dicom"], broken)
    with pytest.raises(ValueError, match=r"none of 1 files is usable, e.g. [0-9a-f]{16} cannot be decoded") as caught:
        prepare(dataset(tmp_path, options={"folder": "."}), 0, tmp_path.parent / "nothing")
    assert not found_in(str(caught.value).encode())


@pytest.mark.parametrize("reader", ["video", "images", "nifti"])
def test_other_formats_leave_no_word_either(tmp_path: Path, reader: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Names of files and folders, what the files say of themselves, and files that are broken."""
    rng = np.random.default_rng(0)
    for number in range(4):
        name, film = f"{WORD}{number:04d}", rng.integers(0, 255, (8, 16, 16)).astype(np.uint8)
        folder = tmp_path / name / ("scans" if reader == "nifti" else name)
        folder.mkdir(parents=True)
        if reader == "video":
            write_video(folder / f"{name}.mov", film, name)
        for frame, pixels in enumerate(film if reader == "images" else []):
            text = PngInfo()
            text.add_text("Author", name)
            Image.fromarray(pixels).save(folder / f"{name}_{frame}.png", pnginfo=text)
        if reader == "nifti":
            image = nibabel.Nifti1Image(film, np.eye(4))
            image.header["descrip"] = name.encode()
            (tmp_path / "scans").mkdir(exist_ok=True)
            nibabel.save(image, tmp_path / "scans" / f"{name}.nii.gz")
    for file in [file for file in sorted(tmp_path.rglob("*")) if file.is_file() and f"{WORD}0003" in file.name]:
        file.write_bytes(file.read_bytes()[:60] + WORD.encode())
    (tmp_path / "scans").mkdir(exist_ok=True)
    (tmp_path / "scans" / f"{WORD}0004.nii").write_bytes(WORD.encode() * 100)
    options = {"images": "scans", "masks": None} if reader == "nifti" else {}
    with logged() as log:
        summary = prepare(dataset(tmp_path, reader=reader, options=options), 0, tmp_path.with_name(f"{reader}_out"))
    assert summary["sources_used"] == 3 and summary["quarantined"] >= 1
    told = "\n".join([log.getvalue(), *capfd.readouterr()])
    assert "quarantined: " in told and not found_in(told.encode())
    assert found_below(tmp_path.with_name(f"{reader}_out")) == {}


def write_video(path: Path, film: np.ndarray, title: str) -> None:
    with av.open(str(path), "w") as container:
        container.metadata["title"] = title
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for pixels in film:
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="gray")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@pytest.mark.slow
def test_a_stage_under_prefect_and_dvc_leaves_no_word(made: Made, tmp_path: Path) -> None:
    """In the checkout, DVC's files and cache, Prefect's database and all that is printed; DVC's notes of names are private."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("flows", "tasks", "models", "profiles", ".dvc", "dvc.yaml", "params.yaml", ".dvcignore", ".gitignore"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp"))
        else:
            shutil.copy(ROOT / name, folder / name)
    tree = yaml.safe_load((folder / "params.yaml").read_text())
    tree["dataset"] = {**dataset(made.root).model_dump(mode="json"), "options": {}}
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect"),
                   "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1",
                   "PREFECT_LOGGING_TO_API_ENABLED": "true"}
    for name in ("PREFECT_API_URL", "DVC_SITE_CACHE_DIR"):
        environment.pop(name, None)
    done = subprocess.run([sys.executable, "-m", "flows", "run", "prepare"], cwd=folder, env=environment, capture_output=True,
                          timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert b"quarantined: " in done.stdout + done.stderr
    assert not found_in(done.stdout + done.stderr)
    (database,) = (tmp_path / "prefect").glob("*.db")
    assert found_below(tmp_path / "prefect") == {} and database.stat().st_size > 0
    assert (folder / "dvc.lock").exists()
    notes = folder / ".cinefab" / "dvc"
    assert {name for name in found_below(folder) if not (folder / name).is_relative_to(notes)} == set()
    assert notes.stat().st_mode & 0o077 == 0


# --- pixels ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["proper", "odd", "rle", "jpeg", "palette", "monochrome1", "big_endian", "text_for_numbers"])
def test_no_pixel_is_left_outside_of_the_region_and_all_are_inside(made: Made, kind: str) -> None:
    x0, y0, x1, y1 = REGION
    inside = np.zeros((48, 64), bool)
    inside[y0 : y1 + 1, x0 : x1 + 1] = True
    before = pydicom.dcmread(made.files[kind])
    for name in ("CineRate", "RescaleSlope", "SpecificCharacterSet"):
        before.pop(name, None)
    original, copy = pixel_array(before), made.copy(kind)
    if kind == "palette":
        original = pydicom.pixels.apply_color_lut(original, before)
    pixels = pixel_array(copy)
    assert len(np.unique(original[:, ~inside])) > 1  # there was text
    assert len(np.unique(pixels[:, ~inside])) == 1
    np.testing.assert_array_equal(pixels[:, inside], original[:, inside])
    outside = pixels[:, ~inside].ravel()[0]
    assert outside == (0 if copy.SamplesPerPixel == 3 else pixels[:, inside].max() if kind == "monochrome1"
                       else pixels[:, inside].min())


def test_a_recipe_hides_its_boxes_where_a_file_says_nothing(made: Made, tmp_path: Path) -> None:
    shutil.copy(made.files["burned_in"], tmp_path / "a.dcm")
    (tmp_path / "recipe.yaml").write_text(f"blank: {[list(box) for box in BOXES]}")
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "a.dcm").rename(folder / "a.dcm")
    asked = ["deidentify", str(folder), str(tmp_path / "out"), "--recipe", str(tmp_path / "recipe.yaml")]
    done = CliRunner().invoke(app, asked)
    assert (done.exit_code, done.output) == (0, "1 files written, 0 left out\n")
    path, = (tmp_path / "out").rglob("*.dcm")
    copy = pydicom.dcmread(path)
    for x0, y0, x1, y1 in BOXES:
        assert len(np.unique(copy.pixel_array[:, y0:y1, x0:x1])) == 1
    np.testing.assert_array_equal(copy.pixel_array[:, 12:, :56], pydicom.dcmread(folder / "a.dcm").pixel_array[:, 12:, :56])
    assert "BurnedInAnnotation" not in copy


# --- headers --------------------------------------------------------------------------------------------------------------


def became(before: DataElement, after: DataElement | None) -> str:
    """What was done to an attribute, by what is left of it."""
    if after is None:
        return "removed"
    if after.is_empty:
        return "emptied"
    if found_in(str(after.value).encode()) or after.value == before.value:
        return "KEPT"
    if after.VR == "SQ":
        return "items cleaned"
    if after.VR == "UI":
        return "another UID"
    if after.tag in PATIENT:
        return "pseudonym"
    return "dummy value" if str(after.value) == str(DUMMIES[after.VR]) else "ANOTHER VALUE"


MEETS = {"X": {"removed"}, "Z": {"emptied", "dummy value", "pseudonym"}, "D": {"dummy value", "items cleaned", "another UID"},
         "U": {"another UID"}}
MEETS |= {"Z/D": MEETS["Z"] | MEETS["D"], "X/Z": MEETS["X"] | MEETS["Z"], "X/D": MEETS["X"] | MEETS["D"],
          "X/Z/D": MEETS["X"] | MEETS["Z"] | MEETS["D"], "X/Z/U*": {"removed", "emptied", "items cleaned"}}
"""What each action of Table E.1-1 may make of an attribute; Z and D may be a value that says nothing."""


def actions(made: Made) -> list[tuple[str, str, str, str, bool | None]]:
    """Tag, name, required action, what became of it in the corpus and whether that is it; None: it is in no file."""
    before, after = pydicom.dcmread(made.files["proper"]), made.copy("proper")
    rows = []
    for tag, action in sorted(table().items()):
        if tag[0] == 0:
            rows.append((*_named(tag), action, "in no file", None))
            continue
        headers = (before.file_meta, after.file_meta) if tag[0] == 2 else (before, after)
        group = tag[0] + (2 if len(tag) > 2 else 0)
        one = Tag(group, tag[1] + (0x10 if tag[:2] == (0x5000, 0) else 0))
        done = became(headers[0][one], headers[1].get(one))
        rows.append((*_named(tag), action, done, done in MEETS[action]))
    hidden = [element for element in before.iterall() if element.tag.is_private]
    left = [element for element in after.iterall() if element.tag.is_private]
    done = "removed" if hidden and not left else "KEPT"
    rows.append(("(gggg,eeee), gggg odd", "Private attributes, at any depth", "X", done, done == "removed"))
    return rows


def _named(tag: tuple[int, ...]) -> tuple[str, str]:
    if len(tag) > 2:
        group, element = f"{tag[0] >> 8:02x}xx", f"{tag[1]:04x}" if tag[3] else "xxxx"
        name = {(0x5000, 0): "Curve Data"}.get(tag[:2]) or dictionary_description(Tag(tag[0], tag[1]))
        return f"({group},{element})", name
    try:
        return f"({tag[0]:04x},{tag[1]:04x})", dictionary_description(Tag(tag))
    except KeyError:
        return f"({tag[0]:04x},{tag[1]:04x})", "newer than pydicom's dictionary"


def test_every_required_action_is_met(made: Made) -> None:
    found = actions(made)
    assert len(found) == len(table()) + 1 > 650
    assert [row for row in found if row[-1] is False] == []
    assert [row[0] for row in found if row[-1] is None] == ["(0000,1000)", "(0000,1001)"]


def test_what_is_kept_is_in_no_row_of_the_table() -> None:
    """So that keeping it is nothing the standard forbids."""
    assert [name for name in KEPT if required(Tag(name)) is not None] == []


def test_at_any_depth_only_known_attributes_are_left(made: Made) -> None:
    for path in made.out.rglob("*.dcm"):
        copy = pydicom.dcmread(path)
        assert copy.preamble == bytes(128)
        assert {element.keyword for element in copy.file_meta} == {
            "FileMetaInformationGroupLength", "FileMetaInformationVersion", "MediaStorageSOPClassUID",
            "MediaStorageSOPInstanceUID", "TransferSyntaxUID", "ImplementationClassUID", "ImplementationVersionName"}
        assert copy.file_meta.MediaStorageSOPInstanceUID == copy.SOPInstanceUID
        for element in copy.SequenceOfUltrasoundRegions[0]:
            assert element.keyword in KEPT or required(element.tag) is not None
        assert copy.PatientIdentityRemoved == "YES"
        assert copy.LongitudinalTemporalInformationModified == "REMOVED"
        assert copy.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert copy.get("BurnedInAnnotation") != "YES"
        assert copy.PatientID == copy.PatientName == path.parent.name
        for name in ("StudyDate", "AccessionNumber", "ReferringPhysicianName", "PatientBirthDate", "Manufacturer"):
            assert name in copy


def test_copies_have_what_an_ultrasound_cine_must_have(made: Made) -> None:
    """Every attribute of type 1 or 2 in the mandatory modules, those of type 1 with a value, by highdicom's tables."""
    standard = pytest.importorskip("highdicom._standard_utils")
    modules, attributes = standard.get_iod_module_map(), standard.get_module_attribute_map()
    for path in made.out.rglob("*.dcm"):
        copy = pydicom.dcmread(path)
        wanted = [(one["keyword"], one["type"]) for module in modules["ultrasound-multi-frame-image"] if module["usage"] == "M"
                  for one in attributes[module["key"]] if not one["path"] and one["type"] in ("1", "2")]
        assert len(wanted) > 25
        assert [name for name, kind in wanted if name not in copy or (kind == "1" and copy[name].is_empty)] == []


def test_references_between_files_still_meet(tmp_path: Path) -> None:
    files = write_corpus(tmp_path / "corpus")[1]
    first, second = (pydicom.dcmread(files[kind]) for kind in ("rle", "big_endian"))
    second.StudyInstanceUID, second.PatientID = first.StudyInstanceUID, first.PatientID
    item = Dataset()
    item.ReferencedSOPInstanceUID, item.ReferencedSOPClassUID = first.SOPInstanceUID, first.SOPClassUID
    second.SourceImageSequence = [item]
    folder = tmp_path / "two"
    folder.mkdir()
    first.save_as(folder / "1.dcm")
    second.save_as(folder / "2.dcm")
    assert deidentify(folder, tmp_path / "out", None).written == 2
    copies = {path.stem: pydicom.dcmread(path) for path in (tmp_path / "out").rglob("*.dcm")}
    one, two = (copies[pseudonym(other_uid(header.SOPInstanceUID))] for header in (first, second))
    assert one.PatientID == two.PatientID == pseudonym(first.PatientID)
    assert one.StudyInstanceUID == two.StudyInstanceUID != first.StudyInstanceUID
    assert one.SeriesInstanceUID != two.SeriesInstanceUID
    assert two.SourceImageSequence[0].ReferencedSOPInstanceUID == one.SOPInstanceUID
    (tmp_path / "out2").mkdir()
    (tmp_path / "out2" / "x").write_text("x")
    with pytest.raises(ValueError, match="holds something that nobody has cleaned"):
        deidentify(folder, tmp_path / "out2", None)
    with pytest.raises(ValueError, match="whose files are not clean"):
        deidentify(folder, folder / "clean", None)


# --- the page -------------------------------------------------------------------------------------------------------------

HEADING = "## PS3.15 actions supported\n"
ABOUT = f"""
Table E.1-1, edition {EDITION}, basic profile, from [dicom-anonymizer](https://github.com/KitwareMedical/dicom-anonymizer)
(BSD-3), which has it from the standard. Its own engine is not used: it acts on the outermost data set alone, so that words in
items of ultrasound regions stayed in our corpus, and its UIDs are random. Where the table leaves a choice to an object's
definition (X/Z, X/D, ...), the attribute stays, empty or with a value that says nothing.

D: a dummy value. Z: empty, or a dummy value. X: removed. U: another UID, the same one everywhere.
"""


def section(made: Made) -> str:
    """The end of docs/deidentification.md."""
    rows = actions(made)
    met, judged = sum(row[-1] is True for row in rows), sum(row[-1] is not None for row in rows)
    kinds = Counter(row[2] for row in rows if row[-1] is not None)
    fine = Counter(row[2] for row in rows if row[-1])
    counts = [f"| {kind} | {number} | {fine[kind]} |" for kind, number in sorted(kinds.items())]
    body = [f"| `{tag}` | {name} | {action} | {done} | {'' if ok is None else 'yes' if ok else 'NO'} |"
            for tag, name, action, done, ok in rows]
    return "\n".join([
        f"{HEADING}{ABOUT}",
        f"**{met} of {judged} required actions are met** ({met / judged:.1%}) in `cinefab deidentify`'s copy of a file that",
        f"has every attribute of the table. {len(spelled(made)):,} words were planted in {len(made.files)} files, in items of",
        "sequences, private attributes and names too; none is found in any output.", "",
        "| action | attributes | met |", "|---|---|---|", *counts, "",
        "| attribute | name | required | what is done | met |", "|---|---|---|---|---|", *body, "",
    ])


def test_the_page_is_what_this_file_writes(made: Made) -> None:
    text, heading, _ = PAGE.read_text().partition(HEADING)
    assert heading and PAGE.read_text() == text + section(made), "run python tests/trust/test_deidentification.py"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.environ[KEY] = str(Path(scratch) / "key")
        PAGE.write_text(PAGE.read_text().partition(HEADING)[0] + section(make(Path(scratch))))

"""Readers of public data sets on tiny files in their owners' layout: labels, patients, words and frames are what they wrote."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import nibabel
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from models import plugin
from models.clip import UNKNOWN
from tasks.params import DatasetParams
from tasks.prepare import prepare
from tasks.readers import QuarantinedError, Source, acdc, mosmed, mrnet, sar_rarp50, tusc
from tasks.records import ClipRecord, QuarantineRecord
from tasks.split import check_no_leak
from tasks.tables import read_table
from tasks.ti_rads import sentence

needs_h5py = pytest.mark.skipif(not importlib.util.find_spec("h5py"), reason="h5py, of the extra hdf5, is not installed")


def by_name(found: list[Source]) -> dict[str, Source]:
    names = [source.name for source in found]
    assert names == sorted(set(names))
    return dict(zip(names, found, strict=True))


def refused(source: Source, reason: str) -> None:
    with pytest.raises(QuarantinedError, match=reason):
        source.read()


def prepared(reader: str, location: Path, out: Path, options: dict[str, Any],
             **changed: Any) -> tuple[list[ClipRecord], dict[str, str]]:
    """The manifest of a tiny data set, and reason by file of the quarantine; nothing leaks and every split has clips."""
    base = {"name": reader, "reader": reader, "location": location, "options": options, "clip_frames": 4,
            "frame_size": (16, 16), "split": {"train": 0.4, "val": 0.3, "test": 0.3}}
    prepare(DatasetParams.model_validate({**base, **changed}), 3, out)
    records = read_table(out / "manifest.parquet", ClipRecord)
    check_no_leak(records)
    assert {record.split for record in records} == {"train", "val", "test"}
    module = plugin.load("tasks.readers", reader)
    names = {one.digest(): one.name for one in module.sources(location, module.Params.model_validate(options))}
    return records, {names[record.file]: record.reason for record in read_table(out / "quarantine.parquet", QuarantineRecord)}


def save(path: Path, voxels: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    return voxels


def shown(voxels: np.ndarray) -> np.ndarray:
    """(X, Y, F) as the frames that a reader ought to give: (F, H, W), the second axis upwards."""
    return np.stack([np.flipud(voxels[..., number].T) for number in range(voxels.shape[-1])])


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


# --- ACDC ----------------------------------------------------------------------------------------------------------------


def write_acdc(root: Path, number: int, group: str, es: int = 3, part: str = "training") -> tuple[np.ndarray, np.ndarray]:
    """The cine (X, Y, Z, T) of a patient and the labels of its two annotated frames (2, X, Y, Z)."""
    rng, name = np.random.default_rng(number), f"patient{number:03d}"
    cine = rng.integers(0, 900, (14, 12, 6, 5)).astype(np.int16)
    labels = rng.integers(0, 4, (2, 14, 12, 6)).astype(np.uint8)
    folder = root / part / name
    save(folder / f"{name}_4d.nii.gz", cine)
    for frame, truth in zip((1, es), labels, strict=True):
        save(folder / f"{name}_frame{frame:02d}.nii.gz", cine[..., (frame - 1) % 5])
        save(folder / f"{name}_frame{frame:02d}_gt.nii.gz", truth)
    (folder / "Info.cfg").write_text(f"ED: 1\nES: {es}\nGroup: {group}\nHeight: 184.0\nNbFrame: 5\nWeight: 95.0\n")
    return cine, labels


def test_acdc_slices_of_both_phases_and_the_cine_of_a_slice(tmp_path: Path) -> None:
    cine, labels = write_acdc(tmp_path, 1, "DCM")
    write_acdc(tmp_path, 101, "RV", part="testing")
    found = by_name(acdc.sources(tmp_path, acdc.Params()))
    assert [(name, one.patient, one.label, one.text) for name, one in found.items()] == [
        ("testing/patient101/ED", "patient101", "RV", ""), ("testing/patient101/ES", "patient101", "RV", ""),
        ("training/patient001/ED", "patient001", "DCM", ""), ("training/patient001/ES", "patient001", "DCM", ""),
    ]
    for phase, frame, truth in (("ED", 0, labels[0]), ("ES", 2, labels[1])):
        volume = found[f"training/patient001/{phase}"].read()
        np.testing.assert_array_equal(volume.frames[..., 0], shown(cine[..., frame]))
        np.testing.assert_array_equal(volume.masks, shown(truth))

    options = {"parts": ["training"], "clip": "cine", "slice": 4, "classes": {"DCM": "dilated"}}
    (name, source), = by_name(acdc.sources(tmp_path, acdc.Params.model_validate(options))).items()
    assert (name, source.patient, source.label) == ("training/patient001/cine", "patient001", "dilated")
    volume = source.read()
    np.testing.assert_array_equal(volume.frames[..., 0], shown(cine[:, :, 4]))
    assert volume.masks is not None
    np.testing.assert_array_equal(volume.masks[[0, 2]], shown(np.moveaxis(labels[..., 4], 0, -1)))
    assert (volume.masks[[1, 3, 4]] == UNKNOWN).all()
    middle = acdc.sources(tmp_path, acdc.Params.model_validate({**options, "slice": None, "masks": False}))[0].read()
    np.testing.assert_array_equal(middle.frames[..., 0], shown(cine[:, :, 3]))
    assert middle.masks is None


def test_acdc_files_that_cannot_be_used(tmp_path: Path) -> None:
    for number in range(1, 8):
        write_acdc(tmp_path, number, "NOR", es=9 if number == 6 else 3)
    folder = {number: tmp_path / "training" / f"patient{number:03d}" for number in range(1, 8)}
    halve(folder[1] / "patient001_frame01.nii.gz")
    (folder[2] / "patient002_frame01.nii.gz").unlink()
    (folder[3] / "Info.cfg").write_text("Group: NOR\nES: 3\n")
    save(folder[4] / "patient004_frame01_gt.nii.gz", np.zeros((2, 2, 2), np.uint8))
    save(folder[5] / "patient005_4d.nii.gz", np.zeros((4, 4, 4), np.int16))
    (folder[7] / "patient007_frame01_gt.nii.gz").unlink()
    found = by_name(acdc.sources(tmp_path, acdc.Params()))
    refused(found["training/patient001/ED"], "cannot be read")
    refused(found["training/patient002/ED"], r"lacks a file that Info\.cfg speaks of")
    refused(found["training/patient003/ED"], r"has no frame of ED in Info\.cfg")
    refused(found["training/patient004/ED"], r"mask is \(2, 2, 2\), image is \(14, 12, 6\)")
    assert found["training/patient007/ED"].read().masks is None
    assert all(found[f"training/patient00{number}/ES"].read().masks is not None for number in (1, 2, 3, 4, 5, 7))
    cines = by_name(acdc.sources(tmp_path, acdc.Params(clip="cine")))
    refused(cines["training/patient005/cine"], "has 3 dimensions, but a cine has 4")
    refused(cines["training/patient006/cine"], r"has 5 frames, but Info\.cfg names frame 9")
    deep = by_name(acdc.sources(tmp_path, acdc.Params(clip="cine", slice=6)))
    refused(deep["training/patient001/cine"], "has no slice 6, only 6")


def test_acdc_prepared(tmp_path: Path) -> None:
    groups = ["NOR", "MINF", "DCM", "HCM", "RV", "NOR"]
    for number, group in enumerate(groups, 1):
        write_acdc(tmp_path / "acdc", number, group)
    halve(tmp_path / "acdc/training/patient002/patient002_frame03.nii.gz")
    records, quarantine = prepared("acdc", tmp_path / "acdc", tmp_path / "out", {}, classes=["rv", "myocardium", "lv"])
    assert {record.patient: record.label for record in records} == {
        f"patient{number:03d}": group for number, group in enumerate(groups, 1)}
    assert len(records) == 2 * len(groups) - 1
    assert list(quarantine) == ["training/patient002/ES"]


# --- MosMedData ----------------------------------------------------------------------------------------------------------


def write_mosmed(root: Path, number: int, degree: int) -> np.ndarray:
    voxels = np.random.default_rng(number).integers(-2048, 1500, (14, 12, 6)).astype(np.int16)
    return save(root / "studies" / f"CT-{degree}" / f"study_{number:04d}.nii.gz", voxels)


def test_mosmed_degrees_masks_and_hounsfield_units(tmp_path: Path) -> None:
    write_mosmed(tmp_path, 1, 0)
    voxels = write_mosmed(tmp_path, 255, 1)
    write_mosmed(tmp_path, 1100, 4)
    (tmp_path / "studies" / "CT-1" / "._study_0256.nii.gz").write_text("what macOS leaves behind")
    mask = save(tmp_path / "masks" / "study_0255_mask.nii.gz", (voxels > 0).astype(np.uint8))
    merge = {"classes": {"CT-2": "CT-234", "CT-3": "CT-234", "CT-4": "CT-234"}}
    found = by_name(mosmed.sources(tmp_path, mosmed.Params.model_validate(merge)))
    assert [(name, one.patient, one.label) for name, one in found.items()] == [
        ("studies/CT-0/study_0001.nii.gz", "study_0001", "CT-0"),
        ("studies/CT-1/study_0255.nii.gz", "study_0255", "CT-1"),
        ("studies/CT-4/study_1100.nii.gz", "study_1100", "CT-234"),
    ]
    masked = found["studies/CT-1/study_0255.nii.gz"]
    assert len(masked.files) == 2
    volume = masked.read()
    np.testing.assert_array_equal(volume.frames[..., 0], shown(voxels.clip(-1000, 400)))
    np.testing.assert_array_equal(volume.masks, shown(mask))
    assert found["studies/CT-0/study_0001.nii.gz"].read().masks is None
    plain = mosmed.sources(tmp_path, mosmed.Params(hounsfield=None, masks=False))[1].read()
    np.testing.assert_array_equal(plain.frames[..., 0], shown(voxels))
    assert plain.masks is None
    with pytest.raises(ValidationError, match="CT-5"):
        mosmed.Params.model_validate({"classes": {"CT-5": "x"}})


def test_mosmed_prepared(tmp_path: Path) -> None:
    for number in range(1, 9):
        write_mosmed(tmp_path / "mosmed", number, number % 5)
    studies = tmp_path / "mosmed" / "studies"
    halve(studies / "CT-1" / "study_0001.nii.gz")
    save(studies / "CT-2" / "study_0002.nii.gz", np.zeros((4, 4, 4, 2), np.int16))
    records, quarantine = prepared("mosmed", tmp_path / "mosmed", tmp_path / "out", {"classes": {"CT-4": "CT-3"}},
                                   window=(0, 100))
    assert {record.patient: record.label for record in records} == {
        "study_0003": "CT-3", "study_0004": "CT-3", "study_0005": "CT-0", "study_0006": "CT-1", "study_0007": "CT-2",
        "study_0008": "CT-3"}
    assert "cannot be read" in quarantine["studies/CT-1/study_0001.nii.gz"]
    assert quarantine["studies/CT-2/study_0002.nii.gz"] == "has 4 dimensions, but a volume has 3"


# --- MRNet ---------------------------------------------------------------------------------------------------------------


def write_mrnet(root: Path, part: str, exams: dict[str, str], plane: str = "sagittal",
                task: str = "acl") -> dict[str, np.ndarray]:
    """Exams with their labels; returns their volumes (F, H, W)."""
    folder = root / part / plane
    folder.mkdir(parents=True, exist_ok=True)
    volumes = {}
    for exam in exams:
        volumes[exam] = np.random.default_rng(int(exam)).integers(0, 256, (5, 16, 16), dtype=np.uint8)
        np.save(folder / f"{exam}.npy", volumes[exam])
    (root / f"{part}-{task}.csv").write_text("".join(f"{exam},{label}\n" for exam, label in exams.items()))
    return volumes


def test_mrnet_tasks_planes_and_parts(tmp_path: Path) -> None:
    volumes = write_mrnet(tmp_path, "train", {"0000": "1", "0001": "0"})
    write_mrnet(tmp_path, "valid", {"1130": "0"})
    axial = write_mrnet(tmp_path, "train", {"0000": "0"}, "axial", "meniscus")
    found = by_name(mrnet.sources(tmp_path, mrnet.Params.model_validate({"classes": {"1": "tear"}})))
    assert [(name, one.patient, one.label) for name, one in found.items()] == [
        ("train/sagittal/0000.npy", "0000", "tear"), ("train/sagittal/0001.npy", "0001", "0"),
        ("valid/sagittal/1130.npy", "1130", "0"),
    ]
    np.testing.assert_array_equal(found["train/sagittal/0001.npy"].read().frames[..., 0], volumes["0001"])
    other = mrnet.Params.model_validate({"task": "meniscus", "plane": "axial", "parts": ["train"]})
    (name, source), = by_name(mrnet.sources(tmp_path, other)).items()
    assert (name, source.label) == ("train/axial/0000.npy", "0")
    np.testing.assert_array_equal(source.read().frames[..., 0], axial["0000"])
    with pytest.raises(ValueError, match=r"train-abnormal\.csv does not exist"):
        mrnet.sources(tmp_path, mrnet.Params(task="abnormal"))
    with pytest.raises(ValidationError, match="task"):
        mrnet.Params.model_validate({"task": "pcl"})


def test_mrnet_prepared_without_what_is_broken(tmp_path: Path) -> None:
    root = tmp_path / "mrnet"
    write_mrnet(root, "train", {f"{number:04d}": str(number % 2) for number in range(11)})
    write_mrnet(root, "valid", {"1130": "1"})
    folder = root / "train" / "sagittal"
    halve(folder / "0000.npy")
    np.save(folder / "0001.npy", np.zeros((16, 16), np.uint8))
    np.save(folder / "0002.npy", np.array([print, "code"], object), allow_pickle=True)
    np.lib.format.open_memmap(folder / "0003.npy", "w+", np.uint8, (2**13 + 1, 256, 256))  # a sparse file
    with (folder / "0004.npy").open("wb") as file:
        np.savez(file, volume=np.zeros((5, 16, 16), np.uint8))
    np.save(folder / "0999.npy", np.random.default_rng(9).integers(0, 256, (5, 16, 16), dtype=np.uint8))
    records, quarantine = prepared("mrnet", root, tmp_path / "out", {})
    assert {record.patient: record.label for record in records} == {
        "0005": "1", "0006": "0", "0007": "1", "0008": "0", "0009": "1", "0010": "0", "1130": "1"}
    reasons = {"0000": "cannot be read", "0001": "has 2 dimensions, but an exam has 3", "0002": "cannot be read",
               "0003": "declares 536936448 values, more than 536870912", "0004": "is not an array of numbers",
               "0999": "is not in train-acl.csv"}
    assert {Path(file).stem for file in quarantine} == set(reasons)
    for file, reason in quarantine.items():
        assert reasons[Path(file).stem] in reason


# --- Stanford Thyroid Ultrasound Cine-clip -------------------------------------------------------------------------------

HEADER = ("annot_id,age,sex,location,size_x,size_y,size_z,ti-rads_composition,ti-rads_echogenicity,ti-rads_shape,"
          "ti-rads_margin,ti-rads_echogenicfoci,ti-rads_level,histopath_diagnosis")


def write_tusc(root: Path, rows: list[str],
               frames: dict[str, list[int]]) -> tuple[np.ndarray, np.ndarray, list[tuple[str, int]]]:
    """`rows` without location and sizes, frame numbers by annot_id; returns images, masks and their (annot_id, frame_num)."""
    import h5py

    root.mkdir(parents=True, exist_ok=True)
    lines = [",".join([*row.split(",")[:3], "right", "1.1", "2.2", "3.3", *row.split(",")[3:]]) for row in rows]
    (root / "metadata.csv").write_text("\n".join([HEADER, *lines]))
    index = [(nodule, number) for nodule, numbers in frames.items() for number in numbers]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (len(index), 16, 18), dtype=np.uint8)
    masks = rng.choice(np.array([0, 3, 250, 255], np.uint8), images.shape)  # the owners' are not all 0 and 255
    with h5py.File(root / "dataset.hdf5", "w") as file:
        file["image"], file["mask"] = images, masks
        text = h5py.string_dtype()  # both are text, of variable length
        file.create_dataset("annot_id", data=[nodule for nodule, _ in index], dtype=text)
        file.create_dataset("frame_num", data=[str(number) for _, number in index], dtype=text)
    return images, masks, index


@needs_h5py
def test_tusc_words_classes_patients_and_frames_in_time(tmp_path: Path) -> None:
    rows = ["8_,51,Female,0,0,0,0,0,1,0", "9_,51,Female,2,2,3,2,3,5,1", "10_,51,Male,1,1,0,0,0,3,0",
            "11_,62,Male,2,3,0,3,1,4.0,1"]
    numbers = {"9_": [12, 10, 11, 9, 1], "10_": [1, 2], "11_": [1]}
    images, masks, index = write_tusc(tmp_path, rows, numbers)
    found = by_name(tusc.sources(tmp_path, tusc.Params()))
    assert {name: (one.label, one.text) for name, one in found.items()} == {
        "dataset.hdf5/10": ("TR2-3", "The nodule is mixed cystic and solid, isoechoic, wider-than-tall, and smooth."),
        "dataset.hdf5/11": ("TR4", "The nodule is solid, very hypoechoic, wider-than-tall, extra-thyroidal extension, "
                                   "and macrocalcifications."),
        "dataset.hdf5/8": (None, "The nodule is cystic or spongiform, anechoic, wider-than-tall, and smooth."),
        "dataset.hdf5/9": ("TR5", "The nodule is solid, hypoechoic, taller-than-wide, irregular, "
                                  "and punctate echogenic foci."),
    }
    patients = {name.rpartition("/")[2]: one.patient for name, one in found.items()}
    assert patients["8"] == patients["9"]
    assert len(set(patients.values())) == 3
    assert not {"51", "Female"} & set(patients.values())
    volume = found["dataset.hdf5/9"].read()
    order = [index.index(("9_", number)) for number in (9, 10, 11, 12)]  # frame 1 lies before a gap
    np.testing.assert_array_equal(volume.frames[..., 0], images[order])
    np.testing.assert_array_equal(volume.masks, masks[order] > 128)
    assert len({source.digest() for source in found.values()}) == 4

    options = {"label_column": "histopath_diagnosis", "classes": {"0": "benign", "1": "malignant"}, "patient_columns": [],
               "masks": False}
    other = by_name(tusc.sources(tmp_path, tusc.Params.model_validate(options)))
    assert [(one.patient, one.label) for one in other.values()] == [
        ("10", "benign"), ("11", "malignant"), ("8", "benign"), ("9", "malignant")]
    assert other["dataset.hdf5/9"].read().masks is None


@needs_h5py
def test_tusc_prepared_without_what_is_broken(tmp_path: Path) -> None:
    rows = [f"{number}_,{30 + number // 2},Female,2,2,0,0,0,{2 + number % 4},0" for number in range(8)]
    rows += ["20_,40,Male,0,0,0,0,0,1,0", "21_,,Male,2,2,0,0,0,4,0", "22_,41,Male,2,2,0,0,0,4,0", "23_,42,Male,2,2,0,0,0,4,0"]
    nodules = [row.split(",")[0] for row in rows if not row.startswith("22_")]
    write_tusc(tmp_path / "tusc", rows, {nodule: [1] if nodule == "23_" else [1, 2, 3, 4] for nodule in nodules})
    records, quarantine = prepared("tusc", tmp_path / "tusc", tmp_path / "out", {}, classes=["nodule"])
    assert len(records) == 8
    assert len({record.patient for record in records}) == 4
    assert sorted(record.label or "" for record in records) == ["TR2-3"] * 4 + ["TR4"] * 2 + ["TR5"] * 2
    assert all(record.annotated for record in records)
    assert quarantine == {
        "dataset.hdf5/20": "has no class: ti-rads_level is 1",
        "dataset.hdf5/21": "has no age or sex to tell its patient by",
        "dataset.hdf5/22": "has no frames in dataset.hdf5",
        "dataset.hdf5/23": "has 1 frames, 1 of a clip's 4 at stride 1; half is the least",
    }


@needs_h5py
def test_tusc_files_that_cannot_be_used(tmp_path: Path) -> None:
    import h5py

    row, numbers = "1_,50,Male,2,2,0,0,0,4,0", {"1_": [1, 2]}
    write_tusc(tmp_path, [row], numbers)
    data = tmp_path / "dataset.hdf5"
    with h5py.File(data, "a") as file:
        del file["mask"]
        file["mask"] = np.zeros((2, 3, 3), np.uint8)
    refused(tusc.sources(tmp_path, tusc.Params())[0], r"images are \(2, 16, 18\), masks are \(2, 3, 3\)")
    with h5py.File(data, "a") as file:
        del file["mask"], file["image"]
        for name in ("image", "mask"):  # declared, never written
            file.create_dataset(name, (2, 2**15, 2**14), np.uint8, chunks=(1, 256, 256))
    refused(tusc.sources(tmp_path, tusc.Params())[0], "declares 1073741824 values, more than 536870912")
    with h5py.File(data, "a") as file:
        del file["mask"]
    refused(tusc.sources(tmp_path, tusc.Params())[0], r"cannot be read \(KeyError\)")
    halve(data)
    refused(tusc.sources(tmp_path, tusc.Params())[0], r"cannot be read \(OSError\)")
    (tmp_path / "metadata.csv").write_text("annot_id,age,sex\n1_,50,Male\n")
    with pytest.raises(ValueError, match="has no column ti-rads_level, ti-rads_composition"):
        tusc.sources(tmp_path, tusc.Params())
    data.unlink()
    with pytest.raises(ValueError, match=r"dataset\.hdf5 does not exist"):
        tusc.sources(tmp_path, tusc.Params())


def test_without_h5py_one_line_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text(HEADER)
    (tmp_path / "dataset.hdf5").write_bytes(b"")
    code = ("import sys; sys.modules['h5py'] = None; from pathlib import Path; from tasks.readers import tusc; "
            f"tusc.sources(Path({str(tmp_path)!r}), tusc.Params())")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert ended.stderr.splitlines()[-1] == (
        "ValueError: dataset.reader: tusc reads HDF5 with h5py; install it with pip install 'cinefab[hdf5]'")


def test_the_sentence_leaves_out_what_is_not_known() -> None:
    row = {"ti-rads_composition": "", "ti-rads_echogenicity": "9", "ti-rads_shape": "3", "ti-rads_margin": "",
           "ti-rads_echogenicfoci": "4"}
    assert sentence(row) == "The nodule is taller-than-wide, and macrocalcifications with punctate echogenic foci."
    assert sentence({**row, "ti-rads_echogenicfoci": "0"}) == "The nodule is taller-than-wide."
    assert sentence(dict.fromkeys(row, "")) == ""


def sar_rarp50_video(folder: Path, shade: int, frames: int = 60, rate: int = 60) -> None:
    """An AVI whose pattern grows brighter, actions every sixth frame, and labels of instruments once in 30 frames."""
    folder.mkdir(parents=True)
    pattern = np.kron(np.random.default_rng(shade).integers(-10, 50, (4, 8, 1)), np.ones((8, 8, 1)))
    with av.open(str(folder / "video_left.avi"), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for number in range(frames):
            picture = np.broadcast_to(pattern + shade + 2 * number, (32, 64, 3)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")))
        container.mux(stream.encode())
    lines = [f"{number:09d},{1 if number < 30 else 6}" for number in range(0, frames, 6)]
    (folder / "action_discrete.txt").write_text("\n".join(lines) + "\n")
    (folder / "segmentation").mkdir()
    for number in (0, 30):
        labels = np.zeros((32, 64), np.uint8)
        labels[:16] = 3 if number else 1
        Image.fromarray(labels).save(folder / "segmentation" / f"{number:09d}.png")


def test_sar_rarp50(tmp_path: Path) -> None:
    sar_rarp50_video(tmp_path / "train1/video_01", 10)
    sar_rarp50_video(tmp_path / "train1/video_11_1", 40)
    sar_rarp50_video(tmp_path / "test/video_11_2", 80)
    found = by_name(sar_rarp50.sources(tmp_path, sar_rarp50.Params(size=(16, 32))))
    assert {name: source.patient for name, source in found.items()} == {
        "test/video_11_2": "video_11", "train1/video_01": "video_01", "train1/video_11_1": "video_11"}
    source = found["train1/video_01"]
    volume = source.read()
    assert volume.frames.shape == (10, 16, 32, 3) and volume.frame_time_ms == pytest.approx(100)
    assert np.abs(np.diff(volume.frames.mean((1, 2, 3))) - 12).max() < 2  # every sixth frame is taken
    assert volume.labels == ("G1",) * 5 + ("G6",) * 5
    assert source.texts["G6"] == "action recognition task of cutting the suture"
    assert volume.masks is not None and (volume.masks[[1, 2, 3, 4, 6]] == UNKNOWN).all()
    assert (volume.masks[0, :8] == 1).all() and (volume.masks[5, :8] == 3).all() and not volume.masks[5, 8:].any()
    few = sar_rarp50.sources(tmp_path, sar_rarp50.Params(size=(16, 32), actions=["G6"], masks=False))[0].read()
    assert few.labels == ("",) * 5 + ("G6",) * 5 and few.masks is None
    with pytest.raises(ValueError, match="G9 is not G0 to G7"):
        sar_rarp50.sources(tmp_path, sar_rarp50.Params(actions=["G9"]))


def test_sar_rarp50_becomes_clips_with_the_action_at_their_middle(tmp_path: Path) -> None:
    for number in range(1, 7):
        sar_rarp50_video(tmp_path / f"train1/video_{number:02d}", 10 * number)
    (tmp_path / "train1/video_06/action_discrete.txt").write_text("0,1\n6,12\n")
    records, reasons = prepared("sar_rarp50", tmp_path, tmp_path / "out", {"size": [16, 32], "masks": False}, clip_frames=4,
                                hop=2, near_duplicate=1.0)
    assert "actions outside 0..7" in reasons["train1/video_06"]
    assert len(records) == 5 * 4 and {record.patient for record in records} == {f"video_{number:02d}" for number in range(1, 6)}
    for record in records:  # windows begin at 0, 2, 4, 6 of ten frames; the action changes at 5
        assert record.label == ("G1" if record.first_frame + 2 < 5 else "G6")
        assert record.text.endswith("picking up the needle" if record.label == "G1" else "cutting the suture")


@pytest.mark.parametrize(("text", "reason"), [(None, "has no action_discrete"), ("a b", "is not lines of frame,action"),
                                              ("", "is empty")])
def test_sar_rarp50_without_actions_is_refused(tmp_path: Path, text: str | None, reason: str) -> None:
    sar_rarp50_video(tmp_path / "video_01", 10, frames=12)
    actions = tmp_path / "video_01/action_discrete.txt"
    actions.unlink() if text is None else actions.write_text(text)
    refused(sar_rarp50.sources(tmp_path, sar_rarp50.Params())[0], reason)

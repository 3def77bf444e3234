"""Every reader on real files through real decoders: what was written comes back, what is broken is refused with its reason."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydantic import ValidationError
from pydicom.data import get_testdata_file

from models import plugin
from models.clip import UNKNOWN
from tasks.readers import QuarantinedError, Source, dicom, images, nifti, video

SAMPLES = os.environ.get("CINEFAB_SAMPLES")
needs_samples = pytest.mark.skipif(not SAMPLES, reason="CINEFAB_SAMPLES is not set: no real data here")


def samples() -> Path:
    return Path(SAMPLES or "")


def only(found: list[Source]) -> Source:
    assert len(found) == 1
    return found[0]


# --- video ---------------------------------------------------------------------------------------------------------------


def write_video(path: Path, codec: str, frames: int = 9, rate: int = 25) -> np.ndarray:
    """A bright square that moves right by 4 pixels a frame; returns the grey frames that were encoded."""
    shown = np.full((frames, 48, 64), 30, np.uint8)
    for number in range(frames):
        shown[number, 16:32, 4 * number : 4 * number + 16] = 220
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 4_000_000
        for frame in shown:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray").reformat(format="yuv420p")))
        container.mux(stream.encode())
    return shown


CODECS = [("a.mp4", "mpeg4"), ("a.mov", "mpeg4"), ("a.avi", "mpeg4"), ("a.mpeg", "mpeg1video")]


@pytest.mark.parametrize(("name", "codec"), CODECS)
def test_a_video_comes_back_as_it_was_encoded(tmp_path: Path, name: str, codec: str) -> None:
    shown = write_video(tmp_path / name, codec)
    for color in (False, True):
        params = video.Params.model_validate({"color": color, "patient_pattern": r"(?P<patient>\w)\."})
        source = only(video.sources(tmp_path, params))
        assert (source.name, source.patient, source.label) == (name, "a", None)
        volume = source.read()
        assert volume.frames.shape == (*shown.shape, 3 if color else 1)
        assert np.abs(volume.frames.astype(float) - shown[..., None]).mean() < 4
        assert volume.frame_time_ms == pytest.approx(40)
        assert volume.masks is None


def test_masks_of_some_frames_of_a_video(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", "mpeg4", frames=5)
    (tmp_path / "masks" / "a").mkdir(parents=True)
    mask = np.zeros((48, 64), np.uint8)
    mask[16:32, 12:28] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "a" / "003.png")
    source = only(video.sources(tmp_path, video.Params.model_validate({"masks": "masks"})))
    masks = source.read().masks
    assert masks is not None
    np.testing.assert_array_equal(masks[3], mask // 255)
    assert (masks[[0, 1, 2, 4]] == UNKNOWN).all()
    Image.fromarray(mask).save(tmp_path / "masks" / "a" / "5.png")
    with pytest.raises(QuarantinedError, match=r"has a mask that is not named by a frame 0..4"):
        only(video.sources(tmp_path, video.Params.model_validate({"masks": "masks"}))).read()


def test_videos_that_cannot_be_used(tmp_path: Path) -> None:
    write_video(tmp_path / "whole.mp4", "mpeg4")
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text("not a video at all, but a text of some length\n" * 50)
    write_video(tmp_path / "ends.avi", "mpeg4", frames=40)
    cut = (tmp_path / "ends.avi").read_bytes()
    packets = [found.start() for found in re.finditer(b"00dc", cut)]
    (tmp_path / "ends.avi").write_bytes(cut[: packets[13]])
    nothing = "cannot be decoded|has no video stream"
    reasons = {"cut.mp4": nothing, "ends.avi": r"is truncated: 1\d of 40 frames", "text.mp4": nothing}
    found = {source.name: source for source in video.sources(tmp_path, video.Params.model_validate({}))}
    assert list(found) == ["cut.mp4", "ends.avi", "text.mp4", "whole.mp4"]
    for name, reason in reasons.items():
        with pytest.raises(QuarantinedError, match=reason):
            found[name].read()
    small = video.Params.model_validate({"max_values": 8 * 48 * 64})
    with pytest.raises(QuarantinedError, match="declares more than 8 frames of 48x64"):
        next(source for source in video.sources(tmp_path, small) if source.name == "whole.mp4").read()


# --- NIfTI ---------------------------------------------------------------------------------------------------------------


def write_nifti(folder: Path, name: str, voxels: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / name)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_along_an_axis_are_frames_with_their_masks(tmp_path: Path, axis: int) -> None:
    voxels = np.random.default_rng(0).integers(0, 900, (5, 6, 7)).astype(np.int16)
    labels = (voxels > 450).astype(np.uint8) * 2
    write_nifti(tmp_path / "images", "p_1.nii.gz", voxels)
    write_nifti(tmp_path / "labels", "p_1.nii.gz", labels)
    params = nifti.Params.model_validate({"axis": axis, "patient_pattern": r"(?P<patient>p_\d)"})
    source = only(nifti.sources(tmp_path, params))
    volume = source.read()
    assert source.patient == "p_1"
    expected = np.stack([np.flipud(np.take(voxels, number, axis).T) for number in range(voxels.shape[axis])])
    np.testing.assert_array_equal(volume.frames[..., 0], expected)
    np.testing.assert_array_equal(volume.masks, (expected > 450) * 2)


def test_volumes_that_cannot_be_used(tmp_path: Path) -> None:
    good = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    for name in ("cut", "shape", "values", "alone"):
        noise = np.random.default_rng(0).integers(0, 99, (20, 20, 20)).astype(np.int16)
        write_nifti(tmp_path / "images", f"{name}.nii.gz", noise)
        write_nifti(tmp_path / "labels", f"{name}.nii.gz", np.zeros((20, 20, 20), np.uint8))
    write_nifti(tmp_path / "images", "four.nii.gz", good[..., None])
    write_nifti(tmp_path / "labels", "shape.nii.gz", good.astype(np.uint8))
    write_nifti(tmp_path / "labels", "values.nii.gz", np.full((20, 20, 20), 0.5, np.float32))
    (tmp_path / "labels" / "alone.nii.gz").unlink()
    content = (tmp_path / "images" / "cut.nii.gz").read_bytes()
    (tmp_path / "images" / "cut.nii.gz").write_bytes(content[: len(content) // 2])
    (tmp_path / "images" / "text.nii").write_text("no header")
    (tmp_path / "images" / "._hidden.nii.gz").write_text("what macOS leaves behind")
    reasons = {"cut": "cannot be read", "shape": r"mask is \(2, 3, 4\), image is \(20, 20, 20\)", "values": "not labels",
               "alone": "has no mask", "four": "has 4 dimensions", "text": "cannot be read"}
    found = nifti.sources(tmp_path, nifti.Params.model_validate({}))
    assert sorted(Path(source.name).name.split(".")[0] for source in found) == sorted(reasons)
    for source in found:
        with pytest.raises(QuarantinedError, match=reasons[Path(source.name).name.split(".")[0]]):
            source.read()


def test_a_header_that_declares_too_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    write_nifti(tmp_path / "images", "a.nii", np.zeros((2, 2, 2), np.uint8))
    raw = bytearray((tmp_path / "images" / "a.nii").read_bytes())
    raw[40:56] = np.array([3, 30000, 30000, 30000, 1, 1, 1, 1], "<i2").tobytes()  # NIfTI-1's dim
    (tmp_path / "images" / "a.nii").write_bytes(raw)
    with pytest.raises(QuarantinedError, match="declares 27000000000000 voxels"):
        only(nifti.sources(tmp_path, nifti.Params.model_validate({"masks": None}))).read()


# --- pictures ------------------------------------------------------------------------------------------------------------


def write_pictures(folder: Path, count: int, suffix: str = ".png", seed: int = 0) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(seed).integers(0, 255, (count, 10, 12), dtype=np.uint8)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:03d}{suffix}")
    return frames


def test_every_folder_of_pictures_is_a_clip(tmp_path: Path) -> None:
    first = write_pictures(tmp_path / "img" / "p1" / "a", 4)
    second = write_pictures(tmp_path / "img" / "p2" / "b", 3, ".bmp", 1)
    (tmp_path / "msk" / "p1" / "a").mkdir(parents=True)
    label = np.zeros((10, 12), np.uint8)
    label[2:5] = 2
    Image.fromarray(label).save(tmp_path / "msk" / "p1" / "a" / "001.png")
    pattern = r"img/(?P<patient>\w+)/(?P<label>\w+)"
    params = images.Params.model_validate({"images": "img", "masks": "msk", "patient_pattern": pattern})
    one, two = images.sources(tmp_path, params)
    assert [(one.patient, one.label), (two.patient, two.label)] == [("p1", "a"), ("p2", "b")]
    np.testing.assert_array_equal(one.read().frames[..., 0], first)
    np.testing.assert_array_equal(two.read().frames[..., 0], second)
    masks = one.read().masks
    assert masks is not None
    np.testing.assert_array_equal(masks[1], label)
    assert (masks[[0, 2, 3]] == UNKNOWN).all()
    assert (two.read().masks == UNKNOWN).all()


def test_stills_with_masks_beside_them(tmp_path: Path) -> None:
    frames = write_pictures(tmp_path, 2)
    Image.fromarray((frames[0] > 128).astype(np.uint8) * 255).save(tmp_path / "000_mask.png")
    params = images.Params.model_validate({"stills": True, "masks": ".", "mask_suffix": "_mask"})
    one, two = images.sources(tmp_path, params)
    assert one.patient != two.patient
    np.testing.assert_array_equal(one.read().masks, (frames[:1] > 128))
    assert (two.read().masks == UNKNOWN).all()


def test_sixteen_bits_keep_their_contrast(tmp_path: Path) -> None:
    deep = np.linspace(1000, 5000, 120).astype(np.uint16).reshape(10, 12)
    Image.fromarray(deep).save(tmp_path / "a.png")
    read = only(images.sources(tmp_path, images.Params.model_validate({}))).read().frames[0, ..., 0]
    assert len(np.unique(read)) == 120
    assert (np.diff(read.ravel().astype(int)) > 0).all()


def test_pictures_that_cannot_be_used(tmp_path: Path) -> None:
    for name in ("cut", "sizes", "grey"):
        write_pictures(tmp_path / "img" / name, 2)
        write_pictures(tmp_path / "msk" / name, 2)
    content = (tmp_path / "img" / "cut" / "001.png").read_bytes()
    (tmp_path / "img" / "cut" / "001.png").write_bytes(content[:60])
    Image.new("L", (5, 5)).save(tmp_path / "img" / "sizes" / "001.png")
    mask = np.random.default_rng(0).integers(0, 256, (10, 12), dtype=np.uint8)
    mask[0, 0] = 255
    Image.fromarray(mask).save(tmp_path / "msk" / "grey" / "000.png")
    reasons = {"cut": r"picture 1 cannot be read \(OSError\)", "sizes": "differ in size", "grey": "has .* grey values"}
    for source in images.sources(tmp_path, images.Params.model_validate({"images": "img", "masks": "msk"})):
        with pytest.raises(QuarantinedError, match=reasons[Path(source.name).name]):
            source.read()


# --- DICOM: pydicom's own files, those inside its package only ---------------------------------------------------------------


def bundled(name: str, folder: Path, **params: Any) -> Source:
    path = get_testdata_file(name, download=False)
    assert path is not None
    shutil.copyfile(path, folder / name)
    return only(dicom.sources(folder, dicom.Params(**params)))


def changed(name: str, folder: Path, change: Callable[[pydicom.Dataset], None]) -> Source:
    source = bundled(name, folder)
    header = pydicom.dcmread(source.files[0])
    change(header)
    header.save_as(source.files[0])
    return only(dicom.sources(folder, dicom.Params.model_validate({})))


def test_an_ultrasound_cine_in_ybr(tmp_path: Path) -> None:
    source = bundled("examples_ybr_color.dcm", tmp_path, blank=[])  # its region is of frames twice as large
    volume = source.read()
    assert volume.frames.shape == (30, 240, 320, 1)
    assert volume.frame_time_ms == pytest.approx(33.333)
    color = only(dicom.sources(tmp_path, dicom.Params(color=True, blank=[]))).read()
    assert color.frames.shape == (30, 240, 320, 3)
    luma = pydicom.pixels.pixel_array(source.files[0], raw=True)[..., 0].astype(float)  # the Y of what was stored
    assert np.abs(volume.frames[..., 0] - luma).mean() < 1
    # the patient is a hash: the ID in the header appears nowhere
    assert source.patient not in ("", "204")
    assert "204" not in (source.patient, source.name)


def test_multi_frame_greyscale_and_rgb(tmp_path: Path) -> None:
    dose = bundled("rtdose.dcm", tmp_path).read().frames
    assert dose.shape == (15, 10, 10, 1)
    header = pydicom.dcmread(tmp_path / "rtdose.dcm")
    np.testing.assert_array_equal(dose[..., 0], header.pixel_array)
    (tmp_path / "rtdose.dcm").unlink()
    rgb = bundled("SC_rgb_rle_2frame.dcm", tmp_path).read().frames
    assert rgb.shape == (2, 100, 100, 1)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    plain = bundled("MR_small.dcm", tmp_path).read().frames.astype(float)

    def invert(header: pydicom.Dataset) -> None:
        header.PhotometricInterpretation = "MONOCHROME1"

    inverted = changed("MR_small.dcm", tmp_path, invert).read().frames.astype(float)
    np.testing.assert_allclose(inverted, plain.max() - plain)


def test_palette_colours_become_their_grey(tmp_path: Path) -> None:
    frames = bundled("examples_palette.dcm", tmp_path, blank=[]).read().frames
    header = pydicom.dcmread(tmp_path / "examples_palette.dcm")
    colours = pydicom.pixels.apply_color_lut(header.pixel_array, header).astype(float)
    np.testing.assert_allclose(frames[0, ..., 0], colours @ [0.299, 0.587, 0.114], rtol=1e-5)


@pytest.mark.parametrize(("tags", "expected"), [
    ({"FrameTime": "40"}, 40), ({"FrameTimeVector": ["0", "20", "40"]}, 30), ({"CineRate": "25"}, 40), ({}, None),
])
def test_frame_time_from_whichever_tag_there_is(tags: dict[str, object], expected: float | None) -> None:
    header = pydicom.Dataset()
    for name, value in tags.items():
        setattr(header, name, value)
    assert dicom.frame_time(header) == expected


def test_one_patient_keeps_one_hash_over_files(tmp_path: Path) -> None:
    for name in ("MR_small.dcm", "MR_small_RLE.dcm", "CT_small.dcm"):
        shutil.copyfile(str(get_testdata_file(name, download=False)), tmp_path / name)
    ct, mr, rle = dicom.sources(tmp_path, dicom.Params.model_validate({}))
    assert mr.patient == rle.patient != ct.patient
    assert len(mr.patient) == 16


def test_dicom_files_that_cannot_be_used(tmp_path: Path) -> None:
    for name in ("MR_truncated.dcm", "rtplan.dcm"):
        shutil.copyfile(str(get_testdata_file(name, download=False)), tmp_path / name)
    (tmp_path / "notes.txt").write_text("not DICOM")
    for source in dicom.sources(tmp_path, dicom.Params.model_validate({})):
        with pytest.raises(QuarantinedError, match=r"cannot be decoded|has no pixels"):
            source.read()

    def grow(header: pydicom.Dataset) -> None:
        header.NumberOfFrames, header.Rows, header.Columns = 100_000, 60_000, 60_000

    fresh = tmp_path / "fresh"
    fresh.mkdir()
    with pytest.raises(QuarantinedError, match="declares 360000000000000 values"):
        changed("CT_small.dcm", fresh, grow).read()


# --- patients and labels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_patients_and_labels_from_a_table(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b", "c"):
        write_pictures(tmp_path / name, 1)
    comma = "," if suffix == ".csv" else "\t"
    rows = [["clip", "who", "what"], ["a", "p1", "sick"], ["b", "p1", ""]]
    (tmp_path / f"table{suffix}").write_text("\n".join(comma.join(row) for row in rows))
    options = {"table": f"table{suffix}", "file_column": "clip", "patient_column": "who", "label_column": "what"}
    found = images.sources(tmp_path, images.Params.model_validate(options))
    assert [(source.patient, source.label) for source in found] == [("p1", "sick"), ("p1", None), ("", None)]
    with pytest.raises(ValueError, match=r"has no column nobody; it has clip, who, what"):
        images.sources(tmp_path, images.Params.model_validate({**options, "patient_column": "nobody"}))
    with pytest.raises(ValueError, match=r"missing\.csv does not exist"):
        images.sources(tmp_path, images.Params.model_validate({**options, "table": "missing.csv"}))


def test_a_pattern_needs_a_patient() -> None:
    with pytest.raises(ValidationError, match=r"must be a regular expression with a group \(\?P<patient>"):
        images.Params.model_validate({"patient_pattern": r"(\w+)"})


def test_without_either_names_of_files_stay_out(tmp_path: Path) -> None:
    write_pictures(tmp_path / "Jane_Doe_1970", 1)
    write_pictures(tmp_path / "John_Doe_1971", 1)
    jane, john = images.sources(tmp_path, images.Params.model_validate({}))
    assert jane.patient != john.patient
    assert "doe" not in (jane.patient + john.patient).lower()


@pytest.mark.parametrize("kind", plugin.kinds("tasks.readers"))
def test_an_empty_folder_has_no_sources_and_unknown_keys_are_refused(kind: str, tmp_path: Path) -> None:
    module = plugin.load("tasks.readers", kind)
    assert kind == "phantom" or module.sources(tmp_path, module.Params.model_validate({})) == []
    with pytest.raises(ValidationError, match="nobody_knows"):
        module.Params.model_validate({"nobody_knows": 1})


# --- real data -----------------------------------------------------------------------------------------------------------


@needs_samples
def test_real_hippocampus_volumes() -> None:
    found = nifti.sources(samples() / "hippocampus_mri", nifti.Params.model_validate({}))
    assert len(found) == 260
    for source in found[::40]:
        volume = source.read()
        assert volume.masks is not None
        assert set(np.unique(volume.masks)) == {0, 1, 2}
        assert volume.frames.shape[:3] == volume.masks.shape
        assert 25 < volume.frames.shape[0] < 50


@needs_samples
def test_real_lung_ultrasound_videos() -> None:
    options = {"folder": "videos", "table": "manifest.csv", "file_column": "dst", "label_column": "label"}
    found = video.sources(samples() / "lung_ultrasound", video.Params.model_validate(options))
    assert len(found) == 43
    assert {source.label for source in found} == {"covid", "regular", "viral_pneumonia", "bacterial_pneumonia"}
    rows = (samples() / "lung_ultrasound" / "manifest.csv").read_text().splitlines()
    table = {row.split(",")[0]: row.split(",") for row in rows}
    smallest = sorted(found, key=Source.megabytes)[:4]
    for source in smallest:
        frames, width, height = (int(value) for value in table[Path(source.name).name][5:8])
        assert source.read().frames.shape == (frames, height, width, 1)


@needs_samples
def test_real_breast_ultrasound_stills() -> None:
    options = {"stills": True, "masks": ".", "mask_suffix": "_mask", "patient_pattern": r"(?P<label>\w+)/(?P<patient>\w+)\.png"}
    found = images.sources(samples() / "breast_ultrasound_images", images.Params.model_validate(options))
    assert len(found) == 780
    lesion = next(source for source in found if source.label == "malignant").read()
    normal = next(source for source in found if source.label == "normal").read()
    assert lesion.masks is not None
    assert normal.masks is not None
    assert set(np.unique(lesion.masks)) == {0, 1}
    assert not normal.masks.any()

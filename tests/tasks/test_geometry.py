"""The size of a voxel goes from raw volumes through the prepared set into every clip's export."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from tasks.geometry import Geometry, of_clip, typical
from tasks.params import DatasetParams, SplitParams
from tasks.prepare import prepare
from tasks.readers import Volume, nifti


def dataset(folder: Path, **more: object) -> DatasetParams:
    plain = {"name": "volumes", "reader": "nifti", "location": folder, "classes": ["organ"], "clip_frames": 3,
             "frame_size": (8, 8), "split": SplitParams(train=0.6, val=0.2, test=0.2),
             "options": {"patient_pattern": "(?P<patient>p[0-9]+)"}}
    return DatasetParams.model_validate(plain | more)


@pytest.mark.parametrize(("fit", "spacing"), [
    ("pad", (6.0, 2.0, 2.0)),  # 16 rows of 1 mm become 8 of 2; 12 columns become 6, and 2 of nothing
    ("stretch", (6.0, 2.0, 1.5)),
])
def test_a_pixel_grows_as_the_frame_shrinks(fit: str, spacing: tuple[float, ...], tmp_path: Path) -> None:
    volume = Volume(np.zeros((9, 16, 12, 1)), spacing_mm=(3.0, 1.0, 1.0), frame_time_ms=None)
    assert of_clip(volume, dataset(tmp_path, fit=fit, stride=2)) == Geometry(spacing, None)


def test_time_is_that_of_the_frames_that_are_taken(tmp_path: Path) -> None:
    assert of_clip(Volume(np.zeros((9, 8, 8, 1)), frame_time_ms=40.0), dataset(tmp_path, stride=3)) == Geometry(None, 120.0)


def test_what_is_typical_is_the_median_of_what_all_have() -> None:
    sizes = [Geometry((None, size, 2.0), size) for size in (1.0, 4.0, 2.0)]
    assert typical(sizes) == {"spacing_mm": [None, 2.0, 2.0], "frame_time_ms": 2.0}
    assert typical([*sizes, Geometry(None, None)]) == {"spacing_mm": None, "frame_time_ms": None}
    assert typical([]) == {"spacing_mm": None, "frame_time_ms": None}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_s_spacing_follows_its_planes(axis: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = nibabel.Nifti1Image(rng.random((4, 5, 6), np.float32), np.diag([1.0, 2.0, 3.0, 1.0]))
    nibabel.save(image, tmp_path / "a.nii")
    volume = nifti.read(tmp_path / "a.nii", None, axis)
    lengths = {4: 1.0, 5: 2.0, 6: 3.0}
    assert volume.spacing_mm == tuple(lengths[length] for length in volume.frames.shape[:3])


def test_a_header_without_sizes_gives_none(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), None)
    image.header["pixdim"][1:4] = 0  # nibabel reads ones
    nibabel.save(image, tmp_path / "a.nii")
    assert nifti.read(tmp_path / "a.nii", None, 2).spacing_mm is None
    image.header["pixdim"][1:4] = 1
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "a.nii")
    assert nifti.read(tmp_path / "a.nii", None, 2).spacing_mm == (1, 1, 1)


def test_the_prepared_set_says_what_its_training_clips_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for name, shape in (("images", np.float32), ("labels", np.uint8)):
        (tmp_path / name).mkdir()
        for patient in range(8):
            voxels = rng.random((16, 16, 4)) * (200 if name == "images" else 1.6)
            made = nibabel.Nifti1Image(voxels.astype(shape), np.diag([0.5, 0.75, 4.0, 1.0]))
            nibabel.save(made, tmp_path / name / f"p{patient}.nii.gz")
    summary = prepare(dataset(tmp_path), 0, tmp_path / "out")
    assert summary["geometry"] == {"spacing_mm": [4.0, 1.5, 1.0], "frame_time_ms": None}

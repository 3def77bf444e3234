"""Frames and label maps as NIfTI-1, laid out as the NIfTI reader takes them in, so that reading an export gives clips again.

A voxel's place is i = column, j = row counted from below, k = frame (`tasks.readers.nifti` turns the planes the other way).
Frames that are moments, not slices, lie along the fourth axis; colours along the fifth.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from tasks.exports import Cells, Clip
from tasks.tables import atomic_write

OPENED_BY = """nibabel, ITK-SNAP, 3D Slicer, MONAI, ...; in Python:

```python
import nibabel, numpy as np
voxels = np.asarray(nibabel.load("frames/CLIP_ID.nii.gz").dataobj)  # (W, H, slices), or (W, H, 1, moments), colours last
labels = np.asarray(nibabel.load("masks/CLIP_ID.nii.gz").dataobj)
```"""
LOSES = "Nothing of the pixels."


def write(part: int, clips: Iterable[Clip], facts: Mapping[str, Any], out: Path) -> list[Cells]:
    rows = []
    for clip in clips:
        row = {}
        for column, folder, pixels in (("file", "frames", clip.frames), ("mask_file", "masks", clip.masks[..., None])):
            name = Path(folder) / f"{clip.clip_id}.nii.gz"
            atomic_write(out / name, gzip.compress(_image(pixels, facts["clip"], column == "mask_file").to_bytes(), 6, mtime=0))
            row[column] = str(name)
        rows.append(row)
    return rows


def heading(facts: Mapping[str, Any], rows: list[Cells]) -> str:
    spacing = facts["clip"].get("spacing_mm")
    if spacing:
        size = (f"A voxel is {spacing[2]:.4g} x {spacing[1]:.4g} mm large, and {spacing[0]:.4g} mm lie between slices: the "
                "median of the training clips, whose geometry the affine keeps.")
    else:
        size = ("The release does not know how large a pixel is: the affine is the identity, and the header calls its unit "
                "unknown.")
    return size + (" Origin and directions are those of no scanner: a synthetic clip was recorded nowhere (sform code 2, "
                   "aligned; qform code 0, unknown).")


def _image(pixels: NDArray[np.uint8], clip: Mapping[str, Any], labels: bool) -> nibabel.Nifti1Image:
    """(T, H, W, C) uint8 as an image; the inverse of `tasks.readers.nifti.planes` along axis 2."""
    voxels = pixels[:, ::-1].transpose(2, 1, 0, 3)  # (W, H, T, C)
    spacing, milliseconds = clip.get("spacing_mm"), clip.get("frame_time_ms")
    slices = spacing is not None and spacing[0] is not None
    if not slices:
        voxels = voxels[:, :, None]  # (W, H, 1, T, C)
    if pixels.shape[-1] == 1:
        voxels = voxels[..., 0]
    elif slices:
        voxels = voxels[:, :, :, None]  # colours are the fifth axis
    step, row, column = (value or 1.0 for value in spacing or (None, None, None))
    affine = np.diag([column, row, step, 1.0])
    image = nibabel.Nifti1Image(np.ascontiguousarray(voxels), affine)
    header = image.header
    header.set_sform(affine, code="aligned")
    header.set_qform(affine, code="unknown")
    header.set_xyzt_units("mm" if spacing else "unknown", "msec" if milliseconds and not slices else "unknown")
    if not slices:
        header["pixdim"][4] = milliseconds or 1.0
    header["descrip"] = b"SYNTHETIC, made by cinefab"
    if labels:
        header.set_intent("label")
    elif pixels.shape[-1] > 1:
        header.set_intent("vector")
    return image

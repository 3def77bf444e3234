"""Text that is burned into pixels: what lies outside of the regions an ultrasound device declares, and in boxes a site names.

A box is [x0, y0, x1, y1] in pixels of the file: columns x0 to x1 - 1, rows y0 to y1 - 1, counted from the upper left corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from tasks.readers import QuarantinedError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset  # readers of pictures and videos do without

GRAPHICS = 5
"""Region Spatial Format (0018,6012) of a region that shows no echoes but what the device draws (PS3.3 C.8.5.5.1.1)."""


def _has_an_area(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 and 0 <= y0 < y1):
        raise ValueError("a box is [x0, y0, x1, y1] with 0 <= x0 < x1 and 0 <= y0 < y1")
    return box


Box = Annotated[tuple[int, int, int, int], AfterValidator(_has_an_area)]


def without_boxes(shape: tuple[int, int], boxes: Sequence[Box]) -> NDArray[np.bool_]:
    """(H, W): True where nothing is to be hidden.

    Raises:
        QuarantinedError: if a box is not within the frame: it was made for another device, whose text lies elsewhere.
    """
    shown = np.ones(shape, bool)
    for x0, y0, x1, y1 in boxes:
        if x1 > shape[1] or y1 > shape[0]:
            raise QuarantinedError(f"is {shape[1]} pixels wide and {shape[0]} high, but blank has the box {[x0, y0, x1, y1]}; "
                                   "give the boxes of these frames")
        shown[y0:y1, x0:x1] = False
    return shown


def shown_of(shape: tuple[int, int], header: Dataset, blank: Sequence[Box] | None) -> NDArray[np.bool_]:
    """(H, W): True where a DICOM file's frames may be looked at: in its ultrasound regions, if it declares any, and in no box.

    Args:
        blank: a site's boxes; [] if somebody has looked and there is no text, None if nobody has. With them, regions that
            cannot be of these frames are passed over.

    Raises:
        QuarantinedError: without boxes, if the file says there is burned-in text and not where, or its regions are not of these
            frames; with boxes, if one of those is not.
    """
    shown = without_boxes(shape, blank or [])
    if regions := header.get("SequenceOfUltrasoundRegions"):
        wrong = not_of(shape, regions)
        if wrong and blank is None:
            raise QuarantinedError(f"has an ultrasound region {wrong}, so that nobody knows what lies outside; {_REMEDY}")
        return shown if wrong else shown & _within(shape, regions)
    if blank is None and header.get("BurnedInAnnotation") == "YES":
        raise QuarantinedError(f"says that text is burned into its pixels (BurnedInAnnotation YES), and not where; {_REMEDY}")
    return shown


_REMEDY = "give the boxes of text as blank, or [] if there is none"
_CORNERS = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")


def not_of(shape: tuple[int, int], regions: Sequence[Dataset]) -> str:
    """Why they cannot be regions of frames of this shape; "" if they can. Frames made smaller often keep their old regions."""
    for region in regions:
        corners = [region.get(corner) for corner in _CORNERS]
        if any(corner is None for corner in corners):
            return "without its corners"
        x0, y0, x1, y1 = corners
        if not (x0 <= x1 <= shape[1] and y0 <= y1 <= shape[0]):  # devices are off by one
            return f"that is not within its frames, {shape[1]} pixels wide and {shape[0]} high"
    return "" if _within(shape, regions).any() else "that shows no echoes, and no other"


def _within(shape: tuple[int, int], regions: Sequence[Dataset]) -> NDArray[np.bool_]:
    """(H, W): True in one of them, both of its corners included."""
    shown = np.zeros(shape, bool)
    for region in regions:
        if region.get("RegionSpatialFormat") != GRAPHICS:
            x0, y0, x1, y1 = (region[corner].value for corner in _CORNERS)
            shown[y0 : y1 + 1, x0 : x1 + 1] = True
    return shown


def hidden(frames: NDArray[Any], shown: NDArray[np.bool_], bright_is_low: bool = False) -> NDArray[Any]:
    """Frames (F, H, W) or (F, H, W, C) whose other pixels all have one value: the darkest that is shown; in colour, 0.

    Args:
        shown: (H, W).
        bright_is_low: the highest value is black, as in MONOCHROME1.
    """
    if shown.all():
        return frames
    kept = frames[:, shown]
    black = 0 if frames.ndim == 4 or kept.size == 0 else kept.max() if bright_is_low else kept.min()
    made = frames.copy()
    made[:, ~shown] = black
    return made

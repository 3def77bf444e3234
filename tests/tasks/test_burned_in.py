"""Burned-in text: pixels outside of regions and in boxes are gone before a reader gives anything, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from pydicom.dataset import Dataset

from tasks.burned_in import hidden, shown_of, without_boxes
from tasks.readers import QuarantinedError, images, video

SHAPE = (20, 30)


def header(*regions: tuple[int, ...], said: str | None = None, kind: int = 1) -> Dataset:
    made = Dataset()
    made.SequenceOfUltrasoundRegions = []
    for region in regions:
        one = Dataset()
        one.RegionSpatialFormat = kind
        for corner, place in zip(("MinX0", "MinY0", "MaxX1", "MaxY1"), region, strict=False):
            setattr(one, f"RegionLocation{corner}", place)
        made.SequenceOfUltrasoundRegions.append(one)
    if said is not None:
        made.BurnedInAnnotation = said
    return made


boxes = st.tuples(st.integers(0, 29), st.integers(0, 19), st.integers(1, 30), st.integers(1, 20)).filter(
    lambda box: box[0] < box[2] and box[1] < box[3])


@given(st.lists(boxes, max_size=3), st.lists(boxes, max_size=3), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=50)
def test_what_is_shown_is_in_a_region_and_in_no_box(regions: list[Any], blank: list[Any], colour: bool, inverse: bool) -> None:
    shown = shown_of(SHAPE, header(*((x0, y0, x1 - 1, y1 - 1) for x0, y0, x1, y1 in regions)), blank)
    for y, x in np.ndindex(*SHAPE):
        inside = not regions or any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in regions)
        assert shown[y, x] == (inside and not any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in blank))
    frames = np.random.default_rng(0).integers(5, 250, (3, *SHAPE, *([3] if colour else []))).astype(np.uint8)
    made = hidden(frames, shown, inverse)
    np.testing.assert_array_equal(made[:, shown], frames[:, shown])
    assert len(np.unique(made[:, ~shown])) <= 1
    if colour and not shown.all():
        assert (made[:, ~shown] == 0).all()
    elif shown.any() and not shown.all():
        assert made[0][~shown][0] == (frames[:, shown].max() if inverse else frames[:, shown].min())


@pytest.mark.parametrize(("said", "reason"), [
    (header(said="YES"), "says that text is burned into its pixels .* give the boxes of text as blank"),
    (header((0, 0, 31, 5)), "not within its frames, 30 pixels wide and 20 high"),
    (header((5, 0, 4, 5)), "not within its frames"),
    (header((0, 0, 5)), "without its corners"),
    (header((0, 0, 5, 5), kind=5), "shows no echoes"),
])
def test_a_file_that_does_not_say_where_is_refused_unless_somebody_has_looked(said: Dataset, reason: str) -> None:
    with pytest.raises(QuarantinedError, match=reason):
        shown_of(SHAPE, said, None)
    assert shown_of(SHAPE, said, []).all()
    np.testing.assert_array_equal(shown_of(SHAPE, said, [(0, 0, 30, 2)]), without_boxes(SHAPE, [(0, 0, 30, 2)]))


def test_a_file_that_says_nothing_or_no_is_shown_whole_and_devices_are_off_by_one() -> None:
    assert shown_of(SHAPE, header(), None).all()
    assert shown_of(SHAPE, header(said="NO"), None).all()
    assert shown_of(SHAPE, header((0, 0, 30, 20)), None).all()


@pytest.mark.parametrize("box", [(0, 0, 31, 1), (0, 0, 1, 21)])
def test_a_box_that_is_of_another_device_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(QuarantinedError, match="is 30 pixels wide and 20 high, but blank has the box"):
        without_boxes(SHAPE, [box])


@pytest.mark.parametrize("box", [[3, 0, 3, 1], [0, 2, 1, 1], [-1, 0, 3, 3], [0, 0, 3]])
def test_what_is_no_box_is_no_parameter(box: list[int]) -> None:
    with pytest.raises(ValidationError, match=r"x0 < x1|Field required"):
        images.Params.model_validate({"blank": [box]})


@pytest.mark.parametrize("color", [False, True])
def test_boxes_in_pictures_and_videos(tmp_path: Path, color: bool) -> None:
    rng = np.random.default_rng(0)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 30, 20, "bgr0"
        for number in range(4):
            frame = rng.integers(60, 255, (20, 30, 3)).astype(np.uint8)
            Image.fromarray(frame).save(tmp_path / f"{number}.png")
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    for reader in (images, video):
        plain, blanked = (reader.sources(tmp_path, reader.Params(color=color, blank=blank))[0].read().frames
                          for blank in ([], [(0, 0, 30, 4), (25, 0, 30, 20)]))
        assert len(np.unique(blanked[:, :4])) == len(np.unique(blanked[:, :, 25:])) == 1
        np.testing.assert_array_equal(blanked[:, 4:, :25], plain[:, 4:, :25])
        assert plain[:, :4].min() > 20

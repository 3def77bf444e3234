"""Pictures hold the clip's own pixels, outlines lie on the masks' borders, and equal clips give equal bytes."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import tiny_line
from PIL import Image, ImageSequence

from models.clip import UNKNOWN
from tasks.pictures import PALETTE, clip_picture, contact_sheet, painted, panels, png, store_sheet, tile, webp


def clips(number: int = 3, frames: int = 4, height: int = 20, width: int = 30, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (number, frames, height, width, channels), np.uint8)


def film(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)])


@pytest.mark.parametrize("channels", [1, 3])
def test_small_clips_are_enlarged_by_whole_pixels(channels: int) -> None:
    frames = clips(channels=channels)
    shown = panels(frames, side=90)
    assert shown.shape == (3, 4, 60, 90, 3)
    for row in range(3):
        for column in range(3):
            assert (shown[:, :, row::3, column::3] == frames).all()


def test_large_clips_are_block_means_and_thin_masks_survive() -> None:
    frames = clips(1, 1, 302, 400)
    shown = panels(frames, side=100)
    assert shown.shape == (1, 1, 75, 100, 3)
    assert (shown[0, 0, 7, 9] == round(frames[0, 0, 28:32, 36:40].mean())).all()
    wire = np.zeros((1, 1, 302, 400), np.uint8)
    wire[..., 201] = 2
    assert (painted(wire, side=100)[0, 0, :, 50] == PALETTE[1]).all()


def test_an_outline_is_the_border_of_the_mask_and_nothing_else() -> None:
    frames = np.full((1, 1, 10, 10, 1), 77, np.uint8)
    masks = np.zeros((1, 1, 10, 10), np.uint8)
    masks[..., 3:7, 2:8] = 1
    masks[..., 8:, :] = UNKNOWN
    shown = panels(frames, masks, side=10)[0, 0]
    square = np.zeros((10, 10), bool)
    square[3:7, 2:8] = True
    inner = np.zeros_like(square)
    inner[4:6, 3:7] = True
    assert ((shown == PALETTE[0]).all(-1) == (square & ~inner)).all()
    assert (shown[~(square & ~inner)] == 77).all()


def test_outlines_of_two_classes_at_the_frame_s_border() -> None:
    masks = np.zeros((1, 1, 6, 6), np.uint8)
    masks[..., :3], masks[..., 3:] = 1, 2
    shown = panels(np.zeros((1, 1, 6, 6, 1), np.uint8), masks, side=6)[0, 0]
    assert (shown[:, 2] == PALETTE[0]).all()
    assert (shown[:, 3] == PALETTE[1]).all()
    assert (shown[:, [0, 1, 4, 5]] == 0).all()  # the frame's own border is no outline


def test_a_tile_holds_every_clip_where_it_belongs() -> None:
    frames = panels(clips(5), side=30)
    sheet = tile(frames, columns=2, gap=4)
    assert sheet.shape == (4, 3 * 24 - 4, 2 * 34 - 4, 3)
    assert (sheet[:, 24:44, 34:64] == frames[3]).all()
    assert (sheet[:, 48:, 34:] == 24).all()  # the sixth place is empty


def test_an_animation_plays_every_frame_without_loss() -> None:
    wanted = tile(panels(clips(2)), columns=2)
    content = webp(wanted)
    assert (film(content) == wanted).all()
    assert webp(wanted) == content
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        assert (image.info["loop"], image.info["duration"]) == (0, 120)


def test_a_large_animation_gives_up_a_little_for_its_size() -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (4, 300, 400, 3), np.uint8)
    content = webp(noisy)
    assert len(content) < noisy.size // 4
    assert film(content).shape == noisy.shape


def test_a_contact_sheet_has_a_row_a_clip_and_shows_first_and_last_frame() -> None:
    frames = clips(2, 9, 30, 30)
    sheet = film(contact_sheet(frames, columns=3, side=30))[0]
    assert sheet.shape == (64, 98, 3)
    assert (sheet[34:64, :30, 0] == frames[1, 0, :, :, 0]).all()
    assert (sheet[:30, 34:64, 0] == frames[0, 4, :, :, 0]).all()
    assert (sheet[34:64, 68:, 0] == frames[1, 8, :, :, 0]).all()


def test_pictures_of_a_store_and_of_a_clip(tmp_path: Path) -> None:
    pairs = [tiny_line.scene(number, np.random.default_rng(0)) for number in range(3)]
    frames, masks = (np.stack(one) for one in zip(*pairs, strict=True))
    tiny_line.store(tmp_path / "clips.zarr", ["a", "b", "c"], frames, masks)
    head, body = store_sheet(tmp_path / "clips.zarr").split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body) == contact_sheet(frames, masks)
    written = clip_picture({"frames": frames[:1], "masks": masks[:1]}, tmp_path / "clip.webp")
    assert (film(written.read_bytes())[:, :, :128] == panels(frames[:1])[0]).all()


def test_frames_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"frames have shape \(3, 4, 20, 30, 2\); panels need"):
        panels(clips(channels=2))


def test_png_is_exact() -> None:
    image = tile(panels(clips()), columns=2)[0]
    assert (film(png(image))[0] == image).all()

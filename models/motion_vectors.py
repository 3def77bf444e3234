"""Motion as a video codec sees it: MPEG-4's block vectors, read back from an encoding in memory by PyAV.

Ctrl-GenAug takes its fields from such an encoder, and writes each vector at its block's centre only; here it fills its block.
The vectors serve compression, not truth: they differ between builds of FFmpeg, and flat regions have any. Optical flow
(`models.motion`) is the default for that reason.
"""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.clip import to_uint8

CELL = 8
"""The smallest block of MPEG-4 that has a vector, pixels."""


def codec_vectors(frames: Tensor) -> Tensor:
    """Displacement into every frame but the first, as `models.motion.optical_flow` gives it but known block by block.

    Args:
        frames: (B, T, C, H, W) in [-1, 1], T >= 2; encoded as grey.

    Returns:
        (B, T - 1, 2, H, W) float32 in pixels on the frames' device; 0 where a block was coded without reference.

    Raises:
        ValueError: for fewer than two frames.
    """
    if frames.shape[1] < 2:
        raise ValueError(f"motion needs 2 frames, but the clips have {frames.shape[1]}")
    grey = to_uint8(frames.mean(2)).cpu().numpy()
    return torch.from_numpy(np.stack([_vectors(clip) for clip in grey])).to(frames.device)


def _vectors(clip: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(T, H, W) -> (T - 1, 2, H, W)."""
    length, height, width = clip.shape
    rows, columns = -(-height // CELL), -(-width // CELL)
    cells = np.zeros((length - 1, 2, rows, columns), np.float32)
    with av.open(io.BytesIO(_encode(clip)), "r") as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"flags2": "+export_mvs"}
        for number, frame in enumerate(container.decode(stream)):
            beside: Any = frame.side_data  # PyAV's stubs take it for a mapping of names
            found = next((data for data in beside if data.type.name == "MOTION_VECTORS"), None)
            if found is None or not 0 < number < length:
                continue
            table = found.to_ndarray()
            table = table[table["source"] < 0]
            # where a block came from to where it is; larger blocks first, so that the vectors of their parts stand
            for size in (16, CELL):
                part = table[np.maximum(table["w"], table["h"]) == size]
                moved = np.stack([part["dst_x"] - part["src_x"], part["dst_y"] - part["src_y"]]).astype(np.float32)
                span = range(size // CELL)
                for down in span:
                    for right in span:
                        y = (part["dst_y"] - part["h"] // 2) // CELL + down
                        x = (part["dst_x"] - part["w"] // 2) // CELL + right
                        inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
                        cells[number - 1, :, y[inside], x[inside]] = moved[:, inside].T
    return cells.repeat(CELL, 2).repeat(CELL, 3)[:, :, :height, :width]


def _encode(clip: NDArray[np.uint8]) -> bytes:
    """MPEG-4 in memory: one key frame, then frames that refer to the one before."""
    held = io.BytesIO()
    with av.open(held, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 600, 0
        stream.codec_context.options = {"qscale": "2", "mbd": "rd", "flags": "+mv4"}
        for image in clip:
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="gray")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return held.getvalue()

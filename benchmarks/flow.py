"""How much of a motion field is the picture's and how much its noise: on simulated fluoroscopy, which can be had without noise.

    python benchmarks/flow.py

The same scenes are rendered with the photons of a real exposure and with so many that no noise is left. The flow of the clean
clips (OpenCV's preset, hardly blurred) is the truth; printed is how far the fields of the noisy clips are from it, in pixels a
frame.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from models.clip import to_float
from models.motion import optical_flow
from tasks.readers import phantom

SCENES = 24
CLEAN = (1e9, 1e9)
"""Photons a pixel."""


def clips(**changes: object) -> Tensor:
    """(B, T, 1, H, W) in [-1, 1]."""
    params = phantom.Params.model_validate({"patients": SCENES, "clips_per_patient": 1, **changes})
    frames = np.stack([phantom.simulate(params, patient, 0).frames for patient in range(SCENES)])
    return to_float(torch.from_numpy(frames)).movedim(-1, 2)


def preset(frames: Tensor, blur: float) -> Tensor:
    """OpenCV's medium preset up to the finest scale, nothing else."""
    grey = ((frames[:, :, 0] + 1) * 127.5).round().byte().numpy()
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    fields = []
    for clip in grey:
        smooth = [cv2.GaussianBlur(frame, (0, 0), blur) if blur else frame for frame in clip]
        fields.append([search.calc(*pair, None) for pair in itertools.pairwise(smooth)])  # type: ignore[call-overload]
    return torch.from_numpy(np.array(fields)).permute(0, 1, 4, 2, 3)


def main() -> None:
    noisy, truth = clips(), preset(clips(photons=CLEAN), 0.7)
    size = "x".join(map(str, noisy.shape[1:]))
    sys.stdout.write(f"{SCENES} clips of {size}; mean length of the true flow {truth.norm(dim=2).mean():.2f}\n")
    fields = {"no motion": torch.zeros_like(truth), "preset": preset(noisy, 0), "preset, blurred": preset(noisy, 1.5),
              "models.motion.optical_flow": optical_flow(noisy)}
    for name, field in fields.items():
        correlation = torch.corrcoef(torch.stack([field.flatten(), truth.flatten()]))[0, 1] if field.any() else torch.tensor(0)
        distance = (field - truth).norm(dim=2).mean()
        sys.stdout.write(f"{name:28s} distance {distance:.2f}   correlation {correlation:.2f}\n")


if __name__ == "__main__":
    main()

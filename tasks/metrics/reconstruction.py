"""How near a clip is to the one it stands for, frame by frame: PSNR and SSIM as video prediction reports them."""

from __future__ import annotations

import torch
from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor

RANGE = 2
"""Of pixels, which are in [-1, 1]."""

ROUNDING = (RANGE / 255) ** 2 / 12
"""Mean squared error of rounding to 8 bits, which is how clips are stored: no frame is known better than that."""


def psnr(found: Tensor, real: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of every frame, averaged over a clip's frames.

    MONAI's is infinite for equal frames, which no mean survives; here an error below that of storing the real clip counts as
    that error, so that the highest value is 58.9 dB.

    Args:
        found, real: (B, T, C, H, W) in [-1, 1].

    Returns:
        (B,) dB.
    """
    error = (found - real).square().mean((2, 3, 4)).clamp_min(ROUNDING)
    return (10 * torch.log10(RANGE**2 / error)).mean(1)


def ssim(found: Tensor, real: Tensor) -> Tensor:
    """Structural similarity of every frame (Wang et al. 2004), averaged over a clip's frames and colours.

    MONAI's, with the paper's Gaussian window: 11 pixels wide, standard deviation 1.5, only where it lies within the frame.

    Args:
        found, real: (B, T, C, H, W) in [-1, 1], H and W >= 11.

    Returns:
        (B,), 1 for equal frames.
    """
    light, other = ((one.flatten(0, 1) + 1) / RANGE for one in (found, real))  # its luminance term wants black to be 0
    alike, _ = compute_ssim_and_cs(light, other, spatial_dims=2, kernel_size=(11, 11), kernel_sigma=(1.5, 1.5), data_range=1)
    return alike.unflatten(0, found.shape[:2]).flatten(1).mean(1)

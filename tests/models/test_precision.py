"""Sampling in bf16: what comes out is float32 and, but for rounding, the clip that float32 gives."""

from __future__ import annotations

import pytest
import torch
from tiny_generators import TINY, sampled, trained


@pytest.mark.parametrize("kind", TINY)
def test_networks_compute_in_bf16_and_solvers_do_not(kind: str) -> None:
    made = trained(kind)
    whole = sampled(made)
    with torch.autocast("cpu", torch.bfloat16):
        half = sampled(made)
    assert half.dtype == torch.float32 and half.abs().max() <= 1
    assert not torch.equal(half, whole)
    # bf16 has 8 bits, and strong guidance multiplies what is lost
    assert (half - whole).abs().mean() < 0.05 * whole.std()

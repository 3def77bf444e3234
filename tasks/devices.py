"""Which devices there are to work on."""

from __future__ import annotations

import torch


def visible_devices() -> list[str]:
    """Every visible GPU, or the CPU once: its cores already share one operation."""
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]

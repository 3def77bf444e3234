"""FVD in two halves: I3D as published against folded and channels last, SciPy's matrix root against tasks.metrics.frechet.

    python benchmarks/fvd.py > fvd.json

One process and one thread, both ways in every round. Both must give the same to 1e-5 of the largest value or the run fails.
Prints JSON: of every size the medians of time, wall and CPU, and of the ratio within a round, with its lowest and highest; and
how many clips the folded net sees a second on the first GPU, if there is one.

cd-fvd itself needs torchvision and fetches weights, so only its arithmetic is here: the network of piergiaj/pytorch-i3d, which
pads before every layer, in eval mode; and `scipy.linalg.sqrtm` of the product of covariances. Weights are random, which changes
no time.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from scipy.linalg import sqrtm
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from models.features.i3d import CLASSES, TOGETHER
from models.nets.i3d import I3D, SIDE, Pool, for_inference
from tasks.metrics.frechet import frechet_of_features

FRAMES, ROUNDS, EPSILON = 16, 5, 1e-5
SIZES = {"512 of 2048 features": (512, 2048), "256 of 400": (256, 400), "2048 of 400": (2048, 400)}
GOALS = {"features": 1.7, "512 of 2048 features": 3}
"""Of the ratio of CPU times."""


def as_published(net: I3D) -> I3D:
    """The net itself, its convolutions and maxima behind a padding of their own, even of nothing, which copies."""
    for part in list(net.modules()):
        for name, layer in part.named_children():
            if isinstance(layer, Pool):
                setattr(part, name, padded(nn.MaxPool3d(layer.kernel, layer.stride), layer.kernel, layer.stride))
            elif isinstance(layer, nn.Conv3d) and layer.stride == (1, 1, 1):
                layer.padding = (0, 0, 0)
                setattr(part, name, padded(layer, layer.kernel_size, layer.stride))
    return net


def padded(layer: nn.Module, kernel: tuple[int, ...], stride: tuple[int, ...]) -> nn.Sequential:
    """Of sizes that the stride divides, as all of 16 x 224 x 224 are."""
    frames, height, width = (max(reach - step, 0) for reach, step in zip(kernel, stride, strict=True))
    sides = (width // 2, width - width // 2, height // 2, height - height // 2, frames // 2, frames - frames // 2)
    return nn.Sequential(nn.ConstantPad3d(sides, 0.0), layer)


def by_sqrtm(known: Tensor, made: Tensor) -> Tensor:
    """cd-fvd 0.1.1's way (Ge et al., MIT), with n - 1 for n in the covariances, so that the values can be compared."""
    first, second = known.double().numpy(), made.double().numpy()
    one, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = np.real(np.trace(sqrtm(one @ other)))
    return torch.tensor(((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(one) + np.trace(other) - 2 * root)


def sets(rows: int, width: int) -> tuple[Tensor, Tensor]:
    """Features that depend on each other, as real ones do, one set a little different."""
    rng = torch.Generator().manual_seed(rows)
    mix = torch.randn(width, width, generator=rng) / width**0.5
    known, made = torch.randn(2, rows, width, generator=rng)
    return known @ mix, 0.9 * made @ mix + 0.1


def timed(way: Callable[[], Tensor]) -> tuple[Tensor, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    found = way()
    return found, time.perf_counter() - wall, time.process_time() - cpu


def beside(name: str, peer: Callable[[], Tensor], ours: Callable[[], Tensor], rounds: int) -> dict[str, Any]:
    """Both ways round after round; the first, of which the values are compared, is not timed."""
    wanted, found = peer(), ours()
    apart = float((found - wanted).abs().max() / wanted.abs().max())
    if apart > 1e-5:
        raise SystemExit(f"{name}: the values differ by {apart:.1e} of the largest")
    taken = [(timed(peer)[1:], timed(ours)[1:]) for _ in range(rounds)]
    report: dict[str, Any] = {"apart": apart, "goal": GOALS.get(name)}
    for at, kind in enumerate(("wall", "cpu")):
        theirs, own = ([times[side][at] for times in taken] for side in (0, 1))
        ratios = [one / other for one, other in zip(theirs, own, strict=True)]
        report[kind] = {"peer_s": statistics.median(theirs), "ours_s": statistics.median(own),
                        "ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
    return report


def machine() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", info.read_text()) if info.exists() else []
    return names[0] if names else platform.machine()


def on_gpu(net: I3D) -> dict[str, Any]:
    """Clips a second, so many together."""
    net, found = net.cuda(), {}
    for together in (8, 32, 64):
        clips = torch.rand(together, 3, FRAMES, SIDE, SIDE, device="cuda") * 2 - 1
        net(clips)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(ROUNDS):
            net(clips)
        torch.cuda.synchronize()
        found[str(together)] = ROUNDS * together / (time.perf_counter() - start)
    return {"clips a second on a GPU": {"device": torch.cuda.get_device_name(), **found}}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=TOGETHER, help=f"clips of {FRAMES} frames seen together ({TOGETHER})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds of every size ({ROUNDS})")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = I3D(CLASSES, EPSILON).eval()
    fast, net = for_inference(copy.deepcopy(net)), as_published(net)
    clips = torch.rand(asked.clips, 3, FRAMES, SIDE, SIDE) * 2 - 1
    found: dict[str, Any] = {}
    with threadpool_limits(1):
        found["features"] = beside("features", partial(net, clips), partial(fast, clips), asked.rounds)
        for name, (rows, width) in SIZES.items():
            both = sets(rows, width)
            found[name] = beside(name, partial(by_sqrtm, *both), partial(frechet_of_features, *both), asked.rounds)
    about = {"python": platform.python_version(), "torch": torch.__version__, "scipy": scipy.__version__, "device": machine(),
             "threads": 1, "rounds": asked.rounds, "clips": [asked.clips, FRAMES, SIDE, SIDE]}
    about |= on_gpu(fast) if torch.cuda.is_available() else {}
    sys.stdout.write(json.dumps(about | {"measured": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()

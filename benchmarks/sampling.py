"""Sampling as it is, in bf16, and in bf16 with compiled networks, side by side on the first GPU (or the CPU).

    python benchmarks/sampling.py [profile] [steps]

SF-VD with the sizes, batch and sampling options of a profile (gpu), its networks untrained, which changes no time; a few steps,
multiplied up to the profile's. Each way makes the same clips twice: the first time it warms up, or compiles. Clips of the other
ways must be those of the first but for rounding, or the run fails. Prints a line of JSON a way; docs/speed/sampling.jsonl has
those that were measured.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from models import plugin
from models.clip import Condition
from models.diffusion.unet import unet
from models.generators import Checkpoint, build
from tasks.devices import first_device
from tasks.params import Params, load_params
from tasks.profiles import apply_profiles

ROOT = Path(__file__).parents[1]
WAYS = {"float32": (False, False), "bf16": (True, False), "bf16, compiled": (True, True)}
"""Half precision, compiled."""


def profiled(name: str) -> Params:
    """params.yaml with a profile over it."""
    with tempfile.TemporaryDirectory() as folder:
        params = Path(folder) / "params.yaml"
        params.write_text((ROOT / "params.yaml").read_text())
        apply_profiles(params, [ROOT / "profiles" / f"{name}.yaml"])
        return load_params(params)


def untrained(tree: Params) -> Checkpoint:
    """Networks of the profile's sizes, for one class and grey frames."""
    params, size = plugin.params("models.generators", tree.generators["sfvd"]), tree.dataset.frame_size
    nets = {"psi": unet(params.psi, size, 1, 2, seed=0), "scene": unet(params.scene, size, 3, 2, seed=1),
            "motion": unet(params.motion, size, 5, 2, seed=2, distances=True)}
    facts = {"clip_shape": [tree.dataset.clip_frames, 1, *size], "classes": 1}
    return Checkpoint("sfvd", params.model_dump(mode="json"), nets, facts, {})


def main(profile: str = "gpu", steps: int = 10) -> None:
    tree = profiled(profile)
    wanted, device = tree.samples["sfvd"], first_device()
    sampling = plugin.params("models.generators", {"kind": "sfvd", **wanted.sampling, "steps": steps}, "Sampling")
    whole = plugin.params("models.generators", {"kind": "sfvd", **wanted.sampling}, "Sampling").steps
    clips, frames, (height, width) = wanted.batch_clips, tree.dataset.clip_frames, tree.dataset.frame_size
    masks = torch.zeros(clips, frames, height, width, dtype=torch.uint8)
    masks[:, :, height // 2 : height // 2 + 2, width // 4 : 3 * width // 4] = 1
    condition, made = Condition(tuple(map(str, range(clips))), masks), untrained(tree)
    machine = device if device == "cpu" else torch.cuda.get_device_name()
    about: dict[str, Any] = {"device": machine, "torch": torch.__version__, "date": str(date.today()), "profile": profile,
                             "batch_clips": clips, "steps": [steps, whole], "clip": [frames, height, width]}
    reference = None
    for name, (half, compiled) in WAYS.items():
        own = build("sfvd", made.params, Checkpoint("sfvd", made.params, copy.deepcopy(made.nets), made.facts, {}))
        for net in own._nets.values() if compiled else ():
            net.compile()
        took = []
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(2):
            began = time.perf_counter()
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
                shown = own.sample(condition, list(range(clips)), sampling, device).frames
            took.append(time.perf_counter() - began)
        reference = shown if reference is None else reference
        apart = float((shown - reference).abs().mean() / reference.std())
        if apart > 0.1:
            raise SystemExit(f"{name}: clips are {apart:.2f} standard deviations from those of float32")
        found = {"way": name, "seconds_a_clip": took[1] / clips / steps * whole, "at_first_s": took[0] - took[1],
                 "apart": apart, "peak_gib": None if device == "cpu" else torch.cuda.max_memory_allocated() / 2**30}
        sys.stdout.write(json.dumps(about | found) + "\n")
        sys.stdout.flush()
        del own


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))

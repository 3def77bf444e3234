"""What a run was asked to do, for its report: the choices that matter in words, and all parameters as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tasks.params import Params


def asked(params: Params) -> list[tuple[str, str]]:
    """The choices that matter most, in words; the page has all of them in a fold."""
    dataset = params.dataset
    split, (height, width) = dataset.split, dataset.frame_size
    kind = "simulated" if dataset.simulated else "real"
    few = f"; masks of {dataset.annotated_patients} training patients are used" if dataset.annotated_patients else ""
    benchmark = params.benchmark
    rows = [
        ("Data", f"{dataset.name}, {kind}, read by {dataset.reader}; licence: {dataset.licence}"),
        ("Clips", f"{dataset.clip_frames} frames of {height} by {width} pixels, stride {dataset.stride}; "
                  f"classes: {', '.join(dataset.classes) or 'none'}"),
        ("Split by patient", f"train {split.train:g}, validation {split.val:g}, test {split.test:g}{few}"),
        ("Conditions", _entry(params.conditions)),
    ]
    rows += [(f"Generator {name}", _entry(entry)) for name, entry in params.generators.items()]
    rows += [(f"Critic {name}", _entry(entry)) for name, entry in params.critics.items()]
    for name, sample in params.samples.items():
        options = ", ".join(f"{key} {value}" for key, value in sample.sampling.items()) or "default sampling"
        rows.append((f"Set {name}", f"{sample.clips} clips by {sample.generator}; {options}"))
    rows += [(f"Filter {name}", _entry(entry)) for name, entry in params.filters.items()]
    networks = f"{len(benchmark.networks)} networks ({', '.join(benchmark.networks)})"
    arms, seeds = len(benchmark.arms), len(benchmark.seeds)
    rows.append(("Benchmark", f"{arms} arms, {networks}, {seeds} seeds; baseline: {benchmark.baseline}"))
    rows.append(("Release", f"{params.release.name} {params.release.version}, from set {params.release.source}"))
    return [*rows, ("Seed", str(params.seed))]


def _entry(entry: dict[str, Any]) -> str:
    """A plug-in's kind, its plain options, and how long each of its networks is trained."""
    entry = _without_folders(entry)
    plain = [f"{key} {value}" for key, value in entry.items() if key != "kind" and not isinstance(value, dict)]
    return ", ".join([str(entry["kind"]), *plain, *_steps(entry, "")])


def _steps(entry: dict[str, Any], path: str) -> list[str]:
    """Of every training below: its network, if it has a name, with steps and batch size."""
    found = []
    for key, value in entry.items():
        if isinstance(value, dict) and "steps" in value:
            name = path if key == "train" else key
            found.append(f"{name} {value['steps']} steps of {value.get('batch_size', '?')}".strip())
        elif isinstance(value, dict):
            found += _steps(value, key)
    return found


def yaml_of(params: Params) -> str:
    """All parameters that a result depends on; of an absolute path only the last part, since the page is sent around."""
    tree = params.model_dump(mode="json", exclude={"repeats", "schedule", "engine"})
    return yaml.safe_dump(_without_folders(tree), sort_keys=False, allow_unicode=True)


def _without_folders(value: Any) -> Any:
    """JSON value with the last part alone of every text that is an absolute path."""
    if isinstance(value, dict):
        return {key: _without_folders(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    return f"…/{Path(value).name}" if isinstance(value, str) and Path(value).is_absolute() else value

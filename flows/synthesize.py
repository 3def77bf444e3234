"""Sample one synthetic set, shard by shard, on every visible device; in rounds, where clips are rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.artifacts import counts, sheet, wait_for
from flows.layout import Layout
from flows.steps import sample_shard
from tasks.devices import visible_devices
from tasks.params import entry, load_params
from tasks.rounds import clips_of_classes, sample_until
from tasks.sample import finish, plan_shards


@flow(name="sample", flow_run_name="sample {name}", task_runner=ThreadPoolTaskRunner(max_workers=len(visible_devices())))  # type: ignore[arg-type]
def sample(params: Path, data: Layout, name: str) -> int:
    tree = load_params(params)
    wanted = entry(tree.samples, name, "samples")
    checkpoint, out = data.checkpoint(wanted.generator), data.clips / name

    def make(rounds: Sequence[Mapping[str, int]] | None = None, basis: Any = None) -> int:
        left = plan_shards(wanted, tree.seed, checkpoint, data.conditions, out, rounds, basis)
        runs = [sample_shard.submit(name, shard, checkpoint, data.conditions, out) for shard in left]
        wait_for(f"sampled-{name}-progress", "shards sampled", runs)
        return len(left)

    if wanted.per_class is None:
        now = make()
    elif wanted.until is None:
        now = make([clips_of_classes(wanted, data.prepared)])
    else:
        classes = clips_of_classes(wanted, data.prepared)
        now, accepted = sample_until(wanted, classes, tree.filters[wanted.until], data.critics, out, make)
        counts(f"accepted-{name}", {f"{label}: {what}": one[what] for label, one in accepted.items()
                                    for what in ("wanted", "made", "kept")})
    made = finish(wanted.generator, data.conditions, checkpoint, out)
    counts(f"sampled-{name}", {"clips": made, "shards sampled now": now})
    sheet(f"sampled-{name}", out / "clips.zarr")
    return made

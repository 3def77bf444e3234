"""Sample one synthetic set, shard by shard, on every visible device."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.artifacts import counts, sheet
from flows.layout import Layout
from flows.steps import sample_shard
from tasks.devices import visible_devices
from tasks.params import entry, load_params
from tasks.sample import finish, plan_shards


@flow(name="sample", flow_run_name="sample {name}", task_runner=ThreadPoolTaskRunner(max_workers=len(visible_devices())))  # type: ignore[arg-type]
def sample(params: Path, data: Layout, name: str) -> int:
    tree = load_params(params)
    wanted = entry(tree.samples, name, "samples")
    checkpoint, out = data.checkpoint(wanted.generator), data.clips / name
    left = plan_shards(wanted, tree.seed, checkpoint, data.conditions, out)
    runs = [sample_shard.submit(name, shard, checkpoint, data.conditions, out) for shard in left]
    for run in runs:
        run.result()
    made = finish(wanted.generator, data.conditions, checkpoint, out)
    counts(f"sampled-{name}", {"clips": made, "shards sampled now": len(left)})
    sheet(f"sampled-{name}", out / "clips.zarr")
    return made

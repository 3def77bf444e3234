"""Sample one synthetic set, shard by shard, on every visible device; in rounds, where clips are rejected."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger

from flows.artifacts import counts, in_turn, sheet
from flows.engine import engine
from flows.layout import Layout
from flows.steps import sample_shard, sample_shard_at
from tasks.devices import visible_devices
from tasks.exchange import offer, take_shard, withdraw
from tasks.ledger import writing
from tasks.params import entry, load_params
from tasks.rounds import clips_of_classes, sample_until
from tasks.sample import Made, finish, plan_shards
from tasks.timing import sampling_time


@flow(name="sample", flow_run_name="sample {name}")
def sample(params: Path, data: Layout, name: str) -> int:
    began, done = time.monotonic(), list[Made]()
    tree = load_params(params)
    wanted = entry(tree.samples, name, "samples")
    checkpoint, out = data.checkpoint(wanted.generator), data.clips / name
    exchange, address = tree.engine.exchange, ""
    with writing(out), engine(tree.engine, len(visible_devices())) as own:

        def make(rounds: Sequence[Mapping[str, int]] | None = None, basis: Any = None) -> int:
            nonlocal address
            left = plan_shards(wanted, tree.seed, checkpoint, data.conditions, out, rounds, basis)
            if exchange is None:
                runs = [own.submit(sample_shard, name=name, shard=shard, checkpoint=checkpoint, conditions=data.conditions,
                                   out=out) for shard in left]
            else:
                address = offer(exchange, checkpoint, data.conditions, out)
                runs = [own.submit(sample_shard_at, name=name, shard=shard, address=address) for shard in left]
            for shard, now in zip(left, in_turn(f"sampled-{name}-progress", "shards sampled", runs), strict=True):
                done.append(now)
                if address:
                    take_shard(address, shard, out)
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
    if address:
        withdraw(address)
    took = sampling_time(done, time.monotonic() - began, own.workers, out, data.timing / "sample" / f"{name}.json")
    counts(f"sampled-{name}", {"clips": made, "shards sampled now": now, **took})
    if took:
        get_run_logger().info("%d clips in %.0f s, %.0f s of them inside the generator, %d shards at a time: overhead %.1f %%",
                              took["clips"], took["wall_seconds"], took["model_seconds"], took["workers"],
                              100 * took["overhead"])
    sheet(f"sampled-{name}", out / "clips.zarr")
    return made

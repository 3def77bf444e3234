"""The stages of a whole tiny line as plain calls, in the order and with the folders of `flows`, without its server.

Real trainings of a few steps, real sampling, filters, audit and release. What DVC does for the line, knowing which stages have
ended, `run` does with a file for each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from torch.optim.optimizer import register_optimizer_step_pre_hook

import tasks.curate
import tasks.prepare
import tasks.sample
from flows.layout import Layout
from tasks.arms import NoStates
from tasks.audit import audit
from tasks.benchmark import plan_runs, run_one, summarise
from tasks.benchmarks import segmentation
from tasks.checkpoints import FolderStates
from tasks.condition import make_conditions
from tasks.curate import clear_evidence, run_chain, score_shard, shards_of
from tasks.ledger import one_writer, writing
from tasks.params import Params, load_params
from tasks.prepare import prepare
from tasks.profiles import apply_profiles
from tasks.release import release
from tasks.sample import finish, plan_shards, sample_shard
from tasks.store import ClipStore
from tasks.train import train_critic, train_generator

ROOT = Path(__file__).parents[2]
SET = "sfvd"
WHOLE = ("condition", "audit")
"""Stages without smaller units: killed, they are done again."""


def write_params(folder: Path, changes: dict[str, Any]) -> Path:
    """The parameter file of the tiny line, with these changes over it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "params.yaml"
    path.write_bytes((ROOT / "params.yaml").read_bytes())
    (folder / "changes.yaml").write_text(yaml.safe_dump(changes))
    apply_profiles(path, [ROOT / "tests" / "flows" / "tiny.yaml", ROOT / "tests" / "trust" / "tinier.yaml",
                          folder / "changes.yaml"])
    return path


def stages(tree: Params, data: Layout, units: Units) -> dict[str, Callable[[], Any]]:
    """Every stage by its name in dvc.yaml, in order; the report, which only shows what the others left, is not among them."""
    clips, decisions = data.clips / SET, data.decisions / SET

    def prepared() -> None:
        with writing(data.prepared):
            prepare(tree.dataset, tree.seed, data.prepared)

    def conditioned() -> None:
        with writing(data.conditions):
            make_conditions(tree.conditions, tree.seed, data.prepared, data.conditions)

    def trained(name: str) -> None:
        with one_writer(data.checkpoint(name)):
            train_generator(name, tree.generators[name], tree.seed, data.prepared, data.checkpoint(name))

    def criticised(name: str) -> None:
        with one_writer(data.critics / name):
            train_critic(name, tree.critics[name], tree.seed, data.prepared, data.critics / name)

    def sampled() -> None:
        own = tree.samples[SET]
        checkpoint = data.checkpoint(own.generator)
        with writing(clips):
            for shard in plan_shards(own, tree.seed, checkpoint, data.conditions, clips):
                sample_shard(shard, checkpoint, data.conditions, clips)
            finish(own.generator, data.conditions, checkpoint, clips)

    def curated() -> None:
        with writing(decisions):
            for name, entry in tree.filters.items():
                for units.shard in shards_of(clips):
                    score_shard(clips, units.shard, name, entry, data.critics, decisions)
            units.shard = None
            run_chain(clips, tree.filters, data.critics, decisions)
        clear_evidence(decisions)

    def audited() -> None:
        with writing(data.audit / SET):
            audit(data.prepared, data.conditions, data.checkpoint(SET), clips, data.audit / SET)

    def benchmarked() -> None:
        with writing(data.benchmark):
            for one in plan_runs(tree.benchmark):
                run_one(one, tree.benchmark, data.prepared, data.clips, data.decisions, data.benchmark)
            summarise(tree.benchmark, data.benchmark)

    def released() -> None:
        with writing(data.release):
            release(tree.release, tree.dataset, tree.audit, data.prepared, data.clips, data.decisions, data.audit,
                    data.benchmark, data.release)

    return {
        "prepare": prepared,
        "condition": conditioned,
        **{f"train {name}": lambda name=name: trained(name) for name in tree.generators},
        **{f"critic {name}": lambda name=name: criticised(name) for name in tree.critics},
        "sample": sampled,
        "curate": curated,
        "audit": audited,
        "benchmark": benchmarked,
        "release": released,
    }


def run(params: Path, data: Path, wanted: list[str] | None = None) -> None:
    """The stages that have not ended yet, or these in any case; `work.log` beside the folder is told of the units of work."""
    tree, ended = load_params(params), data.parent / "ended"
    ended.mkdir(exist_ok=True)
    units = Units(data.parent / "work.log")
    for name, stage in stages(tree, Layout(data), units).items():
        if name in wanted if wanted is not None else not (ended / name).exists():
            if name in WHOLE:
                units.begins("stage", name)
            stage()
            (ended / name).touch()


class Units:
    """Tells a log whenever a unit of work begins: a shard, a filter's look at a shard, a run of the benchmark, one step of a
    training, or a stage that has no such units. Lines are JSON lists of words."""

    def __init__(self, log: Path) -> None:
        self._file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.shard: int | None = None
        """What `curate` looks at."""
        self._training: tuple[str, int] | None = None
        register_optimizer_step_pre_hook(lambda *_: self._step())
        before(ClipStore, "write_shard", lambda store, shard, *_: self._shard(store.path, shard))
        before(tasks.prepare, "_survey", lambda *_: self.begins("survey"))
        before(tasks.sample, "_sample", lambda plan, *_: self.begins("sample", plan[0].shard))
        before(tasks.curate, "filter_of", lambda entry, _: self._look(entry["kind"]))
        before(segmentation, "evaluate", lambda run, *_: self.begins("run", run.arm, run.network, run.seed))
        before(NoStates, "load", lambda *_: self._trains(None))
        after(FolderStates, "load", lambda state, states, phase: self._trains(
            (f"{states._folder.parent.name} {phase}", state.step if state else 0)))

    def begins(self, *words: object) -> None:
        os.write(self._file, (json.dumps(words) + "\n").encode())

    def _shard(self, store: Path, shard: int) -> None:
        if store.parent.name not in ("conditions", SET):  # a stage of one unit; and what is counted when it is sampled
            self.begins("shard", store.parent.name, shard)

    def _look(self, kind: str) -> None:
        if self.shard is not None:
            self.begins("score", kind, self.shard)

    def _trains(self, what: tuple[str, int] | None) -> None:
        self._training = what

    def _step(self) -> None:
        if self._training is not None:
            phase, step = self._training
            self.begins("step", phase, step)
            self._training = phase, step + 1


def before(owner: Any, name: str, tell: Callable[..., None]) -> None:
    """Whoever calls this function or method tells first."""
    plain = getattr(owner, name)

    def told(*arguments: Any, **named: Any) -> Any:
        tell(*arguments)
        return plain(*arguments, **named)

    setattr(owner, name, told)


def after(owner: Any, name: str, tell: Callable[..., None]) -> None:
    """Whoever calls this method tells afterwards, with its result first."""
    plain = getattr(owner, name)

    def told(*arguments: Any) -> Any:
        result = plain(*arguments)
        tell(result, *arguments)
        return result

    setattr(owner, name, told)

"""Fit the generators and the critics the filters look through."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.artifacts import counts
from flows.layout import Layout
from tasks.ledger import one_writer
from tasks.params import entry, load_params
from tasks.processes import train_together
from tasks.train import train_critic, train_generator


@flow(name="train", flow_run_name="train {name}")
def train(params: Path, data: Layout, name: str) -> str:
    tree = load_params(params)
    job = name, entry(tree.generators, name, "generators"), tree.seed, data.prepared, data.checkpoint(name)
    with one_writer(data.checkpoint(name)):
        digest = train_generator(*job) if tree.engine.processes == 1 else train_together(tree.engine.processes, *job)
    counts(f"checkpoint-{name}", {"checkpoint": name, "digest": digest})
    return digest


@flow(name="critic", flow_run_name="critic {name}")
def critic(params: Path, data: Layout, name: str) -> str:
    tree = load_params(params)
    with one_writer(data.critics / name):
        digest = train_critic(name, entry(tree.critics, name, "critics"), tree.seed, data.prepared, data.critics / name)
    counts(f"critic-{name}", {"critic": name, "digest": digest})
    return digest

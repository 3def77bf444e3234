"""Checkpoints and training states on disk: safetensors and JSON in diffusers' layout, never pickle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save

from models.generators import Checkpoint
from models.trainer import TrainState
from tasks.tables import atomic_write, file_digest, read_json, sync_folder, write_json

RECORD = "checkpoint.json"


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, fingerprint: str, trained_on: Mapping[str, Any]) -> str:
    """Write the networks, the loss curves and, last, the record that makes it a checkpoint; returns its digest.

    Args:
        folder: one subfolder a network (`save_pretrained`), losses.csv, checkpoint.json.
        fingerprint: what it was made from; see `is_done`.
        trained_on: clips, patients and their digest; kept in the record.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    sync_folder(folder)
    for name, net in sorted(checkpoint.nets.items()):
        partial = folder / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        net.save_pretrained(partial)  # type: ignore[operator]
        for file in partial.rglob("*"):
            _sync_file(file)
        shutil.rmtree(folder / name, ignore_errors=True)
        partial.rename(folder / name)
    curves = "phase,step,loss\n" + "".join(
        f"{phase},{step},{loss:.6g}\n" for phase, losses in checkpoint.losses.items() for step, loss in enumerate(losses)
    )
    atomic_write(folder / "losses.csv", curves.encode())
    files = {str(file.relative_to(folder)): file_digest(file) for name in checkpoint.nets for file in sorted((folder / name).rglob("*"))}
    record = {"kind": checkpoint.kind, "params": checkpoint.params, "facts": checkpoint.facts, "files": files,
              "nets": {name: type(net).__name__ for name, net in checkpoint.nets.items()}}
    digest = _digest(record)
    write_json(folder / RECORD, {**record, "digest": digest, "fingerprint": fingerprint, "trained_on": dict(trained_on)})
    return digest


def load_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in a folder, every file verified.

    Raises:
        ValueError: naming the file that is missing or differs from its recorded digest.
    """
    record = _record(folder)
    for name, digest in record["files"].items():
        if not (folder / name).is_file() or file_digest(folder / name) != digest:
            raise ValueError(f"{folder / name}: missing or not what was saved; pull it again or run its training stage")
    if _digest({key: record[key] for key in ("kind", "params", "facts", "files", "nets")}) != record["digest"]:
        raise ValueError(f"{folder / RECORD}: not what was saved; pull it again or run its training stage")
    nets = {name: _net_class(kind).from_pretrained(folder / name).eval() for name, kind in record["nets"].items()}
    return Checkpoint(record["kind"], record["params"], nets, record["facts"], {})


def checkpoint_digest(folder: Path) -> str:
    return str(_record(folder)["digest"])


def is_done(folder: Path, fingerprint: str) -> bool:
    """Whether a whole checkpoint of this fingerprint is there."""
    return (folder / RECORD).exists() and read_json(folder / RECORD)["fingerprint"] == fingerprint


class FolderStates:
    """Training states, one file a phase: a `models.trainer.StateHook`. States of another fingerprint are ignored."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint

    def load(self, phase: str) -> TrainState | None:
        """The saved state, or None if there is none, it is of another fingerprint, or its checksum differs."""
        file = self._file(phase)
        if not file.exists():
            return None
        try:
            with safetensors.safe_open(file, "pt") as opened:
                facts = opened.metadata() or {}
            tensors = load_file(file)
        except safetensors.SafetensorError:
            return None
        if facts.get("fingerprint") != self.fingerprint or facts.get("digest") != _tensor_digest(tensors):
            return None
        losses = tensors.pop("losses").tolist()
        return TrainState(len(losses), tensors, losses)

    def save(self, phase: str, state: TrainState) -> None:
        tensors = {**{name: value.contiguous() for name, value in state.tensors.items()}, "losses": torch.tensor(state.losses, dtype=torch.float64)}
        facts = {"fingerprint": self.fingerprint, "digest": _tensor_digest(tensors)}
        atomic_write(self._file(phase), save(tensors, facts))

    def clear(self) -> None:
        """Remove every state: the checkpoint is committed."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, phase: str) -> Path:
        return self.folder / f"{phase}.safetensors"


def _net_class(name: str) -> Any:
    """The networks a checkpoint may name; nothing else is ever constructed from a file."""
    if name == "Segmenter":
        from models.segmenters import Segmenter

        return Segmenter
    if name in ("UNet2DModel", "AutoencoderKL"):
        import diffusers

        return getattr(diffusers, name)
    raise ValueError(f"net class {name!r} is not one a checkpoint may name")


def _record(folder: Path) -> dict[str, Any]:
    if not (folder / RECORD).exists():
        raise ValueError(f"{folder}: no checkpoint here; run its training stage")
    record: dict[str, Any] = read_json(folder / RECORD)
    return record


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(record, sort_keys=True).encode(), digest_size=16).hexdigest()


def _tensor_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)}:".encode() + value.numpy().tobytes())
    return digest.hexdigest()


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)



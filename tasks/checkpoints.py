"""Checkpoints and training states on disk: safetensors and JSON in diffusers' layout, never pickle.

    sfvd/scene/config.json, diffusion_pytorch_model.safetensors   one folder a network, as `save_pretrained` writes it
    sfvd/losses.csv                                               phase, step, loss
    sfvd/checkpoint.json                                          written last; without it the rest means nothing
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import ModelMixin
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.generators import Checkpoint
from models.trainer import TrainState
from models.weight_files import configuration, loading
from tasks.tables import (
    PARTIAL,
    atomic_path,
    file_digest,
    make_folder,
    naming,
    read_json,
    read_sealed,
    stays_below,
    sync,
    write_sealed,
)

RECORD = "checkpoint.json"
_CONFIG = "config.json"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_LOSSES = "losses.csv"
_STATES = ".state"


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, fingerprint: str, trained_on: Mapping[str, Any]) -> str:
    """Put a checkpoint into a folder in place of what was there; returns its digest.

    Killed at any moment it leaves no `checkpoint.json`, or a whole checkpoint. Equal checkpoints give equal bytes.

    Args:
        fingerprint: of what it was made from, for `is_done`; not part of the digest.
        trained_on: every clip and patient the weights have seen, as plain JSON values.

    Raises:
        ValueError: for a network of a class that is neither diffusers' nor in `models`, or parameters and facts that are not
            plain JSON values.
    """
    classes = {name: _class_name(name, net) for name, net in checkpoint.nets.items()}
    partial = folder / f".new{PARTIAL}"
    make_folder(folder)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        digest = _write(partial, checkpoint, classes, fingerprint, trained_on)
        _replace(folder, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # a full disk is not to stay full
    return digest


def _write(partial: Path, checkpoint: Checkpoint, classes: dict[str, str], fingerprint: str,
           trained_on: Mapping[str, Any]) -> str:
    """Every file of the checkpoint, synced; returns its digest."""
    partial.mkdir()
    needed = sum(value.nbytes for net in checkpoint.nets.values() for value in net.state_dict().values())
    with naming(partial.parent / RECORD, needed), _os_errors():
        for name, net in sorted(checkpoint.nets.items()):
            _save_net(partial / name, net)
        (partial / _LOSSES).write_text(_losses_text(checkpoint.losses))
    record = {
        "kind": checkpoint.kind,
        "params": checkpoint.params,
        "facts": checkpoint.facts,
        "nets": classes,
        "trained_on": dict(trained_on),
        "files": {file.relative_to(partial).as_posix(): file_digest(file) for file in _files(partial)},
    }
    digest = _digest(record)
    write_sealed(partial / RECORD, {**record, "digest": digest, "fingerprint": fingerprint})
    for path in (*_files(partial), *(child for child in partial.iterdir() if child.is_dir()), partial):
        sync(path)
    return digest


def _replace(folder: Path, partial: Path) -> None:
    """What is in `partial` takes the place of all that is in the folder, but for training states."""
    (folder / RECORD).unlink(missing_ok=True)
    sync(folder)
    for old in folder.iterdir():
        if old != partial and old.name != _STATES:
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    for new in sorted(partial.iterdir(), key=lambda path: (path.name == RECORD, path.name)):
        if new.name == RECORD:
            sync(folder)  # everything it speaks of is durable before it is
        new.rename(folder / new.name)
    sync(folder)


@contextmanager
def _os_errors() -> Iterator[None]:
    """safetensors tells of a failed write in an error of its own; this gives the system's."""
    try:
        yield
    except SafetensorError as error:
        if (number := re.search(r"os error (\d+)", str(error))) is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def load_checkpoint(folder: Path, device: str = "cpu") -> Checkpoint:
    """The checkpoint in a folder, every byte verified; networks on that device, in eval mode.

    Raises:
        ValueError: naming the file that is missing, surplus in a network, or not what was saved.
    """
    record = _whole(folder)
    nets = {name: _load_net(folder / name, kind).to(device) for name, kind in record["nets"].items()}
    return Checkpoint(record["kind"], record["params"], nets, record["facts"], _read_losses(folder / _LOSSES))


def checkpoint_digest(folder: Path) -> str:
    """The digest of the checkpoint in a folder, over its weights, configurations, parameters, facts and training data.

    Raises:
        ValueError: if there is no checkpoint, or its record was damaged.
    """
    return str(_record(folder)["digest"])


def is_done(folder: Path, fingerprint: str) -> bool:
    """Whether a whole, undamaged checkpoint of this fingerprint is there."""
    try:
        return bool(_whole(folder)["fingerprint"] == fingerprint)
    except ValueError:
        return False


class FolderStates:
    """Training states in a folder, one safetensors file a phase: a `models.trainer.StateHook`.

    Args:
        folder: `<checkpoint>/.state`, the only name `save_checkpoint` leaves alone.
        fingerprint: of the whole training; a state of another one is removed when met.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder, self._fingerprint = folder, fingerprint

    def load(self, phase: str) -> TrainState | None:
        """The phase's last state; None if there is none, or it is torn, damaged or of another fingerprint."""
        path = self._path(phase)
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as opened:
                stored = json.loads((opened.metadata() or {})["state"])
            tensors = load_file(path)
        except (SafetensorError, KeyError, json.JSONDecodeError):
            stored, tensors = {}, {}
        step = stored.get("step")
        if stored.get("checksum") != _state_checksum([self._fingerprint, phase, step], tensors):
            path.unlink(missing_ok=True)  # several processes may meet it
            return None
        losses: list[float] = tensors.pop("losses").tolist()
        return TrainState(step, {name.removeprefix("tensor."): value for name, value in tensors.items()}, losses)

    def save(self, phase: str, state: TrainState) -> None:
        """Replace the phase's state, atomically."""
        tensors = {f"tensor.{name}": value.contiguous() for name, value in state.tensors.items()}
        tensors["losses"] = torch.tensor(state.losses, dtype=torch.float64)  # floats of Python, bit for bit
        make_folder(self._folder)
        for partial in self._folder.glob(f"*{PARTIAL}"):
            partial.unlink()  # of a killed run; a training has one writer
        checksum = _state_checksum([self._fingerprint, phase, state.step], tensors)
        needed = sum(value.nbytes for value in tensors.values())
        with atomic_path(self._path(phase), needed) as path, _os_errors():
            save_file(tensors, path, {"state": json.dumps({"step": state.step, "checksum": checksum})})

    def clear(self) -> None:
        """Remove every state: the checkpoint they led to is there."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, phase: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", phase):
            raise ValueError(f"phase: {phase!r} is no file name; use letters, digits, - and _")
        return self._folder / f"{phase}.safetensors"


def _class_name(name: str, net: nn.Module) -> str:
    """"diffusers.AutoencoderKL", "models.segmenters.Segmenter": where the class is found again."""
    module = type(net).__module__
    where = "diffusers" if module.startswith("diffusers.") else module
    if not isinstance(net, ModelMixin) or not _allowed(where):
        raise ValueError(f"nets.{name}: class {module}.{type(net).__name__} cannot be loaded again; use a ModelMixin of "
                         "diffusers or one in `models`")
    return f"{where}.{type(net).__name__}"


def _allowed(module: str) -> bool:
    """Nothing but networks of diffusers and of this project is ever built from a file."""
    return module == "diffusers" or re.fullmatch(r"models(\.[a-z0-9_]+)+", module) is not None


def _save_net(folder: Path, net: nn.Module) -> None:
    ModelMixin.save_pretrained(net, folder, max_shard_size="1TB")  # one file, whatever its size
    config = folder / _CONFIG
    kept = {key: value for key, value in read_json(config).items() if key != "_name_or_path"}  # where it once was loaded from
    config.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


def _load_net(folder: Path, kind: str) -> nn.Module:
    """Not `from_pretrained`: that only warns of missing weights and leaves them random."""
    module, _, name = kind.rpartition(".")
    try:
        found: Any = getattr(importlib.import_module(module), name, None) if _allowed(module) else None
    except ImportError:
        found = None
    if not (isinstance(found, type) and issubclass(found, ModelMixin)):
        raise ValueError(f"{folder.parent / RECORD}: class {kind!r} is not one a checkpoint may name: a ModelMixin of "
                         "diffusers or of `models`")
    config = {key: value for key, value in configuration(folder / _CONFIG).items() if not key.startswith("_")}
    with loading(folder), torch.random.fork_rng(devices=[]):  # the caller's numbers stay its own
        net: Any = cast(Any, found).from_config(config)
    try:
        net.load_state_dict(load_file(folder / _WEIGHTS))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder / _WEIGHTS}: does not fit {kind}: {' '.join(str(error).split())[:400]}; train it again with "
                         "this version") from None
    net.eval()
    return cast(nn.Module, net)


def _record(folder: Path) -> dict[str, Any]:
    if not (folder / RECORD).exists():
        raise ValueError(f"{folder}: no checkpoint here; run its training stage")
    record = read_sealed(folder / RECORD)
    body = {key: value for key, value in record.items() if key not in ("digest", "fingerprint")}
    if record.get("digest") != _digest(body):
        raise ValueError(f"{folder / RECORD}: its digest is not that of its content; pull it again or run its training stage")
    parts = [record.get(name) for name in ("files", "nets", "params", "facts", "trained_on")]
    names = [name for part in parts[:2] if isinstance(part, dict) for name in part]
    if not (all(isinstance(part, dict) for part in parts) and isinstance(record.get("kind"), str)
            and all(map(stays_below, names)) and all(isinstance(kind, str) for kind in record["nets"].values())):
        raise ValueError(f"{folder / RECORD}: is no record of a checkpoint; pull it again or run its training stage")
    return record


def _whole(folder: Path) -> dict[str, Any]:
    """The record, after every file was compared with it."""
    record = _record(folder)
    for name, digest in sorted(record["files"].items()):
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: is missing; pull it again or run its training stage")
        if file_digest(folder / name) != digest:
            raise ValueError(f"{folder / name}: is not what was saved; pull it again or run its training stage")
    return record


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _digest(record: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(record, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"checkpoint: params, facts and trained_on must be plain JSON values: {error}") from None
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _losses_text(losses: Mapping[str, list[float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("phase", "step", "loss"))
    writer.writerows((phase, step, repr(loss)) for phase, values in losses.items() for step, loss in enumerate(values))
    return text.getvalue()


def _read_losses(path: Path) -> dict[str, list[float]]:
    losses: dict[str, list[float]] = {}
    with path.open(newline="") as file:
        try:
            for row in csv.DictReader(file):
                losses.setdefault(row["phase"], []).append(float(row["loss"]))
        except (KeyError, ValueError, TypeError, csv.Error) as error:
            raise ValueError(f"{path}: is no table of losses ({error}); pull it again or run its training stage") from None
    return losses


def _state_checksum(words: list[Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(json.dumps(words).encode(), digest_size=16)
    for name, value in sorted(tensors.items()):
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

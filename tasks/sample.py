"""Sampling in shards: a plan that lists every clip before anything runs, then one unit of work and of storage at a time."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models import plugin
from models.clip import Condition, to_uint8
from models.generators import ClipGenerator, build
from models.seeding import derive_seed
from tasks.checkpoints import checkpoint_digest, load_checkpoint
from tasks.condition import STORE
from tasks.fingerprint import code_digest, fingerprint, params_digest
from tasks.params import SampleParams
from tasks.records import ConditionRecord, PlanRecord, ProvenanceRecord
from tasks.store import ArraySpec, ClipStore, clip_digest, read_layout
from tasks.tables import checksum_of, read_json, read_table, write_json, write_table

logger = logging.getLogger(__name__)
Arrays = dict[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class Made:
    """What one shard took.

    Attributes:
        clips: made now; 0 if it was there already.
        model_seconds: of them inside the generator.
        cpu_seconds: that this process's threads computed meanwhile; on a CPU that others want too, what the work is.
    """

    clips: int = 0
    model_seconds: float = 0.0
    cpu_seconds: float = 0.0


def plan_shards(sample: SampleParams, seed: int, checkpoint: Path, conditions: Path, out: Path,
                rounds: Sequence[Mapping[str, int]] | None = None, basis: Any = None) -> list[int]:
    """Write `plan.parquet` and `plan.json` and open the store; returns the shards still to be made.

    Clip i takes condition i modulo the bank's size and draw i divided by it; of each class, if `rounds` say how many. A clip's
    seed hashes run seed, generator kind, condition and draw, so two sets that differ only in sampling options are paired clip
    by clip.

    Args:
        rounds: clips of each class, round by round; a longer list extends the plan of a shorter one. None: every condition in
            turn.
        basis: what rounds after the first depend on beside the clips before; other values begin anew.

    Raises:
        ValueError: for a class that no condition has.
    """
    kind = read_json(checkpoint / "checkpoint.json")["kind"]
    sampling = plugin.params("models.generators", {"kind": kind, **sample.sampling}, "Sampling").model_dump(mode="json")
    bank = read_table(conditions / "conditions.parquet", ConditionRecord)
    header = {
        "kind": kind,
        "checkpoint_digest": checkpoint_digest(checkpoint),
        "sampling": sampling,
        "computing": {"batch_clips": sample.batch_clips, "precision": sample.precision, "compile": sample.compile},
        "params_digest": params_digest(sample),
    }
    plan = []
    for number, (row, draw) in enumerate(_in_turn(len(bank), sample.clips) if rounds is None else _by_class(bank, rounds)):
        own_seed = derive_seed(seed, kind, bank[row].condition_id, draw)
        words = json.dumps(
            [header["checkpoint_digest"], bank[row].condition_id, own_seed, sampling, header["computing"]], sort_keys=True
        )
        clip_id = hashlib.blake2b(words.encode(), digest_size=16).hexdigest()
        one = bank[row]
        shard = number // sample.shard_clips
        plan.append(PlanRecord(clip_id, one.label, one.text, one.condition_id, row, draw, own_seed, shard))
    facts = read_json(checkpoint / "checkpoint.json")["facts"]
    frames, channels, height, width = facts["clip_shape"]
    arrays = {
        "frames": ArraySpec((frames, height, width, channels), "uint8"),
        "masks": ArraySpec((frames, height, width), "uint8"),
    }
    mark = fingerprint("sample", header, sample.model_dump(mode="json"), seed, [one.condition_id for one in bank], basis)
    store = ClipStore.create(out / "clips.zarr", arrays, sample.shard_clips, mark)
    if basis is None:
        (out / "rounds.json").unlink(missing_ok=True)  # of other parameters
    write_table(out / "plan.parquet", plan, PlanRecord)
    write_json(out / "plan.json", {**header, "fingerprint": mark, "code": code_digest(), "clips": len(plan)})
    return sorted({record.shard for record in plan} - store.done())


def _in_turn(bank: int, clips: int) -> Iterator[tuple[int, int]]:
    """(condition, draw): every condition once, then all again."""
    for number in range(clips):
        draw, row = divmod(number, bank)
        yield row, draw


def _by_class(bank: Sequence[ConditionRecord], rounds: Sequence[Mapping[str, int]]) -> Iterator[tuple[int, int]]:
    """(condition, draw): one of every class in turn; a class goes through its own conditions, over all rounds."""
    own: dict[str, list[int]] = defaultdict(list)
    for row, one in enumerate(bank):
        own[one.label or ""].append(row)
    taken: Counter[str] = Counter()
    for counts in rounds:
        if strange := sorted(set(counts) - set(own)):
            raise ValueError(f"per_class: no condition is of class {', '.join(strange)}; the bank has {', '.join(sorted(own))}")
        for turn in range(max(counts.values(), default=0)):
            for label in sorted(label for label, number in counts.items() if turn < number):
                draw, place = divmod(taken[label], len(own[label]))
                taken[label] += 1
                yield own[label][place], draw


def sample_shard(shard: int, checkpoint: Path, conditions: Path, out: Path, device: str = "cpu") -> Made:
    """Sample one shard of the plan and commit it, unless it is there.

    Raises:
        ValueError: if other code planned it: on another machine, or before an edit.
    """
    header = read_json(out / "plan.json")
    if header["code"] != code_digest():
        raise ValueError(f"{out / 'plan.json'}: was planned by code {header['code']}, but this process runs {code_digest()}; "
                         "give workers the same checkout, or run the stage again")
    store = ClipStore.resume(out / "clips.zarr", header["fingerprint"])
    if store.has(shard):
        return Made()
    plan = read_table(out / "plan.parquet", PlanRecord, range(shard * store.shard_clips, (shard + 1) * store.shard_clips))
    arrays, made = _sample(plan, header, checkpoint, conditions, device)
    store.write_shard(shard, [record.clip_id for record in plan], arrays)
    return made


def finish(name: str, conditions: Path, checkpoint: Path, out: Path) -> int:
    """Seal the store and write `provenance.parquet`; returns the number of clips."""
    header = read_json(out / "plan.json")
    plan = read_table(out / "plan.parquet", PlanRecord)
    store = ClipStore.resume(out / "clips.zarr", header["fingerprint"])
    store.finish(len(plan))
    patients = {
        record.condition_id: record.patients for record in read_table(conditions / "conditions.parquet", ConditionRecord)
    }
    generator, sampling = _generator(checkpoint, header["checkpoint_digest"], "cpu"), _sampling(header)
    draws = generator.draws([record.seed for record in plan], sampling)
    digests = dict(zip(store.ids, store.digests, strict=True))
    rows = [
        ProvenanceRecord(
            clip_id=record.clip_id,
            label=record.label,
            text=record.text,
            digest=digests[record.clip_id],
            generator=name,
            checkpoint_digest=header["checkpoint_digest"],
            condition_id=record.condition_id,
            patients=patients[record.condition_id],
            draw=record.draw,
            seed=record.seed,
            sampling=json.dumps({**header["sampling"], **header["computing"]}, sort_keys=True),
            draws=json.dumps(drawn, sort_keys=True),
            params_digest=header["params_digest"],
        )
        for record, drawn in zip(plan, draws, strict=True)
    ]
    write_table(out / "provenance.parquet", rows, ProvenanceRecord)
    return len(rows)


def resample(record: ProvenanceRecord, checkpoint: Path, conditions: Path, device: str = "cpu") -> tuple[Arrays, bool]:
    """Make one clip again from its provenance alone; returns its arrays and whether the pixels are the recorded ones.

    Raises:
        ValueError: if the checkpoint or the condition on disk is not the one the clip was made with.
    """
    if (found := checkpoint_digest(checkpoint)) != record.checkpoint_digest:
        raise ValueError(
            f"{checkpoint}: digest is {found}, clip {record.clip_id} was made with {record.checkpoint_digest}; pull that one"
        )
    bank = [condition.condition_id for condition in read_table(conditions / "conditions.parquet", ConditionRecord)]
    if record.condition_id not in bank:
        raise ValueError(f"{conditions}: has no condition {record.condition_id}; pull the version the clip was made with")
    options = json.loads(record.sampling)
    header = {
        "kind": read_json(checkpoint / "checkpoint.json")["kind"],
        "checkpoint_digest": found,
        "computing": {what: options.pop(what) for what in ("batch_clips", "precision", "compile")},
        "sampling": options,
    }
    row = bank.index(record.condition_id)
    plan = [PlanRecord(record.clip_id, record.label, record.text, record.condition_id, row, record.draw, record.seed, 0)]
    arrays, _ = _sample(plan, header, checkpoint, conditions, device)
    return arrays, clip_digest({name: values[0] for name, values in arrays.items()}) == record.digest


def _sample(plan: Sequence[PlanRecord], header: dict[str, Any], checkpoint: Path, conditions: Path,
            device: str) -> tuple[Arrays, Made]:
    """Frames and masks of these clips, in batches of exactly `batch_clips`, and what they took.

    The last batch is filled up with its own first clip: kernels choose their blocking by batch size, so only equal
    batch sizes give equal bits, and `resample` of one clip must give the bits it had among others.
    """
    computing, sampling = header["computing"], _sampling(header)
    generator = _generator(checkpoint, header["checkpoint_digest"], device, computing["compile"])
    bank = _bank(conditions / STORE, checksum_of(read_layout(conditions / STORE)))
    size = computing["batch_clips"]
    half = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=computing["precision"] == "bf16")
    frames, masks, wall, cpu = [], [], 0.0, 0.0
    for start in range(0, len(plan), size):
        batch = list(plan[start : start + size])
        padded = batch + [batch[0]] * (size - len(batch))
        condition = _condition(bank, padded)
        began = time.perf_counter(), time.process_time()
        with half:
            clips = generator.sample(condition, [record.seed for record in padded], sampling, device)  # on the CPU, so finished
        wall, cpu = wall + time.perf_counter() - began[0], cpu + time.process_time() - began[1]
        frames.append(to_uint8(clips.frames[: len(batch)]).movedim(2, -1).contiguous().numpy())  # (B, T, H, W, C)
        masks.append(condition.masks[: len(batch)].numpy())
        logger.info("%d of %d clips of the shard", start + len(batch), len(plan))
    return {"frames": np.concatenate(frames), "masks": np.concatenate(masks)}, Made(len(plan), wall, cpu)


def _sampling(header: dict[str, Any]) -> Any:
    return plugin.params("models.generators", {"kind": header["kind"], **header["sampling"]}, "Sampling")


@lru_cache(maxsize=16)
def _generator(checkpoint: Path, digest: str, device: str, compiled: bool = False) -> ClipGenerator:
    """The generator of a checkpoint, one a device: shards run in threads and must not move each other's networks.

    `digest` is part of the key so that a retrained one is read again.
    """
    loaded = load_checkpoint(checkpoint)
    for net in loaded.nets.values() if compiled else ():
        net.compile()
    return build(loaded.kind, loaded.params, loaded)


@lru_cache(maxsize=2)
def _bank(path: Path, layout: str) -> ClipStore:
    """The condition bank, opened once a process: that reads as many records as it has shards. `layout` tells banks apart."""
    return ClipStore.open(path)


def _condition(bank: ClipStore, plan: Sequence[PlanRecord]) -> Condition:
    """What these clips are asked to show."""
    rows = [record.condition_row for record in plan]
    reference = None
    if "frames" in bank.arrays:
        clips = bank.read(rows)
        masks, reference = clips.condition, clips.frames
    else:
        masks = bank.conditions(rows)
    return replace(masks, labels=tuple(record.label or "" for record in plan), texts=tuple(record.text for record in plan),
                   reference=reference)


def find_provenance(clip_id: str, folders: Sequence[Path]) -> ProvenanceRecord:
    """The first record of this clip in the `provenance.parquet` of these folders; a unique beginning of the id is enough.

    Raises:
        ValueError: if no folder has it, or several clips begin like that.
    """
    for folder in folders:
        if not (table := folder / "provenance.parquet").exists():
            continue
        found = [record for record in read_table(table, ProvenanceRecord) if record.clip_id.startswith(clip_id)]
        if len(found) > 1:
            raise ValueError(f"{clip_id}: {len(found)} clips in {folder} begin like that; give more digits")
        if found:
            return found[0]
    raise ValueError(f"{clip_id}: no such clip in {', '.join(map(str, folders)) or 'any set'}")

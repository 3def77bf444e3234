"""The only optimisation loop: accelerate around AdamW, with EMA and exact resumption, in one process or in several.

Every step draws its randomness from a generator seeded by (seed, phase, step), so a run resumed at step k needs only the
tensors of step k and ends with the same weights as one that was never stopped (bit for bit on CPU).

A step is `accumulate` batches, each with randomness of its own, whose gradients are averaged. Processes started by
torch.distributed share the batches out, so that a step sees the same clips and noise however many there are; only sums are
taken in another order, and batch norm's running averages are those of the first process's batches.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, broadcast
from diffusers.training_utils import EMAModel
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from tqdm.auto import tqdm

from models.processes import on_cpus
from models.seeding import derive_seed, generator

logger = logging.getLogger(__name__)
Loss = Callable[[nn.Module, torch.Generator], Tensor]
"""(net, rng) -> scalar loss of one step; draws its own batch from rng."""

Precision = Literal["no", "bf16"]
"""What networks compute in, weights staying float32."""

LOOK_EVERY = 10
"""Steps between looks at the loss. Looking waits for the GPU, which otherwise works while the next batch is read."""


class TrainParams(BaseModel):
    """One optimisation phase.

    `ema_decay` is the ceiling of diffusers' warm-up (1 + step) / (10 + step), so short runs average little.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0, description="clips or frames, as the phase says")
    accumulate: int = Field(1, gt=0, description="batches to a step; the number of processes divides it")
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(0, ge=0, description="linear warm-up, then cosine to zero when `cosine`")
    cosine: bool = False
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    grad_clip: float = Field(1.0, gt=0)
    precision: Precision = "no"
    save_every: int = Field(200, gt=0)


@dataclass(frozen=True)
class TrainState:
    """What resumes a phase: tensors by name (weights, EMA, optimiser moments) and the loss of every step so far."""

    step: int
    tensors: dict[str, Tensor]
    losses: list[float]


class StateHook(Protocol):
    """Where training states go; `tasks.checkpoints` keeps them in a folder, tests in a dict."""

    def load(self, phase: str) -> TrainState | None: ...

    def save(self, phase: str, state: TrainState) -> None: ...


class DivergedError(ValueError):
    """The loss or a weight stopped being a number, or the loss left its early level by orders of magnitude."""


def fit(net: nn.Module, loss: Loss, params: TrainParams, *, phase: str, seed: int, hook: StateHook) -> list[float]:
    """Train `net` in place; it ends with its EMA weights, on the CPU, in eval mode.

    Args:
        net: trained module; only parameters with `requires_grad` are optimised.
        loss: called once a batch with the (possibly wrapped) net and that batch's CPU generator.
        phase: name of the state and of the progress bar; every tenth of the steps is a log line, too.
        seed: with `phase` and the step, the whole of the randomness.
        hook: loads a state to resume from, saves one every `save_every` steps and at the end; of several processes only the
            first saves.

    Returns:
        The loss of every step, those before a resumption included; the same in all processes.

    Raises:
        ValueError: if `accumulate` batches cannot be shared out evenly.
        DivergedError: at most 10 steps after the first non-finite loss, or when the mean of 20 losses exceeds 100 times that of
            the first 20; and before a state with a non-finite weight would be saved.
    """
    # accelerate keeps the first precision of a process for good, but each phase has its own
    AcceleratorState._reset_state()
    # a net may leave parameters unused in a step: those of a condition that was dropped
    accelerator = Accelerator(mixed_precision=params.precision, cpu=on_cpus(),
                              kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    own = _own_batches(params.accumulate, accelerator.num_processes, accelerator.process_index)
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=params.learning_rate, weight_decay=params.weight_decay)
    net.train().to(accelerator.device)
    ema = EMAModel(trained, decay=params.ema_decay, foreach=True)
    losses: list[float] = []
    unseen: list[Tensor] = []
    if (state := hook.load(phase)) is not None:
        losses = list(state.losses)
        _restore(state, net, optimiser, trained, ema)
    told = 10 * len(losses) // params.steps
    wrapped, prepared = accelerator.prepare(net, optimiser)
    bar = tqdm(range(len(losses), params.steps), desc=phase, initial=len(losses), total=params.steps, mininterval=2,
               disable=not accelerator.is_main_process)
    for step in bar:
        for group in optimiser.param_groups:
            group["lr"] = params.learning_rate * _rate(step, params)
        values = []
        for batch in own:
            batch_seed = derive_seed(seed, phase, step)
            if params.accumulate > 1:
                batch_seed = derive_seed(batch_seed, batch)
            # dropout and the like take no generator; another seed, lest their numbers be those of the batch
            torch.manual_seed(derive_seed(batch_seed, "global"))
            # processes average their gradients during the last backward pass
            with nullcontext() if batch == own[-1] else accelerator.no_sync(wrapped):
                with accelerator.autocast():
                    value = loss(wrapped, generator(batch_seed))
                accelerator.backward(value / len(own))
            values.append(value.detach())
        accelerator.clip_grad_norm_(trained, params.grad_clip)
        prepared.step()
        prepared.zero_grad()
        ema.step(trained)
        unseen.append(torch.stack(values).mean())
        saving = (step + 1) % params.save_every == 0 or step + 1 == params.steps
        if saving or len(unseen) == LOOK_EVERY:
            losses += accelerator.reduce(torch.stack(unseen), "mean").tolist()
            unseen.clear()
            _refuse_divergence(losses, phase, params)
            mean = sum(losses[-50:]) / len(losses[-50:])
            bar.set_postfix(loss=f"{mean:.4f}")
            if (tenth := 10 * len(losses) // params.steps) > told and accelerator.is_main_process:
                logger.info("%s: step %d of %d, loss %.4f", phase, len(losses), params.steps, mean)
                told = tenth
        if saving:
            state = _capture(net, optimiser, trained, ema, losses, phase)  # in every process: it may refuse
            if accelerator.is_main_process:
                hook.save(phase, state)
    for buffer in net.buffers() if accelerator.num_processes > 1 else ():
        broadcast(buffer)  # the first process's, which are those it saved
    accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)  # else it would go on computing in bf16 after the fit
    ema.copy_to(trained)
    net.eval().to("cpu")
    return losses


def _own_batches(batches: int, processes: int, process: int) -> range:
    """The numbers of this process's batches of a step."""
    if batches % processes:
        raise ValueError(f"accumulate: {batches} batches cannot be shared out to {processes} processes; make it a multiple")
    share = batches // processes
    return range(process * share, (process + 1) * share)


def _rate(step: int, params: TrainParams) -> float:
    """Multiplier of the learning rate at this step."""
    if step < params.warmup_steps:
        return (step + 1) / params.warmup_steps
    if not params.cosine:
        return 1.0
    done = (step - params.warmup_steps) / max(1, params.steps - params.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done))


def _refuse_divergence(losses: list[float], phase: str, params: TrainParams) -> None:
    remedy = f"lower learning_rate (now {params.learning_rate}) or raise warmup_steps (now {params.warmup_steps})"
    for step in range(max(0, len(losses) - LOOK_EVERY), len(losses)):
        if not math.isfinite(losses[step]):
            raise DivergedError(f"{phase}: loss is {losses[step]} at step {step}; {remedy}")
    if len(losses) >= 40:
        first, recent = sum(losses[:20]) / 20, sum(losses[-20:]) / 20
        if recent > 100 * max(abs(first), 1e-8):
            raise DivergedError(f"{phase}: loss rose from {first:.3g} to {recent:.3g}; {remedy}")


def _capture(net: nn.Module, optimiser: torch.optim.Optimizer, trained: list[nn.Parameter], ema: EMAModel,
             losses: list[float], phase: str) -> TrainState:
    if not all(bool(parameter.isfinite().all()) for parameter in trained):
        raise DivergedError(f"{phase}: a weight is no longer a number at step {len(losses) - 1}; lower learning_rate")
    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    for number, (parameter, shadow) in enumerate(zip(trained, ema.shadow_params, strict=True)):
        tensors[f"ema.{number}"] = shadow
        for name, value in optimiser.state[parameter].items():
            tensors[f"optimiser.{number}.{name}"] = torch.as_tensor(value)
    return TrainState(len(losses), {name: value.detach().cpu().clone() for name, value in tensors.items()}, list(losses))


def _restore(state: TrainState, net: nn.Module, optimiser: torch.optim.Optimizer, trained: list[nn.Parameter],
             ema: EMAModel) -> None:
    names = [name.removeprefix("net.") for name in state.tensors if name.startswith("net.")]
    net.load_state_dict({name: state.tensors[f"net.{name}"] for name in names})
    for number, parameter in enumerate(trained):
        ema.shadow_params[number] = state.tensors[f"ema.{number}"].to(parameter.device).clone()
        prefix = f"optimiser.{number}."
        moments = {name.removeprefix(prefix): value for name, value in state.tensors.items() if name.startswith(prefix)}
        optimiser.state[parameter] = {
            name: value.clone() if name == "step" else value.to(parameter.device).clone() for name, value in moments.items()
        }
    ema.optimization_step = state.step

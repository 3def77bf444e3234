"""The training loop: exact resumption, EMA against its formula, divergence, precision, many fits in one process."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from models.trainer import DivergedError, TrainParams, TrainState, fit


class Memory:
    """A state hook in memory."""

    def __init__(self) -> None:
        self.states: dict[str, TrainState] = {}
        self.steps: list[int] = []

    def load(self, phase: str) -> TrainState | None:
        return self.states.get(phase)

    def save(self, phase: str, state: TrainState) -> None:
        self.states[phase] = state
        self.steps.append(state.step)


class KilledError(Exception):
    pass


def network(dropout: float = 0.0) -> nn.Module:
    """Linear layers with batch norm, whose running statistics are state as well."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(dropout), nn.ReLU(), nn.Linear(8, 1))


def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
    x = torch.randn(16, 4, generator=rng)
    return (net(x)[:, 0] - x[:, 0] * x[:, 1]).square().mean()


def params(steps: int = 12, **extra: object) -> TrainParams:
    fields = {"learning_rate": 1e-2, "save_every": 5, "ema_decay": 0.9, **extra}
    return TrainParams.model_validate({"steps": steps, "batch_size": 16, **fields})


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(name == other and torch.equal(value, twin) for (name, value), (other, twin) in pairs)


@pytest.mark.parametrize("killed_at", [0, 4, 5, 7, 11])
def test_a_killed_run_resumes_to_the_same_bits(killed_at: int) -> None:
    """With dropout, batch norm, warm-up and cosine decay; whatever happened to the global random state in between."""
    whole, hook = network(0.3), Memory()
    options = params(warmup_steps=3, cosine=True, weight_decay=0.01)
    want = fit(whole, loss, options, phase="p", seed=1, hook=Memory())

    def dies(net: nn.Module, rng: torch.Generator) -> Tensor:
        dies.left -= 1  # type: ignore[attr-defined]
        if dies.left < 0:  # type: ignore[attr-defined]
            raise KilledError
        return loss(net, rng)

    dies.left = killed_at  # type: ignore[attr-defined]
    with pytest.raises(KilledError):
        fit(network(0.3), dies, options, phase="p", seed=1, hook=hook)
    assert hook.steps == [step for step in (5, 10) if step <= killed_at]
    resumed = network(0.3)
    torch.manual_seed(999)
    got = fit(resumed, loss, options, phase="p", seed=1, hook=hook)
    assert got == want and len(got) == 12
    assert same(resumed, whole)


def test_a_finished_state_gives_the_weights_without_a_step() -> None:
    whole, again, hook = network(), network(), Memory()
    fit(whole, loss, params(), phase="p", seed=1, hook=hook)

    def never(net: nn.Module, rng: torch.Generator) -> Tensor:
        raise AssertionError("a finished phase took a step")

    assert len(fit(again, never, params(), phase="p", seed=1, hook=hook)) == 12
    assert same(again, whole)


def test_states_are_snapshots() -> None:
    """What was saved at step 5 is not what the run goes on changing."""
    kept: list[TrainState] = []
    hook = Memory()
    hook.save = lambda phase, state: kept.append(state)  # type: ignore[method-assign]
    fit(network(), loss, params(), phase="p", seed=1, hook=hook)
    assert [(state.step, len(state.losses)) for state in kept] == [(5, 5), (10, 10), (12, 12)]
    assert not torch.equal(kept[0].tensors["net.0.weight"], kept[1].tensors["net.0.weight"])
    assert kept[1].losses[:5] == kept[0].losses


def test_phase_and_seed_decide_the_randomness() -> None:
    def run(phase: str, seed: int) -> list[float]:
        return fit(network(), loss, params(steps=2), phase=phase, seed=seed, hook=Memory())

    assert run("p", 1) == run("p", 1)
    assert run("p", 1) != run("q", 1)
    assert run("p", 1) != run("p", 2)


def test_dropout_does_not_repeat_the_batch() -> None:
    """The stream that feeds layers without a generator differs from the one that draws the batch."""
    pairs = []

    def watch(net: nn.Module, rng: torch.Generator) -> Tensor:
        pairs.append((torch.rand(8), torch.rand(8, generator=rng)))
        return loss(net, rng)

    fit(network(), watch, params(steps=3), phase="p", seed=1, hook=Memory())
    assert all(not torch.equal(layers, batch) for layers, batch in pairs)


def test_weights_and_ema_against_a_plain_loop() -> None:
    """AdamW with the warm-up and cosine rates written out, EMA with decay min(ceiling, (1 + n) / (10 + n))."""
    steps, rate = 9, 0.05
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 1.0)
    reference = copy.deepcopy(net)
    hook = Memory()
    options = params(steps, learning_rate=rate, warmup_steps=2, cosine=True, ema_decay=0.3, grad_clip=1e9)
    fit(net, lambda one, rng: (one(torch.ones(1, 1)) - 5).square().sum(), options, phase="p", seed=0, hook=hook)

    optimiser = torch.optim.AdamW(reference.parameters(), weight_decay=0.0)
    shadow = 1.0
    for step in range(steps):
        share = (step + 1) / 2 if step < 2 else 0.5 * (1 + math.cos(math.pi * (step - 2) / 7))
        optimiser.param_groups[0]["lr"] = rate * share
        optimiser.zero_grad()
        (reference.weight - 5).square().sum().backward()
        optimiser.step()
        decay = min(0.3, (1 + step) / (10 + step)) if step else 0.0
        shadow = decay * shadow + (1 - decay) * float(reference.weight.detach())
    assert float(hook.states["p"].tensors["net.weight"]) == pytest.approx(float(reference.weight.detach()), abs=1e-6)
    assert float(net.weight.detach()) == pytest.approx(shadow, abs=1e-6)
    assert abs(float(net.weight.detach()) - float(reference.weight.detach())) > 1e-5  # the average is not the last iterate


def test_gradients_are_clipped() -> None:
    """One spike among the losses: clipped to the same norm, its size makes no difference (Adam hides a constant factor)."""
    def run(spike: float, bound: float) -> Tensor:
        seen: list[int] = []

        def spiky(net: nn.Module, rng: torch.Generator) -> Tensor:
            seen.append(0)
            return loss(net, rng) * (spike if len(seen) == 3 else 1.0)

        torch.manual_seed(0)
        net = nn.Linear(4, 1)  # no batch norm: it makes the bias before it a gradient of pure rounding, which Adam blows up
        fit(net, spiky, params(steps=6, grad_clip=bound), phase="p", seed=0, hook=Memory())
        return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])

    assert torch.allclose(run(1e3, bound=0.01), run(1e5, bound=0.01), atol=1e-4)
    assert not torch.allclose(run(1.0, bound=1e9), run(1e3, bound=1e9), atol=1e-2)


def test_a_loss_that_is_no_number_stops_the_run_and_saves_nothing_of_it() -> None:
    hook = Memory()

    def breaks(net: nn.Module, rng: torch.Generator) -> Tensor:
        breaks.step += 1  # type: ignore[attr-defined]
        return loss(net, rng) * (math.nan if breaks.step == 7 else 1.0)  # type: ignore[attr-defined]

    breaks.step = 0  # type: ignore[attr-defined]
    with pytest.raises(DivergedError, match=r"p: loss is nan at step 6; lower learning_rate \(now 0.01\)"):
        fit(network(), breaks, params(steps=40), phase="p", seed=0, hook=hook)
    assert hook.steps == [5]
    assert all(value.isfinite().all() for value in hook.states["p"].tensors.values())


def test_a_rising_loss_stops_the_run_early() -> None:
    def rises(net: nn.Module, rng: torch.Generator) -> Tensor:
        rises.step += 1  # type: ignore[attr-defined]
        return loss(net, rng) * 1.5**rises.step  # type: ignore[attr-defined]

    rises.step = 0  # type: ignore[attr-defined]
    with pytest.raises(DivergedError, match="loss rose from"):
        fit(network(), rises, params(steps=1000), phase="p", seed=0, hook=Memory())
    assert rises.step <= 50  # type: ignore[attr-defined]


def test_a_bad_gradient_behind_a_good_loss_is_not_saved() -> None:
    """sqrt at zero: the loss is 0 and its gradient is not a number."""
    hook = Memory()
    with pytest.raises(DivergedError, match="a weight is no longer a number"):
        fit(network(), lambda net, rng: (loss(net, rng) * 0).sqrt(), params(steps=1), phase="p", seed=0, hook=hook)
    assert not hook.states


def test_precisions_follow_each_other_in_one_process_and_leave_no_trace() -> None:
    """accelerate keeps the process's first precision and wraps the network; neither may outlive the fit."""
    seen: list[torch.dtype] = []

    def watch(net: nn.Module, rng: torch.Generator) -> Tensor:
        seen.append(torch.nn.functional.linear(torch.ones(1, 4), torch.ones(1, 4)).dtype)
        return loss(net, rng)

    nets = []
    for precision in ("no", "bf16", "no"):
        net = network()
        curve = fit(net, watch, params(steps=30, precision=precision), phase="p", seed=0, hook=Memory())
        assert sum(curve[-5:]) < sum(curve[:5])
        nets.append(net)
    assert seen[:30] == [torch.float32] * 30 and seen[30:60] == [torch.bfloat16] * 30 and seen[60:] == [torch.float32] * 30
    assert same(nets[0], nets[2]) and not same(nets[0], nets[1])
    x = torch.randn(3, 4)
    fresh = network().eval()
    fresh.load_state_dict(nets[1].state_dict())
    assert torch.equal(nets[1](x), fresh(x))  # what was trained in bf16 computes like the same weights read back


def test_frozen_parameters_stay() -> None:
    net = network()
    net[0].requires_grad_(False)  # type: ignore[index]
    before = net[0].weight.clone()  # type: ignore[index]
    fit(net, loss, params(), phase="p", seed=0, hook=Memory())
    assert torch.equal(net[0].weight, before)  # type: ignore[index]
    assert not net.training


def test_every_tenth_is_a_log_line_and_none_is_said_twice(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "models.trainer")
    hook = Memory()
    for _ in range(2):  # the second finds all steps done
        losses = fit(network(), loss, params(200, save_every=1000), phase="p", seed=1, hook=hook)
    said = [line.getMessage() for line in caplog.records if line.name == "models.trainer"]
    assert [line.partition(",")[0] for line in said] == [f"p: step {step} of 200" for step in range(20, 201, 20)]
    assert said[-1].endswith(f"loss {sum(losses[-50:]) / 50:.4f}")

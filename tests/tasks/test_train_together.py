"""Training in several processes, really started, on the CPU."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.processes import refuse_others, together
from models.trainer import Loss, TrainParams, TrainState, fit
from tasks.arms import NoStates
from tasks.checkpoints import FolderStates
from tasks.processes import start


class Net(nn.Module):
    """With dropout, and a layer that takes no part in some of the batches."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        middle = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.way = nn.Sequential(nn.Linear(4, 8), middle, nn.Dropout(0.2), nn.Linear(8, 1))
        self.spare = nn.Linear(4, 1)

    def forward(self, x: Tensor, spare: bool) -> Tensor:
        found: Tensor = self.way(x)
        return found + self.spare(x) if spare else found


def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
    x, spare = torch.randn(16, 4, generator=rng), bool(torch.rand((), generator=rng) < 0.5)
    value: Tensor = (net(x, spare)[:, 0] - x[:, 0] * x[:, 1]).square().mean()
    return value


def params(steps: int, accumulate: int) -> TrainParams:
    return TrainParams(steps=steps, batch_size=16, accumulate=accumulate, learning_rate=1e-2, save_every=3, ema_decay=0.5)


def trained(accumulate: int, norm: bool = False, hook: Any = None, how: Loss = loss) -> tuple[dict[str, Any], Any]:
    """Weights and running averages by name, and the losses."""
    net = Net(norm)
    losses = fit(net, how, params(8, accumulate), phase="p", seed=1, hook=hook or NoStates())
    return {name: value.numpy() for name, value in net.state_dict().items()}, losses


class KilledError(Exception):
    pass


class Counted(FolderStates):
    """Says at which steps it was asked to save."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "f")
        self.saved: list[int] = []

    def save(self, phase: str, state: TrainState) -> None:
        super().save(phase, state)
        self.saved.append(state.step)


def one_of_two(folder: Path) -> dict[str, Any]:
    """All that is asked of two processes, in one start of them: importing torch takes longer than this training."""
    refusals = []
    for ask in (lambda: trained(3), lambda: refuse_others(3)):
        with pytest.raises(ValueError) as refused:
            ask()
        refusals.append(str(refused.value))
    refuse_others(2)
    left = 5 * 2  # batches of this process: it is killed in step 5, after the state of step 3

    def dies(net: nn.Module, rng: torch.Generator) -> Tensor:
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError
        return loss(net, rng)

    hook = Counted(folder)
    with pytest.raises(KilledError):
        trained(4, hook=hook, how=dies)
    found = {"refusals": refusals, "saved": list(hook.saved), "resumed": trained(4, hook=hook), "whole": trained(4),
             "norm": trained(2, norm=True)}
    together().destroy_process_group()
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    found = start(2, one_of_two, tmp_path_factory.mktemp("states"))
    return [found[0], found[1]]


@pytest.mark.parametrize("what", ["whole", "norm"])
def test_all_processes_end_with_the_same_bits(both: list[dict[str, Any]], what: str) -> None:
    (first, losses), (second, other) = both[0][what], both[1][what]
    assert losses == other and len(losses) == 8
    assert all(np.array_equal(value, second[name]) for name, value in first.items())


def test_two_processes_make_the_steps_of_one(both: list[dict[str, Any]]) -> None:
    """The same batches, noise and dropout; sums in another order."""
    weights, losses = both[0]["whole"]
    alone, alone_losses = trained(4)
    np.testing.assert_allclose(losses, alone_losses, rtol=1e-5)
    for name, value in alone.items():
        np.testing.assert_allclose(weights[name], value, atol=1e-5)
    fewer, _ = trained(2)
    assert max(np.abs(fewer[name] - value).max() for name, value in alone.items()) > 1e-2  # no wonder that those agreed


def test_batch_norm_averages_are_the_first_process_s(both: list[dict[str, Any]]) -> None:
    """Its weights are those of one process all the same: in training a batch is normed by itself."""
    weights, _ = both[0]["norm"]
    alone, _ = trained(2, norm=True)
    assert weights["way.1.num_batches_tracked"] * 2 == alone["way.1.num_batches_tracked"] == 16
    np.testing.assert_allclose(weights["way.0.weight"], alone["way.0.weight"], atol=1e-4)


def test_the_first_alone_saves_and_both_resume(both: list[dict[str, Any]]) -> None:
    assert [one["saved"] for one in both] == [[3], []]
    for one in both:
        (weights, losses), (want, want_losses) = one["resumed"], one["whole"]
        assert losses == want_losses
        assert all(np.array_equal(value, weights[name]) for name, value in want.items())


def test_a_wrong_number_of_processes_is_refused(both: list[dict[str, Any]]) -> None:
    uneven, fewer = both[0]["refusals"]
    assert "accumulate: 3 batches cannot be shared out to 2 processes" in uneven
    assert "3 processes were to train together, but 2 came" in fewer
    with pytest.raises(ValueError, match="2 processes were to train together, but 1 came"):
        refuse_others(2)


def test_a_step_averages_its_batches() -> None:
    """One process, by hand: the gradient of a step is the mean of its batches' gradients."""
    net = nn.Linear(3, 1, bias=False)
    start_at, rate, seen = copy.deepcopy(net), 0.1, list[Tensor]()

    def watch(one: nn.Module, rng: torch.Generator) -> Tensor:
        seen.append(torch.randn(3, generator=rng))
        return (one(seen[-1]) - 1).square().sum()

    options = TrainParams(steps=1, batch_size=1, accumulate=3, learning_rate=rate, ema_decay=0.0, grad_clip=1e9)
    (mean,) = fit(net, watch, options, phase="p", seed=0, hook=NoStates())
    assert len({tuple(x.tolist()) for x in seen}) == 3
    values = torch.stack([(start_at(x) - 1).square().sum() for x in seen])
    assert mean == pytest.approx(float(values.mean().detach()), rel=1e-6)
    values.mean().backward()
    torch.optim.AdamW(start_at.parameters(), lr=rate, weight_decay=0.0).step()
    assert torch.allclose(net.weight, start_at.weight, atol=1e-7)
    assert not math.isclose(float(mean), float(values[0].detach()))

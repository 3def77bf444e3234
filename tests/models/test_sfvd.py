"""SF-VD whole, tiny but real: it learns, it resumes exactly, and a clip depends on its own seed alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from models.clip import UNKNOWN, ClipBatch, Condition, MemoryClips, to_uint8
from models.diffusion.conditioners import drop_masks, frame_channels, mask_channels
from models.diffusion.unet import NetParams, unet
from models.generators.sfvd import Params, Sampling, _Frames, build
from models.seeding import generator
from models.trainer import TrainState

FRAMES, SIZE = 5, 16


class Memory:
    """A state hook in memory that can stop a run after so many saves, as a kill would."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.states: dict[str, TrainState] = {}
        self.left = stop_after

    def load(self, phase: str) -> TrainState | None:
        return self.states.get(phase)

    def save(self, phase: str, state: TrainState) -> None:
        self.states[phase] = state
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


def moving_squares(clips: int = 12, unannotated: int = 4) -> MemoryClips:
    """A bright square on a dark ground, moving right; its place is the mask."""
    frames = torch.full((clips, FRAMES, 1, SIZE, SIZE), -0.6)
    masks = torch.zeros(clips, FRAMES, SIZE, SIZE, dtype=torch.uint8)
    for clip in range(clips):
        for frame in range(FRAMES):
            y, x = 2 + clip % 8, 1 + 2 * frame
            frames[clip, frame, 0, y : y + 5, x : x + 5] = 0.8
            masks[clip, frame, y : y + 5, x : x + 5] = 1
    masks[clips - unannotated :] = UNKNOWN
    ids = tuple(f"clip{number}" for number in range(clips))
    return MemoryClips(ClipBatch(ids, frames, Condition(ids, masks)))


def params(steps: int = 4, channels: tuple[int, ...] = (16, 32), batch: int = 4, **extra: Any) -> Params:
    train = {"steps": steps, "batch_size": batch, "learning_rate": 2e-3, "ema_decay": 0.9, "save_every": 2}
    net = {"channels": list(channels), "norm_groups": 8, "train": train}
    return Params.model_validate({"scene": net, "motion": net, "psi": net, "prediction": "v_prediction", **extra})


@pytest.fixture(scope="module")
def fitted() -> Any:
    model = build(params())
    return build(model.params, model.fit(moving_squares(), Memory(), seed=0))


def conditions(rows: list[int]) -> Condition:
    return moving_squares(unannotated=0).read(rows).condition


def test_checkpoint_says_what_it_is(fitted: Any) -> None:
    checkpoint = build(params()).fit(moving_squares(), Memory(), seed=0)
    assert checkpoint.facts == {"clip_shape": [FRAMES, 1, SIZE, SIZE], "classes": 1}
    assert set(checkpoint.nets) == {"scene", "motion", "psi"}
    assert {name: len(losses) for name, losses in checkpoint.losses.items()} == {"psi": 4, "scene": 4, "motion": 4}
    # mask + known; mask + known + frame + has-frame
    assert checkpoint.nets["scene"].config.in_channels == 1 + 2
    assert checkpoint.nets["motion"].config.in_channels == 1 + 2 + 1 + 1


@pytest.mark.parametrize("saves", [1, 3, 4])
def test_a_stopped_fit_resumes_to_the_same_weights(saves: int) -> None:
    whole = build(params()).fit(moving_squares(), Memory(), seed=3)
    hook = Memory(stop_after=saves)
    with pytest.raises(KeyboardInterrupt):
        build(params()).fit(moving_squares(), hook, seed=3)
    hook.left = None
    resumed = build(params()).fit(moving_squares(), hook, seed=3)
    assert resumed.losses == whole.losses
    for name, net in whole.nets.items():
        for key, value in net.state_dict().items():
            assert torch.equal(value, resumed.nets[name].state_dict()[key]), (name, key)


@pytest.mark.parametrize("options", [
    {}, {"order": "chronological"}, {"solver": "ancestral"}, {"gamma": (0, 0)}, {"omega": "bayes"}, {"mask_only": "scene"},
    {"gradient": "mean"}, {"omega": (1.0, 2.0, 0.5)},
])
def test_a_clip_depends_on_its_own_seed_only(fitted: Any, options: dict[str, Any]) -> None:
    sampling = Sampling.model_validate({"steps": 3, **options})
    together = fitted.sample(conditions([0, 1, 2]), [7, 8, 9], sampling)
    moved = fitted.sample(conditions([2, 0, 5]), [9, 7, 4], sampling)
    assert torch.equal(to_uint8(together.frames[0]), to_uint8(moved.frames[1]))
    assert torch.equal(to_uint8(together.frames[2]), to_uint8(moved.frames[0]))
    alone = fitted.sample(conditions([1]), [8], sampling)
    assert torch.allclose(alone.frames[0], together.frames[1], atol=1e-3)
    assert together.frames.shape == (3, FRAMES, 1, SIZE, SIZE)
    assert together.frames.abs().max() <= 1
    assert not torch.equal(together.frames[0], fitted.sample(conditions([0]), [8], sampling).frames[0])


def test_gamma_is_drawn_per_clip_from_its_seed(fitted: Any) -> None:
    sampling = Sampling(gamma=(2.0, 6.0))
    drawn = [one["gamma"] for one in fitted.draws(range(200), sampling)]
    assert min(drawn) >= 2 and max(drawn) <= 6 and 3.6 < sum(drawn) / 200 < 4.4
    assert fitted.draws([5], sampling)[0]["gamma"] == drawn[5]


def test_guidance_changes_the_clip_and_zero_gamma_is_off(fitted: Any) -> None:
    def clip(low: float, high: float) -> torch.Tensor:
        return fitted.sample(conditions([0]), [1], Sampling(steps=3, gamma=(low, high))).frames

    assert torch.equal(clip(0, 0), clip(0, 0))
    assert not torch.allclose(clip(0, 0), clip(15, 15), atol=1e-3)


def test_wrong_conditions_are_refused(fitted: Any) -> None:
    with pytest.raises(ValueError, match="unknown pixels"):
        fitted.sample(moving_squares(unannotated=12).read([0]).condition, [1], Sampling())
    small = Condition(("a",), torch.zeros(1, FRAMES, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\[5, 8, 8\]"):
        fitted.sample(small, [1], Sampling())


def test_no_masks_and_odd_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="no training clip has an annotated frame"):
        build(params()).fit(moving_squares(unannotated=12), Memory(), seed=0)
    with pytest.raises(ValueError, match="must be divisible by 32"):
        build(params(channels=(8, 8, 8, 8, 8, 8))).fit(moving_squares(), Memory(), seed=0)


def test_nets_that_cannot_be_built_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"channels \[12\] are not multiples of norm_groups 8"):
        params(channels=(16, 12))
    with pytest.raises(ValueError, match=r"attention \[2\] names no level; channels has levels 0 to 1"):
        NetParams.model_validate({"channels": [8, 8], "attention": [0, 2], "train": {"steps": 1, "batch_size": 1}})
    with pytest.raises(ValueError, match=r"gamma \[3.0, 1.0\]"):
        Sampling(gamma=(3, 1))


def test_a_partly_annotated_clip_gives_its_annotated_frames() -> None:
    """One annotated frame in the whole set: psi and the masks' loss see that one, every time, and nothing else."""
    batch = moving_squares(clips=3, unannotated=0).read([0, 1, 2])
    masks = torch.full_like(batch.condition.masks, UNKNOWN)
    masks[1, 3] = batch.condition.masks[1, 3]
    masks[2, 0, :2] = 0  # a frame with some known pixels is not an annotated one
    pool = _Frames(MemoryClips(ClipBatch(batch.ids, batch.frames, Condition(batch.ids, masks))))
    assert pool.annotated == [(1, 3)]
    assert len(pool.unannotated) == 3 * FRAMES - 1
    clips, frame = pool.draw(4, generator(0), unannotated=False)
    assert clips.ids == ("clip1",) * 4 and frame.tolist() == [3] * 4
    clips, frame = pool.draw(5, generator(0))
    assert clips.ids[:3] == ("clip1",) * 3 and frame.tolist()[:3] == [3] * 3
    assert (clips.condition.masks[torch.arange(5), frame] == UNKNOWN).flatten(1).any(1).tolist() == [False] * 3 + [True] * 2


def test_motion_model_sees_unannotated_clips_only_when_asked() -> None:
    """Frames of the unannotated clips are NaN: the motion loss stays a number unless they are drawn."""
    batch = moving_squares().read(range(12))
    batch.frames[8:] = torch.nan
    pool = _Frames(MemoryClips(batch))
    losses = {}
    for choice in ("annotated", "all"):
        model = build(params(motion_clips=choice))
        net = unet(model.params.motion, (SIZE, SIZE), 5, 2, seed=0, distances=True)
        losses[choice] = float(model._motion_loss(pool)(net, generator(0)).detach())
    assert math.isfinite(losses["annotated"]) and math.isnan(losses["all"])


def test_the_frame_left_out_and_its_distance_do_not_matter() -> None:
    """Eqs. 6 and 8 start from a prediction without a frame: nothing of the frame may reach the network then."""
    given, absent = torch.randn(2, 1, 4, 4), torch.zeros(2, dtype=torch.bool)
    channels, distance = frame_channels(given, torch.tensor([0.5, -1.0]), absent)
    assert not channels.any() and not distance.any()
    channels, distance = frame_channels(given, torch.tensor([0.5, -1.0]), ~absent)
    assert torch.equal(channels[:, :1], given) and (channels[:, 1] == 1).all()
    assert distance.tolist() == [500, -1000]


def test_mask_channels_tell_background_from_unknown() -> None:
    masks = torch.tensor([[[0, 1], [2, UNKNOWN]]], dtype=torch.uint8)
    assert mask_channels(masks, 2).tolist() == [[[[0, 1], [0, 0]], [[0, 0], [1, 0]], [[1, 1], [1, 0]]]]
    dropped = (drop_masks(masks.repeat(400, 1, 1), 0.25, generator(0)) == UNKNOWN).flatten(1).all(1)
    assert dropped.float().mean() == pytest.approx(0.25, abs=0.05)


def test_branches_without_weight_are_not_computed(fitted: Any) -> None:
    """Rows through the networks: omega 1 with one condition, and 1/2 with two, leave the base prediction no weight."""
    rows = {"scene": 0, "motion": 0, "psi": 0}

    def count(name: str) -> Any:
        def hook(net: Any, inputs: tuple[torch.Tensor, ...], out: Any) -> None:
            rows[name] += len(inputs[0])

        return fitted._nets[name].register_forward_hook(hook)

    handles = [count(name) for name in rows]
    for omega, scene, motion in (("default", 2, 2 + 3 * 3), ("bayes", 1, 1 + 3 * 3), ((1.0, 1.0, 0.5), 1, 1 + 2 * 3)):
        rows.update(scene=0, motion=0, psi=0)
        fitted.sample(conditions([0]), [1], Sampling(steps=2, omega=omega, gamma=(0, 0)))
        assert rows == {"scene": 2 * scene, "motion": 2 * motion, "psi": 0}  # two steps; frames 0, 4 and 2, 1, 3
    for handle in handles:
        handle.remove()


def test_more_classes_or_seeds_than_known_are_refused(fitted: Any) -> None:
    with pytest.raises(ValueError, match="label 2"):
        fitted.sample(Condition(("a",), torch.full((1, FRAMES, SIZE, SIZE), 2, dtype=torch.uint8)), [1], Sampling())
    with pytest.raises(ValueError, match="1 conditions, but 2 seeds"):
        fitted.sample(conditions([0]), [1, 2], Sampling())


def test_losses_fall() -> None:
    """Sixty steps on twelve clips: every phase ends far below where it began."""
    losses = build(params(steps=60, batch=8)).fit(moving_squares(), Memory(), seed=0).losses
    for phase, curve in losses.items():
        assert sum(curve[-10:]) < 0.6 * sum(curve[:3]) / 3 * 10, phase


@pytest.mark.slow
def test_it_learns_to_put_the_square_where_the_mask_is() -> None:
    """A few hundred steps: the sampled square lies on its mask, in frames the scene model and the motion model made."""
    model = build(params(steps=400, channels=(16, 32, 32), batch=16))
    clips = build(model.params, model.fit(moving_squares(), Memory(), seed=0)).sample(
        conditions([0, 3, 5]), [1, 2, 3], Sampling(steps=12, gamma=(0, 0), omega="bayes")
    )
    inside = clips.condition.masks == 1
    frames = clips.frames[:, :, 0]
    assert frames[inside].mean() > 0.4
    assert frames[~inside].mean() < -0.4
    for frame in range(FRAMES):
        assert frames[:, frame][inside[:, frame]].mean() > 0.2

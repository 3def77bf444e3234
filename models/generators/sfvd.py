"""SF-VD: masks -> video, by a scene model for one frame and a motion model for every other (AAAI 2025).

p(V|M) = p(I0|M0) p(I1..I(N-1) | M, I0): two 2-D diffusion models in pixel space with learned variance, a frame order that
lets intermediate frames be pulled from both sides, and a segmentation network that guides sampling. Where the paper is silent
or wrong the choice is an option here, with the paper's reading among its values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from diffusers import UNet2DModel
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from models.clip import UNKNOWN, ClipBatch, ClipSource, Condition
from models.diffusion.denoiser import Denoiser, Prediction
from models.diffusion.frame_order import Step, bisection, chronological
from models.diffusion.guidance import OMEGA, Omega, combine, mask_gradient, needs_base
from models.diffusion.sampler import Solver, denoise
from models.generators import Checkpoint
from models.seeding import derive_seed, generator
from models.trainer import Loss, StateHook, TrainParams, fit

DISTANCE_SCALE = 1000.0
"""Frame distances in [-1, 1] times this are embedded like timesteps (sinusoids, then a two-layer MLP)."""


class NetParams(BaseModel):
    """A diffusers UNet2DModel. `attention` lists the levels, from 0 (full resolution), that have self-attention."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: list[int] = Field(min_length=1)
    layers: int = Field(1, gt=0)
    attention: list[int] = []
    norm_groups: int = Field(8, gt=0)
    train: TrainParams


class Params(BaseModel):
    """What training needs. `batch_size` counts frames in all three phases."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scene: NetParams
    motion: NetParams
    psi: NetParams = Field(description="the noise-aware segmentation network that guides sampling, trained on x_t")
    prediction: Prediction = "epsilon"
    mask_dropout: float = Field(0.1, ge=0, lt=1, description="annotated frames shown without their mask (scene)")
    frame_dropout: float = Field(0.15, ge=0, lt=1, description="conditioning frame left out (motion); Eqs. 6 and 8 need that prediction")
    motion_clips: Literal["annotated", "all"] = Field(
        "annotated", description="the paper's motion model sees annotated clips only; `all` adds the others with their masks unknown"
    )


class Sampling(BaseModel):
    """What sampling needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: Literal["bisection", "chronological"] = Field("bisection", description="chronological: the ablation without frame consistency")
    solver: Solver = "fast"
    steps: int = Field(20, gt=0, le=1000)
    omega: Literal["default", "bayes", "literal"] | tuple[float, float, float] = "default"
    mask_only: Literal["motion", "scene"] = Field("motion", description="whose prediction without a frame Eqs. 6 and 8 start from")
    gamma: tuple[float, float] = Field((0.0, 15.0), description="segmentation guidance, uniform per clip; [0, 0] is off")
    gradient: Literal["sum", "mean"] = "sum"
    max_gradient_norm: float = Field(1.0, gt=0)


def build(params: Params, checkpoint: Checkpoint | None = None) -> SFVD:
    return SFVD(params, checkpoint)


class SFVD:
    """See the module. Networks: `scene` and `motion` (2C outputs: prediction and variance), `psi` (K + 1 logits)."""

    def __init__(self, params: Params, checkpoint: Checkpoint | None = None) -> None:
        self.params = params
        self.denoiser = Denoiser(params.prediction)
        self._nets: dict[str, nn.Module] = checkpoint.nets if checkpoint else {}
        self._facts: dict[str, Any] = checkpoint.facts if checkpoint else {}

    def fit(self, clips: ClipSource, hook: StateHook, seed: int) -> Checkpoint:
        """Train psi, the scene model and the motion model, one after the other; a resumed run ends with the same weights.

        Raises:
            ValueError: if no clip has an annotated frame, or clips have fewer than two frames.
        """
        frames, channels, height, width = clips.read([0]).frames.shape[1:]
        annotated, classes = _annotated(clips)
        if not annotated:
            raise ValueError("SF-VD needs masks: no training clip has an annotated frame; raise dataset.annotated_patients")
        if frames < 2:
            raise ValueError(f"SF-VD needs clips of at least 2 frames, but clip_frames is {frames}; use an image model")
        everything = list(range(len(clips)))
        pictures = _Pictures(clips, classes)
        moving = everything if self.params.motion_clips == "all" else annotated
        nets = {
            "psi": _unet(self.params.psi, (height, width), channels, classes + 1, seed=derive_seed(seed, "psi")),
            "scene": _unet(self.params.scene, (height, width), channels + classes + 1, 2 * channels, seed=derive_seed(seed, "scene")),
            "motion": _unet(self.params.motion, (height, width), 2 * channels + classes + 2, 2 * channels, distances=True,
                            seed=derive_seed(seed, "motion")),
        }
        losses: dict[str, Callable[[int], Loss]] = {
            "psi": lambda size: self._segmentation_loss(pictures, annotated, size),
            "scene": lambda size: self._scene_loss(pictures, annotated, everything, size),
            "motion": lambda size: self._motion_loss(pictures, annotated, moving, size, frames),
        }
        curves = {}
        for name, net in nets.items():
            own: NetParams = getattr(self.params, name)
            curves[name] = fit(net, losses[name](own.train.batch_size), own.train, phase=name, seed=seed, hook=hook)
        self._nets = nets
        self._facts = {"clip_shape": [frames, channels, height, width], "classes": classes}
        return Checkpoint("sfvd", self.params.model_dump(mode="json"), nets, self._facts, curves)

    def _segmentation_loss(self, pictures: _Pictures, annotated: list[int], size: int) -> Loss:
        def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
            frames, masks = pictures.draw(annotated, size, rng)
            t, noise = self._noise(frames, rng)
            device = next(net.parameters()).device
            logits = net(self.denoiser.schedule.add_noise(frames, noise, t).to(device), t.to(device)).sample.float()
            return functional.cross_entropy(logits, masks.long().to(device), ignore_index=UNKNOWN)

        return loss

    def _scene_loss(self, pictures: _Pictures, annotated: list[int], everything: list[int], size: int) -> Loss:
        """Half of each batch annotated where both kinds exist: the annotated frames are few and must not drown."""
        both = len(annotated) < len(everything)
        share = size // 2 if both else size
        unannotated = [row for row in everything if row not in set(annotated)]

        def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
            frames, masks = pictures.draw(annotated, share, rng)
            if both:
                more, unknown = pictures.draw(unannotated, size - share, rng)
                frames, masks = torch.cat([frames, more]), torch.cat([masks, unknown])
            masks = _drop(masks, self.params.mask_dropout, rng)
            t, noise = self._noise(frames, rng)
            device = next(net.parameters()).device
            conditioning = pictures.one_hot(masks)
            return self.denoiser.loss(net, *_to(device, frames, noise, t, conditioning))

        return loss

    def _motion_loss(self, pictures: _Pictures, annotated: list[int], moving: list[int], size: int, frames: int) -> Loss:
        """Uniform ordered pairs i != j of one clip, both directions: Eq. 8 conditions on later frames too."""
        known = set(annotated)
        unknown = [row for row in moving if row not in known]
        share = size // 2 if unknown else size

        def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
            rows = _choose(annotated, share, rng) + (_choose(unknown, size - share, rng) if unknown else [])
            batch = pictures.clips.read(rows)
            target = torch.randint(frames, (size,), generator=rng)
            given = (target + torch.randint(1, frames, (size,), generator=rng)) % frames
            at = torch.arange(size)
            present = torch.rand(size, generator=rng) >= self.params.frame_dropout
            x0, masks = batch.frames[at, target], batch.condition.masks[at, target]
            conditioning, distance = _motion_inputs(pictures.one_hot(masks), batch.frames[at, given], (target - given) / (frames - 1), present)
            t, noise = self._noise(x0, rng)
            device = next(net.parameters()).device
            return self.denoiser.loss(net, *_to(device, x0, noise, t, conditioning, distance))

        return loss

    def _noise(self, frames: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        t = torch.randint(len(self.denoiser.schedule.betas), (len(frames),), generator=rng)
        return t, torch.randn(frames.shape, generator=rng)

    def draws(self, seeds: Sequence[int], sampling: Sampling) -> list[dict[str, float]]:
        """gamma of each clip: uniform over `sampling.gamma`, a function of the clip's seed."""
        low, high = sampling.gamma
        return [{"gamma": low + (high - low) * float(torch.rand((), generator=generator(derive_seed(seed, "gamma"))))} for seed in seeds]

    def sample(self, conditions: Condition, seeds: Sequence[int], sampling: Sampling, device: str = "cpu") -> ClipBatch:
        """One clip per condition and seed; frames of one level of the order are denoised in one batch.

        Args:
            conditions: fully annotated masks (B, T, H, W).
            seeds: B integers.

        Returns:
            Clips with (B, T, C, H, W) frames on the CPU; ids are the condition ids, the caller knows better ones.

        Raises:
            ValueError: if the masks' shape is not the one the checkpoint was trained for, or a mask is unknown.
        """
        frames, channels, height, width = self._facts["clip_shape"]
        if tuple(conditions.masks.shape[1:]) != (frames, height, width):
            raise ValueError(f"conditions are {tuple(conditions.masks.shape[1:])}, but the checkpoint makes clips of {(frames, height, width)}")
        if not conditions.annotated.all():
            raise ValueError("conditions with unknown pixels cannot be sampled; give a mask for every frame")
        for net in self._nets.values():
            net.to(device).eval()
        masks = conditions.masks.to(device)
        gamma = torch.tensor([draw["gamma"] for draw in self.draws(seeds, sampling)], device=device)
        generators = [generator(seed) for seed in seeds]
        omega = Omega(*sampling.omega) if not isinstance(sampling.omega, str) else OMEGA[sampling.omega]
        order = bisection(frames) if sampling.order == "bisection" else chronological(frames)
        video = torch.zeros(len(seeds), frames, channels, height, width, device=device)
        for level in order:
            wanted = [step.frame for step in level]
            asked = masks[:, wanted].flatten(0, 1)  # (B F, H, W), clip-major so that each clip's generator serves its own frames
            predict = self._predictor(level, video, asked, omega, sampling)
            gradient = self._gradient(asked, gamma.repeat_interleave(len(level)), sampling) if max(sampling.gamma) > 0 else None
            made = denoise(predict, self.denoiser.schedule, (channels, height, width), [own for own in generators for _ in level],
                           solver=sampling.solver, steps=sampling.steps, gradient=gradient, device=device)
            video[:, wanted] = made.view(len(seeds), len(level), channels, height, width)
        return ClipBatch(conditions.ids, video.cpu(), conditions)

    def _predictor(self, level: list[Step], video: Tensor, masks: Tensor, omega: Omega, sampling: Sampling) -> Callable[
        [Tensor, Tensor], tuple[Tensor, Tensor]
    ]:
        """The combined prediction of one level; all branches that have a weight go through the network as one batch."""
        clips, frames = video.shape[:2]
        classes = self._facts["classes"]
        known = _one_hot(masks, classes)
        givens = len(level[0].given)
        weight = (omega.scene, omega.concluding, omega.intermediate)[givens]
        if givens == 0:
            unknown = torch.zeros_like(known)
            branches = ([unknown] if needs_base(weight, 1) else []) + [known]

            def predict_scene(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
                predictions, v = _branches(self._nets["scene"], x, t, branches, None)
                return (combine(predictions[0], predictions[1:], weight) if len(branches) == 2 else predictions[0]), v[-1]

            return predict_scene
        target = torch.tensor([step.frame for step in level], device=video.device).repeat(clips)
        present = torch.ones(len(masks), dtype=torch.bool, device=video.device)
        inputs = []
        for side in range(givens):
            given = torch.tensor([step.given[side] for step in level], device=video.device)
            pictures = video[:, given].flatten(0, 1)
            inputs.append(_motion_inputs(known, pictures, (target - given.repeat(clips)) / (frames - 1), present))
        base = needs_base(weight, givens)
        if base and sampling.mask_only == "motion":
            inputs.insert(0, _motion_inputs(known, torch.zeros_like(pictures), torch.zeros_like(inputs[0][1]), ~present))

        def predict_motion(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            predictions, v = _branches(self._nets["motion"], x, t, [one for one, _ in inputs], [distance for _, distance in inputs])
            conditioned = predictions[-givens:]
            # Eq. 8's variance is not in the paper: the mean of the two log-variances, which is the mean of v
            variance = torch.stack(v[-givens:]).mean(0)
            if not base:
                return combine(torch.zeros_like(x), conditioned, weight), variance
            start = predictions[0] if sampling.mask_only == "motion" else _branches(self._nets["scene"], x, t, [known], None)[0][0]
            return combine(start, conditioned, weight), variance

        return predict_motion

    def _gradient(self, masks: Tensor, gamma: Tensor, sampling: Sampling) -> Callable[[Tensor, Tensor], Tensor]:
        psi = self._nets["psi"]

        def gradient(x: Tensor, t: Tensor) -> Tensor:
            pull = mask_gradient(lambda leaf: psi(leaf, t).sample, x, masks, sampling.gradient, sampling.max_gradient_norm)
            return gamma.view(-1, 1, 1, 1) * pull

        return gradient


class _Pictures:
    """Random single frames of a clip source: one frame of each drawn clip."""

    def __init__(self, clips: ClipSource, classes: int) -> None:
        self.clips, self.classes = clips, classes

    def draw(self, rows: list[int], size: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """`size` frames (size, C, H, W) and their masks (size, H, W) of uniformly drawn clips among `rows`."""
        batch = self.clips.read(_choose(rows, size, rng))
        frame = torch.randint(batch.frames.shape[1], (size,), generator=rng)
        at = torch.arange(size)
        return batch.frames[at, frame], batch.condition.masks[at, frame]

    def one_hot(self, masks: Tensor) -> Tensor:
        return _one_hot(masks, self.classes)


def _annotated(clips: ClipSource, batch: int = 64) -> tuple[list[int], int]:
    """Rows with an annotated frame, and the highest label among them."""
    rows, classes = [], 0
    for start in range(0, len(clips), batch):
        here = list(range(start, min(start + batch, len(clips))))
        condition = clips.read(here).condition
        rows += [row for row, known in zip(here, condition.annotated.any(1).tolist(), strict=True) if known]
        labels = condition.masks[condition.masks != UNKNOWN]
        classes = max(classes, int(labels.max()) if labels.numel() else 0)
    return rows, max(classes, 1)


def _choose(rows: list[int], size: int, rng: torch.Generator) -> list[int]:
    return [rows[number] for number in torch.randint(len(rows), (size,), generator=rng).tolist()]


def _drop(masks: Tensor, probability: float, rng: torch.Generator) -> Tensor:
    """Whole masks replaced by UNKNOWN."""
    dropped = torch.rand(len(masks), generator=rng) < probability
    return torch.where(dropped.view(-1, 1, 1), torch.full_like(masks, UNKNOWN), masks)


def _one_hot(masks: Tensor, classes: int) -> Tensor:
    """(B, H, W) labels -> (B, K + 1, H, W): one channel a class, then 1 where the mask is known.

    Zeros alone would not tell "no wire here" from "nobody looked".
    """
    known = (masks != UNKNOWN).float()
    layers = [(masks == label).float() for label in range(1, classes + 1)]
    return torch.stack([*layers, known], 1)


def _motion_inputs(mask: Tensor, given: Tensor, distance: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Conditioning channels of the motion model (mask, frame, has-frame) and its scaled signed frame distance.

    A left-out frame is black with its indicator at zero and distance zero.
    """
    has = present.float()
    frame = given * has.view(-1, 1, 1, 1)
    indicator = has.view(-1, 1, 1, 1).expand(-1, 1, *given.shape[2:])
    return torch.cat([mask, frame, indicator], 1), distance * has * DISTANCE_SCALE


def _branches(net: nn.Module, x: Tensor, t: Tensor, inputs: list[Tensor], labels: list[Tensor] | None) -> tuple[list[Tensor], list[Tensor]]:
    """Predictions and v of several conditionings of the same x_t, in one pass."""
    count = len(inputs)
    batch = torch.cat([x.repeat(count, 1, 1, 1), torch.cat(inputs)], 1)
    out = net(batch, t.repeat(count), torch.cat(labels) if labels else None).sample
    prediction, v = out.chunk(2, 1)
    return list(prediction.chunk(count)), list(v.chunk(count))


def _to(device: torch.device, *tensors: Tensor) -> list[Tensor]:
    return [tensor.to(device, non_blocking=True) for tensor in tensors]


def _unet(params: NetParams, size: tuple[int, int], inputs: int, outputs: int, *, seed: int, distances: bool = False) -> UNet2DModel:
    """Raises ValueError if the frame size cannot be halved as often as the levels ask."""
    factor = 2 ** (len(params.channels) - 1)
    if size[0] % factor or size[1] % factor:
        raise ValueError(f"frame_size {list(size)} must be divisible by {factor} for {len(params.channels)} levels of channels; change either")
    levels = range(len(params.channels))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet2DModel(
            sample_size=size,
            in_channels=inputs,
            out_channels=outputs,
            block_out_channels=tuple(params.channels),
            layers_per_block=params.layers,
            norm_num_groups=params.norm_groups,
            down_block_types=tuple("AttnDownBlock2D" if level in params.attention else "DownBlock2D" for level in levels),
            up_block_types=tuple("AttnUpBlock2D" if level in params.attention else "UpBlock2D" for level in reversed(levels)),
            attention_head_dim=16,
            class_embed_type="timestep" if distances else None,
        )

"""SF-VD: masks -> video, by a scene model for one frame and a motion model for every other (AAAI 2025).

p(V|M) = p(I0|M0) p(I1..I(N-1) | M, I0): two 2-D diffusion models in pixel space with learned variance, a frame order that
lets intermediate frames be pulled from both sides, and a segmentation network that guides sampling. Where the paper is silent
or wrong the choice is an option here, with the paper's reading among its values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from models.clip import UNKNOWN, ClipBatch, ClipSource, Condition, DescribedClips
from models.diffusion.conditioners import drop_masks, frame_channels, mask_channels
from models.diffusion.denoiser import Denoiser, Prediction
from models.diffusion.frame_order import Step, bisection, chronological
from models.diffusion.guidance import OMEGA, Omega, combine, mask_gradient, needs_base
from models.diffusion.sampler import Gradient, Predict, Solver, denoise
from models.diffusion.unet import NetParams, unet
from models.generators import Checkpoint
from models.seeding import derive_seed, generator
from models.trainer import Loss, StateHook, fit


class Params(BaseModel):
    """What training needs. `batch_size` counts frames in all three phases."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scene: NetParams
    motion: NetParams
    psi: NetParams = Field(description="the noise-aware segmentation network that guides sampling, trained on x_t")
    prediction: Prediction = "epsilon"
    mask_dropout: float = Field(0.1, ge=0, lt=1, description="annotated frames shown without their mask (scene)")
    frame_dropout: float = Field(
        0.15, ge=0, lt=1, description="conditioning frame left out (motion): Eqs. 6 and 8 need that prediction too"
    )
    motion_clips: Literal["annotated", "all"] = Field(
        "annotated", description="the paper trains motion on annotated frames only; `all` (ours) adds the others, masks unknown"
    )


class Sampling(BaseModel):
    """What sampling needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: Literal["bisection", "chronological"] = Field("bisection", description="chronological: the ablation of consistency")
    solver: Solver = "fast"
    steps: int = Field(20, gt=0, le=1000)
    omega: Literal["default", "bayes", "literal"] | tuple[float, float, float] = "default"
    mask_only: Literal["motion", "scene"] = Field("motion", description="whose frameless prediction Eqs. 6 and 8 start from")
    gamma: tuple[float, float] = Field((0.0, 15.0), description="segmentation guidance, uniform per clip; [0, 0] is off")
    gradient: Literal["sum", "mean"] = "sum"
    max_gradient_norm: float = Field(1.0, gt=0)

    @field_validator("gamma")
    @classmethod
    def _rising(cls, gamma: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= gamma[0] <= gamma[1]:
            raise ValueError(f"gamma {list(gamma)} must be [low, high] with 0 <= low <= high")
        return gamma


def build(params: Params, checkpoint: Checkpoint | None = None) -> SFVD:
    return SFVD(params, checkpoint)


class SFVD:
    """See the module. Networks: `scene` and `motion` (2C outputs: prediction and variance), `psi` (K + 1 logits)."""

    def __init__(self, params: Params, checkpoint: Checkpoint | None = None) -> None:
        self.params = params
        self.denoiser = Denoiser(params.prediction)
        self._nets: dict[str, nn.Module] = checkpoint.nets if checkpoint else {}
        self._facts: dict[str, Any] = checkpoint.facts if checkpoint else {}

    def fit(self, clips: DescribedClips, hook: StateHook, seed: int) -> Checkpoint:
        """Train psi, the scene model and the motion model, one after the other; a resumed run ends with the same weights.

        K is the highest label among the annotated frames.

        Raises:
            ValueError: if no clip has an annotated frame, or clips have fewer than two frames.
        """
        pool = _Frames(clips)
        frames, channels, height, width = pool.shape
        if not pool.annotated:
            raise ValueError("SF-VD needs masks: no training clip has an annotated frame; raise dataset.annotated_patients")
        if frames < 2:
            raise ValueError(f"SF-VD needs clips of at least 2 frames, but clip_frames is {frames}; use an image model")
        size, mask = (height, width), pool.classes + 1
        nets: dict[str, nn.Module] = {
            "psi": unet(self.params.psi, size, channels, mask, seed=derive_seed(seed, "psi")),
            "scene": unet(self.params.scene, size, channels + mask, 2 * channels, seed=derive_seed(seed, "scene")),
            "motion": unet(self.params.motion, size, 2 * channels + mask + 1, 2 * channels,
                           seed=derive_seed(seed, "motion"), distances=True),
        }
        losses = {"psi": self._psi_loss(pool), "scene": self._scene_loss(pool), "motion": self._motion_loss(pool)}
        curves = {
            name: fit(net, losses[name], getattr(self.params, name).train, phase=name, seed=seed, hook=hook)
            for name, net in nets.items()
        }
        self._nets, self._facts = nets, {"clip_shape": list(pool.shape), "classes": pool.classes}
        return Checkpoint("sfvd", self.params.model_dump(mode="json"), nets, self._facts, curves)

    def _psi_loss(self, pool: _Frames) -> Loss:
        def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
            clips, frame = pool.draw(self.params.psi.train.batch_size, rng, unannotated=False)
            x0, masks = _pick(clips, frame)
            t, noise = self._noise(x0, rng)
            x_t, t, masks = _to_net(net, self.denoiser.schedule.add_noise(x0, noise, t), t, masks)
            return functional.cross_entropy(net(x_t, t).sample.float(), masks.long(), ignore_index=UNKNOWN)

        return loss

    def _scene_loss(self, pool: _Frames) -> Loss:
        def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
            clips, frame = pool.draw(self.params.scene.train.batch_size, rng)
            x0, masks = _pick(clips, frame)
            conditioning = mask_channels(drop_masks(masks, self.params.mask_dropout, rng), pool.classes)
            t, noise = self._noise(x0, rng)
            return self.denoiser.loss(net, *_to_net(net, x0, noise, t, conditioning))

        return loss

    def _motion_loss(self, pool: _Frames) -> Loss:
        """Uniform ordered pairs i != j of one clip, both directions: Eq. 8 conditions on later frames too."""

        def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
            size, frames = self.params.motion.train.batch_size, pool.shape[0]
            clips, target = pool.draw(size, rng, unannotated=self.params.motion_clips == "all")
            given = (target + torch.randint(1, frames, (size,), generator=rng)) % frames
            present = torch.rand(size, generator=rng) >= self.params.frame_dropout
            x0, masks = _pick(clips, target)
            other, distance = frame_channels(_pick(clips, given)[0], (target - given) / (frames - 1), present)
            conditioning = torch.cat([mask_channels(masks, pool.classes), other], 1)
            t, noise = self._noise(x0, rng)
            return self.denoiser.loss(net, *_to_net(net, x0, noise, t, conditioning, distance))

        return loss

    def _noise(self, frames: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        t = torch.randint(len(self.denoiser.schedule.betas), (len(frames),), generator=rng)
        return t, torch.randn(frames.shape, generator=rng)

    def draws(self, seeds: Sequence[int], sampling: Sampling) -> list[dict[str, float]]:
        """gamma of each clip: uniform over `sampling.gamma`, a function of the clip's seed."""
        low, high = sampling.gamma
        uniform = (float(torch.rand((), generator=generator(derive_seed(seed, "gamma")))) for seed in seeds)
        return [{"gamma": low + (high - low) * share} for share in uniform]

    def sample(self, conditions: Condition, seeds: Sequence[int], sampling: Sampling, device: str = "cpu") -> ClipBatch:
        """One clip per condition and seed; frames of one level of the order are denoised in one batch.

        Args:
            conditions: fully annotated masks (B, T, H, W).
            seeds: B integers.

        Returns:
            Clips with (B, T, C, H, W) frames on the CPU; ids are the condition ids, the caller knows better ones.

        Raises:
            ValueError: if the masks' shape or labels are not those the checkpoint was trained for, or a mask is unknown.
        """
        frames, *shape = self._facts["clip_shape"]
        self._refuse(conditions, seeds)
        for net in self._nets.values():
            net.to(device).eval()
        masks = conditions.masks.to(device)
        gamma = torch.tensor([draw["gamma"] for draw in self.draws(seeds, sampling)], device=device)
        generators = [generator(seed) for seed in seeds]
        video = torch.zeros(len(seeds), frames, *shape, device=device)
        for level in (bisection if sampling.order == "bisection" else chronological)(frames):
            wanted = [step.frame for step in level]
            # clip-major, so that each clip's generator serves its own frames in order
            asked = masks[:, wanted].flatten(0, 1)
            own = [rng for rng in generators for _ in level]
            predict = self._predictor(level, video, asked, sampling)
            pull = self._gradient(asked, gamma.repeat_interleave(len(level)), sampling) if sampling.gamma[1] > 0 else None
            made = denoise(
                predict, self.denoiser.schedule, shape, own,
                solver=sampling.solver, steps=sampling.steps, gradient=pull, device=device,
            )
            video[:, wanted] = made.unflatten(0, (len(seeds), len(level)))
        return ClipBatch(conditions.ids, video.cpu(), conditions)

    def _refuse(self, conditions: Condition, seeds: Sequence[int]) -> None:
        frames, _, *size = self._facts["clip_shape"]
        classes: int = self._facts["classes"]
        if len(seeds) != len(conditions):
            raise ValueError(f"{len(conditions)} conditions, but {len(seeds)} seeds; give one seed a condition")
        if (shape := list(conditions.masks.shape[1:])) != [frames, *size]:
            raise ValueError(f"conditions are {shape}, but the checkpoint makes clips of {[frames, *size]}; make those")
        if not conditions.annotated.all():
            raise ValueError("conditions with unknown pixels cannot be sampled; give a mask for every frame")
        if (label := int(conditions.masks.max())) > classes:
            raise ValueError(f"conditions show label {label}, but the checkpoint knows 1 to {classes}; train it on that class")

    def _predictor(self, level: list[Step], video: Tensor, masks: Tensor, sampling: Sampling) -> Predict:
        """The combined prediction of one level, by how many frames it is given: none (Eq. 4), one (Eq. 6) or two (Eq. 8)."""
        omega = OMEGA[sampling.omega] if isinstance(sampling.omega, str) else Omega(*sampling.omega)
        known = mask_channels(masks, self._facts["classes"])
        if givens := len(level[0].given):
            return self._motion_predictor(level, video, known, omega[givens], sampling.mask_only)
        inputs = [torch.zeros_like(known), known] if needs_base(omega.scene, 1) else [known]

        def predict(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            predictions, v = _branches(self._nets["scene"], x, t, inputs)
            return combine(predictions[0], predictions[-1:], omega.scene), v[-1]

        return predict

    def _motion_predictor(self, level: list[Step], video: Tensor, known: Tensor, omega: float, mask_only: str) -> Predict:
        """All branches that have a weight go through the network as one batch."""
        clips, frames = video.shape[:2]
        givens = len(level[0].given)
        present = torch.ones(len(known), dtype=torch.bool, device=video.device)
        inputs, distances = [], []
        for side in range(givens):
            offset = torch.tensor([step.frame - step.given[side] for step in level], device=video.device) / (frames - 1)
            given = video[:, [step.given[side] for step in level]].flatten(0, 1)
            other, distance = frame_channels(given, offset.repeat(clips), present)
            inputs.append(torch.cat([known, other], 1))
            distances.append(distance)
        base = needs_base(omega, givens)
        if base and mask_only == "motion":
            other, distance = frame_channels(given, offset.repeat(clips), ~present)
            inputs.insert(0, torch.cat([known, other], 1))
            distances.insert(0, distance)

        def predict(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            predictions, v = _branches(self._nets["motion"], x, t, inputs, distances)
            start = predictions[0]
            if base and mask_only == "scene":
                start = _branches(self._nets["scene"], x, t, [known])[0][0]
            # Eq. 8's variance is not in the paper: the mean of the two log-variances, which is the mean of v
            return combine(start, predictions[-givens:], omega), torch.stack(v[-givens:]).mean(0)

        return predict

    def _gradient(self, masks: Tensor, gamma: Tensor, sampling: Sampling) -> Gradient:
        psi = self._nets["psi"]

        def gradient(x: Tensor, t: Tensor) -> Tensor:
            pull = mask_gradient(lambda leaf: psi(leaf, t).sample.float(), x, masks, sampling.gradient,
                                 sampling.max_gradient_norm)
            return gamma.view(-1, 1, 1, 1) * pull

        return gradient


class _Frames:
    """The frames of a clip source by place (clip, frame): `annotated`, whose mask is complete, and `unannotated`.

    A step reads one whole clip for each frame it uses, since the store's chunk is the clip.
    """

    def __init__(self, clips: ClipSource, batch: int = 64) -> None:
        self.clips = clips
        self.shape = tuple(clips.read([0]).frames.shape[1:])
        self.annotated: list[tuple[int, int]] = []
        self.unannotated: list[tuple[int, int]] = []
        self.classes = 1
        for start in range(0, len(clips), batch):
            condition = clips.read(range(start, min(start + batch, len(clips)))).condition
            for row, frame in condition.annotated.nonzero().tolist():
                self.annotated.append((start + row, frame))
            for row, frame in (~condition.annotated).nonzero().tolist():
                self.unannotated.append((start + row, frame))
            labels = torch.where(condition.masks == UNKNOWN, 0, condition.masks)
            self.classes = max(self.classes, int(labels.max()))

    def draw(self, size: int, rng: torch.Generator, unannotated: bool = True) -> tuple[ClipBatch, Tensor]:
        """`size` random clips and one place (size,) in each; half of them annotated where both kinds exist.

        The annotated frames are few and must not drown among the others.
        """
        mixed = unannotated and bool(self.unannotated)
        share = (size + 1) // 2 if mixed else size
        places = [self.annotated[number] for number in torch.randint(len(self.annotated), (share,), generator=rng).tolist()]
        if mixed:
            more = torch.randint(len(self.unannotated), (size - share,), generator=rng).tolist()
            places += [self.unannotated[number] for number in more]
        return self.clips.read([row for row, _ in places]), torch.tensor([frame for _, frame in places])


def _pick(clips: ClipBatch, frame: Tensor) -> tuple[Tensor, Tensor]:
    """One frame (B, C, H, W) and its mask (B, H, W) of each clip."""
    row = torch.arange(len(clips))
    return clips.frames[row, frame], clips.condition.masks[row, frame]


def _branches(
    net: nn.Module, x: Tensor, t: Tensor, inputs: list[Tensor], labels: list[Tensor] | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Predictions and v of several conditionings of the same x_t, in one pass."""
    count = len(inputs)
    batch = torch.cat([x.repeat(count, 1, 1, 1), torch.cat(inputs)], 1)
    prediction, v = net(batch, t.repeat(count), torch.cat(labels) if labels else None).sample.float().chunk(2, 1)
    return list(prediction.chunk(count)), list(v.chunk(count))


def _to_net(net: nn.Module, *tensors: Tensor) -> list[Tensor]:
    device = next(net.parameters()).device
    return [tensor.to(device, non_blocking=True) for tensor in tensors]

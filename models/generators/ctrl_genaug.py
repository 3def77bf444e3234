"""Ctrl-GenAug: class, text, image prior and motion field -> sequence, by a latent diffusion model trained in two phases.

Phase 0 trains the codec, and text and image encoders against each other. Phase 1 trains an image model on single frames. Phase
2 inflates it to clips and trains only what is new and what looks at conditions. Where the paper or its release is silent or
wrong the choice is an option here; see the docstrings of `models.nets`, `models.motion` and `joint_conditions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from models.alignment import AlignmentParams, train_aligned
from models.class_turns import ClassTurns
from models.clip import ClipBatch, Condition, DescribedClips
from models.codec import Codec, LocalVae, VaeParams, measure, obtain_vae
from models.diffusion.denoiser import Prediction
from models.diffusion.joint_conditions import DropParams, Given, drop
from models.diffusion.latent_sampler import Schedule, Solver, denoise_latents, latent_schedule, target
from models.diffusion.warped_noise import warped_noise
from models.generators import Checkpoint
from models.motion import optical_flow, trajectories
from models.motion_vectors import codec_vectors
from models.nets.image_unet import ImageParams
from models.nets.sequence_unet import SequenceUNet
from models.seeding import derive_seed, generator
from models.trainer import Loss, StateHook, TrainParams, fit

What = Literal["label", "text", "image", "motion"]
EVERYTHING: tuple[What, ...] = ("label", "text", "image", "motion")


class Params(BaseModel):
    """What training needs. `sequence.batch_size` counts clips."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codec: VaeParams | LocalVae
    alignment: AlignmentParams
    image: ImageParams
    sequence: TrainParams
    prediction: Prediction = "epsilon"
    schedule: Schedule = "scaled_linear"
    drop: DropParams = Field(default_factory=lambda: DropParams.model_validate({}))
    attention_over: Literal["S", "SK", "SKM"] = "SKM"
    gated: bool = Field(True, description="false: key frames replace self-attention at once, as in the paper")
    motion: Literal["flow", "codec"] = Field("flow", description="optical flow, or the vectors of a video encoder")
    noise_correlation: float = Field(0.0, ge=0, le=1, description="of noise between frames, along the motion; the paper's is 0")
    even_classes: bool = Field(False, description="draw classes equally often; the paper draws clips")


class Sampling(BaseModel):
    """What sampling needs. The paper's: solver ddim, steps 200, guidance 7.5, interval [0, 1]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    solver: Solver = "fast"
    steps: int = Field(20, gt=0, le=1000)
    guidance: float = Field(2.0, ge=1)
    interval: tuple[float, float] = Field((0.0, 1.0), description="shares of the noise levels between which guidance applies")
    use: list[What] = Field(list(EVERYTHING), description="the conditions asked for; the others are left open")

    @field_validator("interval")
    @classmethod
    def _rising(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= interval[0] < interval[1] <= 1:
            raise ValueError(f"interval {list(interval)} must be [low, high] with 0 <= low < high <= 1")
        return interval


def build(params: Params, checkpoint: Checkpoint | None = None) -> CtrlGenAug:
    return CtrlGenAug(params, checkpoint)


class CtrlGenAug:
    """See the module. Networks: `vae`, `aligned` (text and image encoder), `image`, `sequence`."""

    def __init__(self, params: Params, checkpoint: Checkpoint | None = None) -> None:
        self.params = params
        self.schedule = latent_schedule(params.schedule, params.prediction)
        self._nets: dict[str, Any] = dict(checkpoint.nets) if checkpoint else {}
        self._facts: dict[str, Any] = checkpoint.facts if checkpoint else {}

    def fit(self, clips: DescribedClips, hook: StateHook, seed: int) -> Checkpoint:
        """Train all phases, one after the other; a resumed run ends with the same weights.

        Raises:
            ValueError: if clips have fewer than two frames, or a frame is no whole number of latent pixels.
        """
        frames, channels, height, width = clips.read([0]).frames.shape[1:]
        if frames < 2:
            raise ValueError(f"Ctrl-GenAug needs clips of at least 2 frames, but clip_frames is {frames}")
        labels = sorted({*clips.labels} - {""})
        self._facts = {"clip_shape": [frames, channels, height, width], "labels": labels}
        params = self.params
        self._nets["vae"], losses = obtain_vae(params.codec, clips, hook, seed)
        self._facts |= measure(self._nets["vae"], clips, seed)
        self._nets["aligned"], losses["alignment"] = train_aligned(params.alignment, clips, hook, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "image"))
            self._nets["image"] = self._image_model()
        losses["image"] = fit(self._nets["image"], self._loss(clips, params.image.train, moving=False), params.image.train,
                              phase="image", seed=seed, hook=hook)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "sequence"))
            self._nets["sequence"] = SequenceUNet.from_image_model(self._nets["image"], params.gated, params.attention_over)
        losses["sequence"] = fit(self._nets["sequence"], self._loss(clips, params.sequence, moving=True), params.sequence,
                                 phase="sequence", seed=seed, hook=hook)
        return Checkpoint("ctrl_genaug", params.model_dump(mode="json"), dict(self._nets), self._facts, losses)

    def _image_model(self) -> SequenceUNet:
        wanted, aligned, codec = self.params.image, self._nets["aligned"], self._codec()
        codec.check_size(self._facts["clip_shape"][2:], len(wanted.channels), "image")
        return SequenceUNet(
            latent_channels=codec.channels, channels=wanted.channels, layers=wanted.layers, attention=wanted.attention,
            head_width=wanted.head_width, norm_groups=wanted.norm_groups, text_width=aligned.text.width,
            image_width=aligned.image.width, classes=len(self._facts["labels"]), factor=codec.factor,
        )

    def _codec(self) -> Codec:
        return Codec(self._nets["vae"], self._facts["latent_mean"], self._facts["latent_std"])

    def _loss(self, clips: DescribedClips, train: TrainParams, moving: bool) -> Loss:
        """Mean squared error on random single frames, each its own image prior, or (`moving`) on whole clips."""
        codec, null = self._codec(), len(self._facts["labels"])
        turns = ClassTurns(clips.labels, self.params.even_classes)

        def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
            device = next(net.parameters()).device
            self._to(device, "vae", "aligned")
            batch = clips.read(turns.draw(train.batch_size, rng))
            frames = batch.frames.to(device)
            if not moving:
                frame = torch.randint(frames.shape[1], (len(batch),), generator=rng).to(device)
                frames = frames[torch.arange(len(batch), device=device), frame].unsqueeze(1)
            rngs = [rng] * len(batch) if moving else None
            whole = self._given(batch.condition, frames, rngs)
            given = drop(whole, self.params.drop, null, rng)
            latents = codec.encode(frames)
            t = torch.randint(len(self.schedule.betas), (len(batch),), generator=rng).to(device)
            field = given.field
            if field is not None and whole.field is not None and self.params.noise_correlation:
                # without a motion condition noise follows the true motion or stays, by turns: guidance compares with the
                # former, sampling without motion begins with the latter
                follows = (torch.rand(len(batch), 1, 1, 1, 1, generator=rng) < 0.5).to(device)
                field = torch.where(follows, whole.field, field)
            noise = self._noise(field, [rng] * len(batch)).to(device)
            noisy = self.schedule.add_noise(latents, noise, t)
            wanted = target(self.schedule, latents, noise, t)
            found = net(noisy, t, given.labels, given.text, given.image, given.field, given.trajectories)
            return (found.float() - wanted).square().mean()

        return loss

    def draws(self, seeds: Sequence[int], sampling: Sampling) -> list[dict[str, float]]:
        """Nothing is drawn per clip beside noise and the trajectories' conflicts."""
        return [{} for _ in seeds]

    def sample(self, conditions: Condition, seeds: Sequence[int], sampling: Sampling, device: str = "cpu") -> ClipBatch:
        """One clip per condition and seed.

        Args:
            conditions: labels and texts, and reference clips where `sampling.use` has image or motion; masks are passed on.
            seeds: B integers.

        Returns:
            Clips with (B, T, C, H, W) frames on the CPU; ids are the condition ids, the caller knows better ones.

        Raises:
            ValueError: for a class the checkpoint was not trained on, or a missing or misshapen reference.
        """
        self._refuse(conditions, seeds, sampling)
        self._to(device, "vae", "aligned", "sequence")
        frames, channels, height, width = self._facts["clip_shape"]
        codec, null, net = self._codec(), len(self._facts["labels"]), self._nets["sequence"]
        reference = conditions.reference
        if reference is None:
            reference = torch.zeros(len(seeds), frames, channels, height, width)
        given = self._given(conditions, reference.to(device), [generator(derive_seed(seed, "trajectories")) for seed in seeds])
        given = given.keep(torch.tensor([[what in sampling.use for what in EVERYTHING]] * len(seeds), device=device), null)
        none = given.keep(torch.zeros(len(seeds), len(EVERYTHING), dtype=torch.bool, device=device), null)
        both = {name: torch.cat([getattr(given, name), getattr(none, name)]) for name in vars(given)}

        def predict(x: Tensor, t: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
            if not guided:
                return net(x, t, **vars(given)), None
            found, base = net(torch.cat([x, x]), torch.cat([t, t]), **both).chunk(2)
            return found, base

        latents = denoise_latents(
            predict, self.schedule, self._noise(given.field, [generator(seed) for seed in seeds]).to(device),
            solver=sampling.solver, steps=sampling.steps, guidance=sampling.guidance, interval=sampling.interval,
        )
        return ClipBatch(conditions.ids, codec.decode(latents, channels).float().cpu(), conditions)

    @torch.no_grad()
    def _given(self, condition: Condition, frames: Tensor, rngs: Sequence[torch.Generator] | None) -> Given:
        """All conditions of these clips, from their own frames; motion if `rngs` settle the conflicts of its trajectories."""
        null, device = len(self._facts["labels"]), frames.device
        number = {label: place for place, label in enumerate(self._facts["labels"])}
        labels = torch.tensor([number.get(label, null) for label in condition.labels], device=device)
        said = torch.tensor([bool(text) for text in condition.texts], device=device)
        text = self._nets["aligned"].text(condition.texts) * said[:, None, None]
        image = self._nets["aligned"].image(frames[:, 0])
        if rngs is None:
            return Given(labels, text, image)
        field = codec_vectors(frames) if self.params.motion == "codec" else optical_flow(frames)
        factor = self._codec().factor
        table = torch.cat([trajectories(one[None], factor, rng) for one, rng in zip(field, rngs, strict=True)])
        return Given(labels, text, image, field, table)

    def _noise(self, field: Tensor | None, rngs: Sequence[torch.Generator]) -> Tensor:
        """Of images (no field) or of clips, along the field."""
        codec = self._codec()
        frames, _, height, width = self._facts["clip_shape"]
        correlation = self.params.noise_correlation
        if field is None or correlation == 0:
            shape = (1 if field is None else frames, codec.channels, height // codec.factor, width // codec.factor)
            return torch.stack([torch.randn(shape, generator=rng) for rng in rngs])
        return warped_noise(field, codec.channels, codec.factor, correlation, rngs)

    def _refuse(self, conditions: Condition, seeds: Sequence[int], sampling: Sampling) -> None:
        shape = self._facts["clip_shape"]
        if len(seeds) != len(conditions):
            raise ValueError(f"{len(conditions)} conditions, but {len(seeds)} seeds; give one seed a condition")
        if "label" in sampling.use and (strange := set(conditions.labels) - {"", *self._facts["labels"]}):
            raise ValueError(f"conditions ask for class {', '.join(sorted(strange))}, but the checkpoint knows "
                             f"{', '.join(self._facts['labels'])}; train it on that class")
        if (found := {"image", "motion"} & set(sampling.use)) and conditions.reference is None:
            raise ValueError(f"sampling.use: {', '.join(sorted(found))} needs whole training clips; set conditions.kind: clips")
        if conditions.reference is not None and (found_shape := list(conditions.reference.shape[1:])) != shape:
            raise ValueError(f"references are {found_shape}, but the checkpoint makes clips of {shape}; make those")

    def _to(self, device: str | torch.device, *names: str) -> None:
        for name in names:
            self._nets[name].to(device).eval()

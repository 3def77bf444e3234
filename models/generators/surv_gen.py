"""SurV-Gen: text and class -> clip, for classes that are rare (Venkatesh et al. 2025).

Stage 1 is a text-conditioned latent diffusion model of single frames, trained from scratch or from a folder in Stable
Diffusion's layout. Stage 2 keeps it frozen and adds AnimateDiff's motion modules, whose output starts at zero, and a class.
Its networks are diffusers' own, saved in diffusers' form: `unet`, `vae` and `motion` of a checkpoint make an AnimateDiff
pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import MotionAdapter, UNet2DConditionModel
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from models.alignment import AlignmentParams, train_aligned
from models.class_turns import ClassTurns
from models.clip import ClipBatch, Condition, DescribedClips
from models.codec import Codec, LocalVae, VaeParams, latent_scale, load_vae, obtain_vae
from models.diffusion.denoiser import Prediction
from models.diffusion.latent_sampler import Schedule, Solver, denoise_latents, latent_schedule, target
from models.generators import Checkpoint
from models.local_encoders import load_text_encoder
from models.nets.image_unet import ImageParams, image_unet
from models.nets.motion_unet import LabelPlace, MotionUNet, framewise, new_adapter, new_labels
from models.seeding import derive_seed, generator
from models.trainer import Loss, StateHook, TrainParams, fit
from models.weight_files import published

What = Literal["label", "text"]


class MotionParams(BaseModel):
    """The motion modules and their training; `batch_size` counts clips."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads: int = Field(8, gt=0)
    longest: int = Field(32, gt=0, description="frames of a clip at most")
    mid_block: bool = Field(False, description="one in the middle too, as in AnimateDiff v2")
    adapter: Path | None = Field(None, description="begin with the MotionAdapter in this folder, of diffusers' form")
    label_place: LabelPlace = Field("modules", description="where the class is added: time or modules; the paper does not say")
    schedule: Schedule | None = Field(None, description="noise schedule of stage 2; AnimateDiff's is linear, None: stage 1's")
    train: TrainParams


class Params(BaseModel):
    """What training needs: sizes of all parts, or a pretrained folder with `vae`, `unet`, `text_encoder` and `tokenizer`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codec: VaeParams | LocalVae | None = None
    alignment: AlignmentParams | None = Field(None, description="the text encoder, trained against the frames, then frozen")
    image: ImageParams | None = None
    pretrained: Path | None = Field(None, description="a folder in Stable Diffusion's layout, in place of the three above")
    finetune: TrainParams | None = Field(None, description="of the pretrained image model; `batch_size` counts frames")
    motion: MotionParams
    prediction: Prediction = "v_prediction"
    schedule: Schedule = "scaled_linear"
    drop: float = Field(0.1, ge=0, le=1, description="chance that text and class are dropped, together")
    even_classes: bool = Field(True, description="draw classes equally often; the paper trains one motion model a class")

    @model_validator(mode="after")
    def _one_way(self) -> Params:
        scratch = [self.codec, self.alignment, self.image]
        if self.pretrained is None and (None in scratch or self.finetune is not None):
            raise ValueError("give codec, alignment and image, or pretrained and finetune")
        if self.pretrained is not None and (self.finetune is None or any(part is not None for part in scratch)):
            raise ValueError("pretrained needs finetune, and stands in place of codec, alignment and image")
        return self


class Sampling(BaseModel):
    """What sampling needs. Not stated in the paper; diffusers' usual is solver ddim, steps 50, guidance 7.5."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    solver: Solver = "fast"
    steps: int = Field(20, gt=0, le=1000)
    guidance: float = Field(2.0, ge=1)
    use: list[What] = Field(["label", "text"], description="the conditions asked for; the other is left open")
    temporal: bool = Field(True, description="false: the image model on every frame alone, to see what the motion modules do")


def build(params: Params, checkpoint: Checkpoint | None = None) -> SurVGen:
    return SurVGen(params, checkpoint)


class SurVGen:
    """See the module. Networks: `vae`, `text`, `unet`, `motion`, `labels`."""

    def __init__(self, params: Params, checkpoint: Checkpoint | None = None) -> None:
        self.params = params
        self._nets: dict[str, Any] = dict(checkpoint.nets) if checkpoint else {}
        self._facts: dict[str, Any] = checkpoint.facts if checkpoint else {}
        self._video: MotionUNet | None = None

    def fit(self, clips: DescribedClips, hook: StateHook, seed: int) -> Checkpoint:
        """Train codec, text encoder, image model and motion modules; a resumed run ends with the same weights.

        Raises:
            ValueError: if a clip is longer than the motion modules, or a frame is no whole number of latent pixels.
        """
        shape = list(clips.read([0]).frames.shape[1:])
        if shape[0] > self.params.motion.longest:
            raise ValueError(f"clip_frames is {shape[0]}, but motion.longest is {self.params.motion.longest}; raise it")
        self._facts = {"clip_shape": shape, "labels": sorted({*clips.labels} - {""})}
        losses: dict[str, list[float]] = {}
        train = self._begin(clips, hook, seed, losses)
        losses["image"] = fit(self._nets["unet"], self._loss(clips, train, moving=False), train, phase="image", seed=seed,
                              hook=hook)
        self._nets["unet"].requires_grad_(False)
        motion = self.params.motion
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "motion"))
            adapter = (published(MotionAdapter, motion.adapter) if motion.adapter
                       else new_adapter(self._nets["unet"], motion.heads, motion.longest, motion.mid_block))
        labels = new_labels(self._nets["unet"], adapter, max(1, len(self._facts["labels"])), motion.label_place)
        video = MotionUNet(self._nets["unet"], adapter, labels)
        losses["motion"] = fit(video, self._loss(clips, motion.train, moving=True), motion.train, phase="motion", seed=seed,
                               hook=hook)
        self._nets["motion"], self._nets["labels"] = video.parts(adapter, labels)
        return Checkpoint("surv_gen", self.params.model_dump(mode="json"), dict(self._nets), self._facts, losses)

    def _begin(self, clips: DescribedClips, hook: StateHook, seed: int, losses: dict[str, list[float]]) -> TrainParams:
        """Codec, text encoder and the image model before its training, whose parameters are returned."""
        params = self.params
        if params.pretrained is not None and params.finetune is not None:
            folder = params.pretrained
            self._nets["vae"] = load_vae(LocalVae.model_validate({"folder": folder / "vae"}))
            self._nets["text"] = load_text_encoder(folder / "text_encoder", folder / "tokenizer", masked=False).eval()
            self._nets["unet"] = published(UNet2DConditionModel, folder / "unet")
            return params.finetune
        assert params.codec and params.alignment and params.image  # Params sees to it
        self._nets["vae"], trained = obtain_vae(params.codec, clips, hook, seed)
        losses |= trained
        if trained:
            self._nets["vae"].register_to_config(scaling_factor=1 / latent_scale(self._nets["vae"], clips, seed))
        aligned, losses["alignment"] = train_aligned(params.alignment, clips, hook, seed)
        self._nets["text"] = aligned.text.eval()
        codec = self._codec()
        codec.check_size(self._facts["clip_shape"][2:], len(params.image.channels), "image")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "image"))
            self._nets["unet"] = image_unet(params.image, codec.channels, self._nets["text"].width)
        return params.image.train

    def _codec(self) -> Codec:
        """One scale for all channels, the VAE's own `scaling_factor`, so that diffusers' pipelines decode what is sampled."""
        vae = self._nets["vae"]
        channels = vae.config.latent_channels
        return Codec(vae, [0.0] * channels, [1 / vae.config.scaling_factor] * channels)

    def _loss(self, clips: DescribedClips, train: TrainParams, moving: bool) -> Loss:
        """Mean squared error on random single frames, or (`moving`) on whole clips."""
        codec, drop = self._codec(), self.params.drop
        turns = ClassTurns(clips.labels, self.params.even_classes)
        kind = (self.params.motion.schedule if moving else None) or self.params.schedule
        schedule = latent_schedule(kind, self.params.prediction)

        def loss(net: nn.Module, rng: torch.Generator) -> Tensor:
            device = next(net.parameters()).device
            self._to(device, "vae", "text")
            batch = clips.read(turns.draw(train.batch_size, rng))
            frames = batch.frames.to(device)
            if not moving:
                frame = torch.randint(frames.shape[1], (len(batch),), generator=rng).to(device)
                frames = frames[torch.arange(len(batch), device=device), frame].unsqueeze(1)
            kept = (torch.rand(len(batch), generator=rng) >= drop).tolist()
            text, labels = self._given(batch.condition, kept, kept, device)
            latents = codec.encode(frames)
            t = torch.randint(len(schedule.betas), (len(batch),), generator=rng).to(device)
            noise = torch.randn(latents.shape, generator=rng).to(device)
            noisy = schedule.add_noise(latents, noise, t)
            wanted = target(schedule, latents, noise, t)
            found = net(noisy, t, text, labels) if moving else framewise(net, noisy, t, text)
            return (found.float() - wanted).square().mean()

        return loss

    @torch.no_grad()
    def _given(self, condition: Condition, said: Sequence[bool], shown: Sequence[bool],
               device: torch.device) -> tuple[Tensor, Tensor]:
        """Tokens of the texts, of the empty one where not `said`; class numbers, -1 where not `shown` or unknown."""
        number = {label: place for place, label in enumerate(self._facts["labels"])}
        texts = [text if keep else "" for text, keep in zip(condition.texts, said, strict=True)]
        labels = [number.get(label, -1) if keep else -1 for label, keep in zip(condition.labels, shown, strict=True)]
        return self._nets["text"](texts), torch.tensor(labels, device=device)

    def draws(self, seeds: Sequence[int], sampling: Sampling) -> list[dict[str, float]]:
        """Nothing is drawn per clip beside noise."""
        return [{} for _ in seeds]

    def sample(self, conditions: Condition, seeds: Sequence[int], sampling: Sampling, device: str = "cpu") -> ClipBatch:
        """One clip per condition and seed.

        Args:
            conditions: labels and texts; masks are passed on.
            seeds: B integers.

        Returns:
            Clips with (B, T, C, H, W) frames on the CPU; ids are the condition ids, the caller knows better ones.

        Raises:
            ValueError: for a class the checkpoint was not trained on.
        """
        if len(seeds) != len(conditions):
            raise ValueError(f"{len(conditions)} conditions, but {len(seeds)} seeds; give one seed a condition")
        if "label" in sampling.use and (strange := set(conditions.labels) - {"", *self._facts["labels"]}):
            raise ValueError(f"conditions ask for class {', '.join(sorted(strange))}, but the checkpoint knows "
                             f"{', '.join(self._facts['labels'])}; train it on that class")
        latents = self.latents(conditions, seeds, sampling, device)
        return ClipBatch(conditions.ids, self._codec().decode(latents, self._facts["clip_shape"][1]).float().cpu(), conditions)

    def latents(self, conditions: Condition, seeds: Sequence[int], sampling: Sampling, device: str = "cpu") -> Tensor:
        """(B, T, c, h, w), in the scale the U-Net sees."""
        self._to(device, "vae", "text", "unet")
        if self._video is None:
            self._video = MotionUNet(self._nets["unet"], self._nets["motion"], self._nets["labels"]).eval()
        video, codec = self._video.to(device), self._codec()
        frames, _, height, width = self._facts["clip_shape"]
        said, shown, none = ([keep] * len(seeds) for keep in ("text" in sampling.use, "label" in sampling.use, False))
        text, labels = self._given(conditions, said, shown, torch.device(device))
        no_text, no_labels = self._given(conditions, none, none, torch.device(device))

        def net(x: Tensor, t: Tensor, text: Tensor, labels: Tensor) -> Tensor:
            return video(x, t, text, labels) if sampling.temporal else framewise(self._nets["unet"], x, t, text)

        def predict(x: Tensor, t: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
            if not guided:
                return net(x, t, text, labels), None
            found, base = net(torch.cat([x, x]), torch.cat([t, t]), torch.cat([text, no_text]),
                              torch.cat([labels, no_labels])).chunk(2)
            return found, base

        shape = (frames, codec.channels, height // codec.factor, width // codec.factor)
        noise = torch.stack([torch.randn(shape, generator=generator(seed)) for seed in seeds]).to(device)
        schedule = latent_schedule(self.params.motion.schedule or self.params.schedule if sampling.temporal
                                   else self.params.schedule, self.params.prediction)
        return denoise_latents(predict, schedule, noise, solver=sampling.solver, steps=sampling.steps,
                               guidance=sampling.guidance, interval=(0, 1))

    def _to(self, device: str | torch.device, *names: str) -> None:
        for name in names:
            self._nets[name].to(device).eval()

"""params.yaml -> one frozen tree; the only parser. A key nobody knows stops the run before any work."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args
from zoneinfo import available_timezones

from cronsim import CronSim, CronSimError
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from models import plugin
from models.classifiers import ClassifierKind
from models.lpips import LpipsParams
from models.nets.alexnet_vgg import KNOWN
from models.trainer import Precision, TrainParams
from tasks.limits import MEMORY_GB, SECONDS
from tasks.yaml_files import read_yaml

Value = TypeVar("Value")
Entry = dict[str, Any]
"""One plug-in's parameters: `kind` plus whatever that module's own Params take."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _place(value: Any) -> Any:
    if not isinstance(value, str | Path):
        raise ValueError("must be a path or a URL")
    return str(value) if "://" in str(value) else Path(value)


Location = Annotated[Path | str, BeforeValidator(_place)]
"""A path, or a URL that fsspec knows (s3://bucket/raw), which a path would make s3:/bucket/raw of."""


class SplitParams(Section):
    """Shares of the patients; they must sum to 1."""

    train: float = Field(gt=0, lt=1)
    val: float = Field(ge=0, lt=1)
    test: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _whole(self) -> SplitParams:
        if abs(self.train + self.val + self.test - 1) > 1e-9:
            raise ValueError(f"train + val + test is {self.train + self.val + self.test:g}, but must be 1")
        return self


class DecoderParams(Section):
    """What the process that decodes raw files may take for one of them; one that takes more is quarantined."""

    memory_gb: float = Field(default=MEMORY_GB, gt=0, description="beyond the process itself; larger volumes need more")
    seconds: int = Field(default=SECONDS, gt=0, description="by the clock; four times as many of processor time")


class DatasetParams(Section):
    """One data set: where it is, how to read it, what a clip of it is."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    reader: str = Field(description="a module of tasks.readers: nifti, video, images, dicom, phantom, acdc, mosmed, ...")
    location: Location = Field(description="folder or, on object storage, its URL (for the phantom, the simulator's own file)")
    options: Entry = Field(default_factory=dict, description="the reader's own Params")
    simulated: bool = False
    licence: str = "not stated"
    classes: list[str] = Field(default_factory=list, description="mask values 1..K in order; empty: no masks")
    out_domain: list[str] = Field(
        default_factory=list, description="sites (options.site_column) whose training clips take part without their label"
    )
    label_from: Literal["mask_volume"] | None = Field(None, description="derive the label: mask volume at or above the median")
    clip_frames: int = Field(gt=0)
    stride: int = Field(1, gt=0, description="every n-th frame inside a window")
    clips_per_source: int | None = Field(None, gt=0, description="at most this many windows a file; None: all that fit")
    hop: int | None = Field(None, gt=0, description="frames from window to window, which may overlap; None: they do not")
    frame_size: tuple[int, int] = Field(description="height, width in pixels")
    fit: Literal["pad", "stretch"] = "pad"
    window: tuple[float, float] = Field((0.5, 99.5), description="percentiles of a clip mapped to black and white")
    split: SplitParams
    annotated_patients: int | None = Field(None, gt=0, description="training patients that keep masks; None: all")
    near_duplicate: float = Field(0.95, gt=0, le=1, description="correlation of thumbnails from which two clips are one group")
    max_file_mb: float = Field(2000, gt=0, description="a larger file is quarantined unread")
    decoder: DecoderParams = DecoderParams()
    shard_clips: int = Field(16, gt=0)


class SampleParams(Section):
    """One synthetic set: which generator, how many clips, with which sampling options."""

    generator: str
    clips: int = Field(gt=0, description="how many; with per_class, at most this many")
    per_class: dict[str, Annotated[int, Field(ge=0)]] | Literal["balance"] | None = Field(
        None, description="how many of each class; balance: what each lacks of the largest, among the training clips"
    )
    until: str | None = Field(None, description="an entry of filters of kind rejection: go on until it keeps per_class")
    rounds: int = Field(6, gt=0, description="until: of candidates, at most")
    shard_clips: int = Field(8, gt=0, description="one unit of work and of storage")
    batch_clips: int = Field(4, gt=0, description="clips denoised together; always exactly this many, the last batch is padded")
    precision: Precision = Field("no", description="bf16: what networks compute in while sampling")
    compile: bool = Field(False, description="by torch.compile: minutes at first, then faster, on a GPU most; not surv_gen's")
    sampling: Entry = Field(default_factory=dict, description="the generator's own Sampling")

    @model_validator(mode="after")
    def _rounds_have_an_end(self) -> SampleParams:
        if self.until is not None and self.per_class is None:
            raise ValueError("until: needs per_class, the number of clips that are to be kept of each class")
        if self.until is None and "rounds" in self.model_fields_set:
            raise ValueError("rounds: counts those of until; give that, or take rounds out")
        return self


class ControlParams(Section):
    """Who judges whether sets show what was asked for and look real; what is left out is not judged."""

    classifier: str | None = Field(None, description="an entry of critics of kind classifier: the class")
    aligned: str | None = Field(None, description="an entry of critics of kind aligned: the text")
    vae: str | None = Field(None, description="an entry of critics of kind vae: VAE-Seq, and distances in its latents")
    perceptual: Path | None = Field(
        None, description="a transformers image model: how near reconstructions are, of sets whose generator animates stills"
    )
    lpips: LpipsParams | None = Field(None, description="the same by LPIPS, and how much samples of one still differ")
    features: list[Entry] | None = Field(
        None, description="extractors, modules of models.features, that distances between sets are measured in; "
        "None: the critic of `vae`, if there is one, and random3d"
    )

    @property
    def extractors(self) -> list[Entry]:
        """`features`, or what stands for them."""
        if self.features is not None:
            return self.features
        return [*([{"kind": "vae", "critic": self.vae}] if self.vae else []), {"kind": "random3d"}]


class AuditParams(Section):
    """What follows if accepted clips are near copies of training clips."""

    most: float = Field(0.05, ge=0, le=1, description="a release is refused if the share of near copies is above this with the "
                        "low end of its interval; five times the false alarms, as the threshold of some tens of held-out clips "
                        "is rough")
    refuse: bool = Field(True, description="false: near copies are released as all others, and the card says so")


SegmenterKind = Literal["vnet", "dynunet", "swinunetr"]


class NetworkParams(Section):
    """One downstream segmentation network and its training."""

    kind: SegmenterKind
    dims: Literal[2, 3]
    filters: list[int] = Field(default_factory=lambda: [16, 32, 64], description="DynUNet's channels by level")
    train: TrainParams


class ClassifierParams(Section):
    """One downstream classification network and its training."""

    kind: ClassifierKind = Field(description="a module of models.classifiers")
    width: int = Field(16, gt=0, description="channels of its first level")
    train: TrainParams


def _family(network: Any) -> str:
    """Which of the two an entry of `networks` is, so that a mistake in it is told by one schema, not by both."""
    if isinstance(network, dict):
        return "segmenter" if network.get("kind") in get_args(SegmenterKind) or "dims" in network else "classifier"
    return "segmenter" if isinstance(network, NetworkParams) else "classifier"


Network = Annotated[
    Annotated[NetworkParams, Tag("segmenter")] | Annotated[ClassifierParams, Tag("classifier")], Discriminator(_family)
]


class ArmParams(Section):
    """What one arm trains on. Real clips are the annotated (or, to be classified, the labelled) training clips; synthetic ones
    those a set's chain kept."""

    real: bool = False
    geometric: bool = Field(False, description="affine and elastic deformation, intensity; no flips; real and synthetic alike")
    synthetic: str | None = Field(None, description="a key of `samples`")
    schedule: Literal["mixed", "finetuned"] = Field("mixed", description="mixed batches, or synthetic first and then real")
    synthetic_share: float = Field(0.5, gt=0, lt=1, description="mixed: chance that a clip of a batch is synthetic")
    filtered: bool = Field(True, description="only the clips the chain kept")
    filters: list[str] | None = Field(None, description="only those that these filters of the chain keep: an ablation of it")
    # classification alone, from here on
    augment: Literal["basic", "elastic", "rand"] | None = Field(None, description="in place of geometric")
    mix: Literal["mixup", "cutmix", "videomix"] | None = Field(None, description="mix clips and their classes within a batch")
    real_share: float = Field(1.0, gt=0, le=1, description="share of the real training patients whose clips are used")
    rare: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=dict, description="class -> share of its real clips that is kept"
    )
    per_class: int | None = Field(None, gt=0, description="at most this many synthetic clips of each class")
    balanced: bool = Field(True, description="draw every class equally often, real and synthetic alike")

    @model_validator(mode="after")
    def _trains_on_something(self) -> ArmParams:
        if not self.real and self.synthetic is None:
            raise ValueError("an arm needs real: true, a synthetic set, or both")
        if self.schedule == "finetuned" and not (self.real and self.synthetic):
            raise ValueError("schedule: finetuned needs both real: true and a synthetic set")
        if self.filters is not None and not (self.filtered and self.synthetic):
            raise ValueError("filters: names the part of the chain that counts, so it needs a synthetic set and filtered: true")
        if self.geometric and self.augment:
            raise ValueError(f"geometric: true and augment: {self.augment} exclude each other; give one")
        if not self.real and (self.real_share < 1 or self.rare):
            raise ValueError("real_share and rare choose among real clips, so they need real: true")
        if self.synthetic is None and self.per_class is not None:
            raise ValueError("per_class: limits synthetic clips, so it needs a synthetic set")
        return self


class BenchmarkParams(Section):
    """Which arms are compared, by which networks, over which seeds."""

    kind: Literal["segmentation", "classification"] = "segmentation"
    arms: dict[str, ArmParams]
    baseline: str = Field(description="the arm every other is tested against")
    learned: float | None = Field(
        None, ge=0, le=1, description="the baseline's Dice (None: 0.5) or balanced accuracy (None: chance + 0.1) from which a "
        "network counts in the verdict"
    )
    networks: dict[str, Network]
    seeds: list[int] = Field(min_length=1)
    distance_on: Literal["skeleton", "mask"] = "mask"
    empty_distance: Literal["diagonal", "nan"] = "diagonal"
    bootstrap: int = Field(2000, gt=0)
    tested_on: list[str] | None = Field(None, description="test clips of these sites alone; None: all")

    @model_validator(mode="after")
    def _fits_its_kind(self) -> BenchmarkParams:
        """What a kind does not use is refused, not ignored."""
        wanted, alone = (NetworkParams, CLASSIFICATION) if self.kind == "segmentation" else (ClassifierParams, SEGMENTATION)
        if strange := [name for name, network in self.networks.items() if not isinstance(network, wanted)]:
            raise ValueError(f"networks {', '.join(strange)} are not for kind: {self.kind}")
        sections: list[tuple[str, Section]] = [("", self), *((f"arms.{name}.", arm) for name, arm in self.arms.items())]
        if given := [prefix + key for prefix, section in sections for key in sorted(section.model_fields_set & alone)]:
            raise ValueError(f"{', '.join(given)}: not for kind: {self.kind}; take it out")
        return self


SEGMENTATION = {"distance_on", "empty_distance"}
CLASSIFICATION = {"tested_on", "augment", "mix", "real_share", "rare", "per_class", "balanced"}
"""Keys of the benchmark or of its arms that one kind alone uses."""


class RepeatParams(Section):
    """The whole line again, once for every seed and training share, by `cinefab repeat`; the seed splits the patients anew."""

    seeds: list[int] = Field(min_length=2)
    train: list[float] = Field(min_length=1, description="shares of the patients that train; the validation share stays as it "
                               "is, all others are tested on")

    @model_validator(mode="after")
    def _different(self) -> RepeatParams:
        for name, given in (("seeds", self.seeds), ("train", self.train)):
            if len(set(given)) < len(given):
                raise ValueError(f"repeats.{name}: {given} names one twice")
        return self


class ScheduleParams(Section):
    """When `cinefab serve` brings the line up to date, and who hears of what goes wrong."""

    cron: str = Field(description="minute, hour, day of the month, month, day of the week")
    timezone: str = Field("UTC", description="whose clock, e.g. Europe/Berlin")
    notify: str | None = Field(None, pattern=r"^[a-z0-9-]+/[a-z0-9-]+$", description="a notification block of Prefect, "
                               "type/name: is told of runs that fail and of releases that are refused")
    git_remote: str | None = Field(None, pattern=r"^[^-]", description="to push commits and tags to; None: they stay here")

    @field_validator("cron")
    @classmethod
    def _comes_round(cls, cron: str) -> str:
        try:
            CronSim(cron, datetime.now(UTC))
        except CronSimError as error:
            raise ValueError(f'{error}; write five fields, e.g. "0 3 * * 0" for Sundays at three') from None
        return cron

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, timezone: str) -> str:
        if timezone not in available_timezones():
            raise ValueError("no such time zone; write e.g. Europe/Berlin")
        return timezone


class ReleaseParams(Section):
    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    version: str = Field(pattern=r"^v[0-9]+$")
    source: str = Field(description="the synthetic set that is released: a key of `samples`")
    shard_clips: int = Field(64, gt=0)
    title: str | None = Field(None, description="of the data set, in words")
    authors: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list, description="who is to be cited: `Family, Given` of a person, or a name as it is"
    )
    licence: str | None = Field(None, description="of the release: an SPDX identifier, e.g. CC-BY-4.0")
    url: str | None = Field(None, pattern=r"^https?://\S+$", description="where the release is to be found")
    released: date | None = Field(None, description="its day")
    modality: str | None = Field(
        None, pattern=r"^[A-Z]{2,16}$", description="DICOM's word for what the clips look like, e.g. US, XA, MR"
    )

    @field_validator("licence")
    @classmethod
    def _known(cls, licence: str | None) -> str | None:
        try:
            known = licence and canonicalize_license_expression(licence)
        except InvalidLicenseExpression as error:
            raise ValueError(f"{error}; choose an identifier of https://spdx.org/licenses") from None
        if known and (" " in known or known.startswith("LicenseRef-")):
            raise ValueError(f"{licence!r} is no single SPDX identifier")
        return known


class EngineParams(Section):
    """Where work is done. No result depends on it, so no stage does."""

    kind: Literal["threads", "dask"] = Field("threads", description="threads: of one process, a shard for each visible GPU")
    address: str | None = Field(None, description="dask: of its scheduler, tcp://host:8786; None: workers of our own, here")
    workers: int = Field(2, gt=0, description="dask without an address: so many processes")
    exchange: str | None = Field(None, description="dask: a URL, s3://bucket/folder, through which workers that do not share "
                                 "our disk sample; they do nothing else then")
    processes: int = Field(1, gt=0, description="that train a generator together on this machine, one a GPU")

    @model_validator(mode="after")
    def _of_dask(self) -> EngineParams:
        if self.kind == "threads" and (given := sorted({"address", "workers", "exchange"} & self.model_fields_set)):
            raise ValueError(f"{', '.join(given)}: of kind: dask alone; take it out, or say kind: dask")
        return self

    @property
    def on_our_disk(self) -> EngineParams:
        """For tasks that read and write our own folders."""
        return self if self.exchange is None else EngineParams.model_validate({})


class Params(Section):
    """The whole of params.yaml."""

    seed: int
    dataset: DatasetParams
    conditions: Entry = Field(description="the condition bank: what generators are asked for")
    generators: dict[str, Entry]
    critics: dict[str, Entry] = Field(description="networks trained on real training clips that the filters look through")
    samples: dict[str, SampleParams]
    filters: dict[str, Entry] = Field(description="the chain, in order")
    control: ControlParams
    audit: AuditParams = Field(default_factory=lambda: AuditParams.model_validate({}))
    benchmark: BenchmarkParams
    release: ReleaseParams
    repeats: RepeatParams | None = Field(None, description="other splits of the patients; `dvc repro` does not look at it")
    engine: EngineParams = Field(default_factory=lambda: EngineParams.model_validate({}))
    schedule: ScheduleParams | None = Field(None, description="of `cinefab serve`; `dvc repro` does not look at it")

    @model_validator(mode="after")
    def _refers_to_what_exists(self) -> Params:
        named = [self.conditions, *self.generators.values(), *self.critics.values(), *self.filters.values(),
                 *self.control.extractors]
        if nameless := [entry for entry in named if not isinstance(entry.get("kind"), str)]:
            raise ValueError(f"kind: is missing, or no word, in {str(nameless[0])[:80]}")
        for name, sample in self.samples.items():
            if sample.generator not in self.generators:
                raise ValueError(
                    f"samples.{name}.generator: {sample.generator!r} is not among generators: {', '.join(self.generators)}"
                )
            plugin.params(
                "models.generators", {"kind": self.generators[sample.generator]["kind"], **sample.sampling}, "Sampling"
            )
            if sample.until is not None and self.filters.get(sample.until, {}).get("kind") != "rejection":
                raise ValueError(f"samples.{name}.until: {sample.until!r} is not an entry of filters of kind rejection")
        for section, entries in (("generators", self.generators), ("critics", self.critics)):
            for name, entry in entries.items():
                for folder in pretrained_folders(plugin.params(f"models.{section}", entry)):
                    if not folder.is_dir():
                        raise ValueError(f"{section}.{name}: {folder} is no folder; put the pretrained weights there")
        for name, entry in self.filters.items():
            plugin.params("tasks.filters", entry)
            if (critic := entry.get("critic")) is not None and critic not in self.critics:
                raise ValueError(f"filters.{name}.critic: {critic!r} is not among critics: {', '.join(self.critics)}")
            wanted = plugin.load("tasks.filters", entry["kind"]).CRITIC
            if critic is not None and (kind := self.critics[critic]["kind"]) != wanted:
                raise ValueError(f"filters.{name}.critic: {critic!r} is a {kind}, but {entry['kind']} looks through a {wanted}")
        for kind in ("classifier", "aligned", "vae"):
            critic = getattr(self.control, kind)
            if critic is not None and self.critics.get(critic, {}).get("kind") != kind:
                raise ValueError(f"control.{kind}: {critic!r} is not an entry of critics of kind {kind}")
        for entry in self.control.extractors:
            own = plugin.params("models.features", entry)
            wanted = plugin.load("models.features", entry["kind"]).CRITIC
            if wanted is not None and self.critics.get(entry["critic"], {}).get("kind") != wanted:
                raise ValueError(f"control.features: {entry['critic']!r} is not an entry of critics of kind {wanted}")
            for folder in pretrained_folders(own):
                if not folder.is_dir():
                    raise ValueError(f"control.features: {folder} is no folder; put the pretrained weights there")
        for name, value in self.control:
            for folder in pretrained_folders(value):
                if not folder.is_dir():
                    raise ValueError(f"control.{name}: {folder} is no folder; put the pretrained weights there")
        lpips = self.control.lpips
        if lpips and min(self.dataset.frame_size) < (least := KNOWN[lpips.net].smallest):
            raise ValueError(f"control.lpips: {lpips.net} needs frames of at least {least} x {least} pixels, but "
                             f"dataset.frame_size is {self.dataset.frame_size}; give larger ones, or take lpips out")
        for folder in pretrained_folders(plugin.params("tasks.conditions", self.conditions)):
            if not folder.is_dir():
                raise ValueError(f"conditions: {folder} is no folder; give the one that holds the images")
        plugin.params("tasks.readers", {"kind": self.dataset.reader, **self.dataset.options})
        for name, arm in self.benchmark.arms.items():
            if arm.synthetic is not None and arm.synthetic not in self.samples:
                raise ValueError(
                    f"benchmark.arms.{name}.synthetic: {arm.synthetic!r} is not among samples: {', '.join(self.samples)}"
                )
        for name, arm in self.benchmark.arms.items():
            if strange := set(arm.filters or ()) - set(self.filters):
                raise ValueError(f"benchmark.arms.{name}.filters: {', '.join(sorted(strange))} is not among filters: "
                                 f"{', '.join(self.filters)}")
        for share in self.repeats.train if self.repeats else ():
            if not 0 < share < 1 - self.dataset.split.val:
                raise ValueError(f"repeats.train: {share:g} with a validation share of {self.dataset.split.val:g} leaves no "
                                 "patient to train or to test on; give shares between")
        if self.release.source not in self.samples:
            raise ValueError(f"release.source: {self.release.source!r} is not among samples: {', '.join(self.samples)}")
        for name, entry in self.generators.items():
            for train in trainings(plugin.params("models.generators", entry)):
                if train.accumulate % self.engine.processes:
                    raise ValueError(f"engine.processes: {self.engine.processes} cannot share out {train.accumulate} batches; "
                                     f"make accumulate a multiple in every training of generators.{name}")
        if self.benchmark.baseline not in self.benchmark.arms:
            raise ValueError(
                f"benchmark.baseline: {self.benchmark.baseline!r} is not among arms: {', '.join(self.benchmark.arms)}"
            )
        return self


def trainings(params: BaseModel) -> list[TrainParams]:
    """Every training these parameters, or parameters in them, describe."""
    if isinstance(params, TrainParams):
        return [params]
    return [train for _, value in params if isinstance(value, BaseModel) for train in trainings(value)]


def pretrained_folders(params: object) -> list[Path]:
    """Every folder that a parameter is, or that parameters in it name."""
    if isinstance(params, Path):
        return [params]
    return [folder for _, value in params for folder in pretrained_folders(value)] if isinstance(params, BaseModel) else []


def entry(section: dict[str, Value], name: str, where: str) -> Value:
    """The named entry of a section of params.yaml.

    Raises:
        ValueError: if there is none; the message lists those there are.
    """
    if name not in section:
        raise ValueError(f"{name!r} is not an entry of {where} in params.yaml; choose one of {', '.join(section)}")
    return section[name]


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Parse and validate.

    Raises:
        ValueError: one line per problem, each with the key, the value and what is allowed.
    """
    try:
        return Params.model_validate(read_yaml(path))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; run cinefab from the folder that holds params.yaml") from None
    except ValidationError as error:
        problems = [
            f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']} (got {one['input']!r:.80})" for one in error.errors()
        ]
        raise ValueError("\n".join(problems)) from None

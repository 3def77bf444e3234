"""One self-contained HTML page about one run: what was asked, what came of it, and whether it helped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from tasks import gallery
from tasks.account import (
    NAMES,
    POOLED,
    TESTS,
    BenchmarkAccount,
    FilterAccount,
    SourceAccount,
    arm_in_words,
    differences,
    read_benchmark,
    read_filters,
    read_sources,
)
from tasks.asked import asked, yaml_of
from tasks.audit import audit_decisions, audit_of, judge_release
from tasks.browse import browse
from tasks.charts import beside, curves, histogram, smooth, whiskers
from tasks.checkpoints import checkpoint_digest
from tasks.clip_path import Paths
from tasks.condition import STORE
from tasks.fingerprint import code_digest
from tasks.map_marks import read_maps
from tasks.numbers import flat
from tasks.pages import pages
from tasks.params import Params
from tasks.pictures import PALETTE
from tasks.records import AuditRecord, ConditionRecord
from tasks.store import ClipStore
from tasks.tables import atomic_write, read_json, read_table, write_json

Ablation = tuple[str, str, list[tuple[str, dict[str, Any], dict[str, Any] | None]]]
"""An arm, what its set leaves out, and for each network its primary metric and that of the same arm with the released set."""


@dataclass(frozen=True)
class Step:
    """One bar of the line: a count, and its share of the longest bar beside it."""

    label: str
    number: int
    share: float
    note: str = ""
    minor: bool = False


def report(params: Params, data: Path, out: Path) -> Path:
    """Write `report.html`, `gallery.html` with its folder, `clips.webp` for a README, `metrics.json` for `dvc metrics` and
    `params.yaml`, what the run was made with, from the folders of one run; the same run gives the same bytes.

    What is not there yet (audit, benchmark, a set, curves) is shown as not run; prepared data, conditions and the set that is
    to be released must be there. The release comes after it, so that one that is refused still has its report.

    Returns:
        The page's path.

    Raises:
        ValueError: if the set that is to be released was not sampled.
    """
    shown = gallery.read_set(params.release.source, data / "clips", data / "decisions")
    if shown is None:
        source = params.release.source
        raise ValueError(f"{data / 'clips' / source}: no such set; run `cinefab sample {source}` first")
    shown, judged = _audited_release(params, data / "audit" / shown.name, shown)
    sources, filters = read_sources(data / "prepared"), read_filters(shown.decisions)
    outcome = read_benchmark(data / "benchmark")
    control = _numbers(params, data / "control", "control.json")
    paths = Paths(params, shown, filters, data / "conditions", data / "audit" / shown.name, bool(judged and judged["refused"]))
    browse(params, shown, filters, paths, out)
    page = pages().get_template("report.html").render(
        params=params,
        judged=judged,
        asked=asked(params),
        yaml=yaml_of(params),
        sources=sources,
        real_steps=_real_steps(sources),
        synthetic_steps=_synthetic_steps(params, data, shown, filters, judged),
        sets=_sets(params, data),
        side_by_side=gallery.side_by_side(shown, data / "prepared", data / "conditions"),
        shown=shown,
        maps=read_maps(params, data),
        clip_paths=paths.examples(data / "prepared", data / "conditions"),
        control=control,
        filtered=[(name, what, filtered, one) for name, _, numbers in control for what, measured in numbers.items()
                  for filtered, one in measured["filters"].items()],
        appearance=_numbers(params, data / "control", "appearance.json"),
        likeness=_numbers(params, data / "control", "likeness.json"),
        distribution=_numbers(params, data / "control", "distribution.json"),
        animation=[(name, change, numbers, _animated(data / "control" / name / "animation.webp", name))
                   for name, change, numbers in _numbers(params, data / "control", "animation.json")],
        audits=[(name, change, numbers, *_audited(data / "audit" / name, name, numbers))
                for name, change, numbers in _numbers(params, data / "audit", "audit.json")
                # of sets that are not released by hand, so maybe of clips that have since been sampled anew
                if audit_of(data / "audit" / name, ClipStore.open(data / "clips" / name / "clips.zarr"))],
        rounds=_numbers(params, data / "clips", "rounds.json"),
        frequencies=_frequencies(shown, sources),
        kept=gallery.kept(shown),
        dropped=gallery.dropped(shown, filters),
        filters=[(one, _histogram(one)) for one in filters],
        training=_training(data),
        benchmark=outcome,
        names=NAMES,
        tests=TESTS,
        colours=[f"rgb({red},{green},{blue})" for red, green, blue in PALETTE],
        arms={name: arm_in_words(params, name) for name in params.benchmark.arms},
        whiskers=_whiskers(params, outcome),
        benchmark_curves=_benchmark_curves(data / "benchmark" / "curves.csv"),
        ablations=_ablations(params, outcome),
        pooled=POOLED,
        digests=_digests(data),
    )
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "report.html", page.encode())
    atomic_write(out / "clips.webp", gallery.poster(shown, data / "prepared", data / "conditions"))
    atomic_write(out / "params.yaml", yaml_of(params).encode())
    write_json(out / "metrics.json", flat(data, list(params.samples), _to_be_released(shown, judged)))
    return out / "report.html"


def _sets(params: Params, data: Path) -> list[tuple[str, str, gallery.Picture]]:
    """(set, in what it differs from the released one, its first clips)."""
    return [(name, differences(params, name), one) for name, one in gallery.sets(params, data / "clips", data / "decisions")]


def _numbers(params: Params, folder: Path, file: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(set, in what it differs from the released one, its numbers) of every set that has some."""
    files = [(name, folder / name / file) for name in params.samples]
    return [(name, differences(params, name), found) for name, path in files if path.exists() and (found := read_json(path))]


def _animated(path: Path, name: str) -> gallery.Picture | None:
    alt = f"held-out clips, their reconstructions and samples of their first frames, set {name}"
    return gallery.stored(path, alt, f"set {name}: held-out clips, a row each") if path.exists() else None


def _audited(folder: Path, name: str, numbers: dict[str, Any]) -> tuple[Markup, gallery.Picture]:
    """How like real clips a set's clips are, as a chart, and the pairs most alike."""
    rows = read_table(folder / "audit.parquet", AuditRecord)
    series = {"nearest training clip": [row.similarity for row in rows if row.similarity is not None],
              "nearest held-out clip": [row.held_out_similarity for row in rows if row.held_out_similarity is not None]}
    alt = f"{name}: similarity of {len(rows)} synthetic clips to their nearest training and held-out clips"
    label = "correlation, 1 for a copy; broken line: near copies from here on"
    chart = beside(series, numbers["threshold"]["value"], label, alt)
    pairs = gallery.stored(folder / "audit.webp", f"synthetic clips of set {name} beside the training clips most like them",
                           f"set {name}: the pairs most alike", "each pair: synthetic, then training clip")
    return Markup(chart), pairs


def _audited_release(params: Params, folder: Path,
                     shown: gallery.SyntheticSet) -> tuple[gallery.SyntheticSet, dict[str, Any] | None]:
    """The set without the near copies that are withheld, and what the audit says of its accepted clips; None without one."""
    found = audit_of(folder, shown.store)
    if not shown.kept or found is None:
        return shown, None
    by_id = {row.clip_id: row for row in read_table(folder / "audit.parquet", AuditRecord)}
    rows = [by_id[shown.provenance[row].clip_id] for row in shown.kept]
    judged = judge_release(params.audit, rows)
    if not judged["withheld"]:
        return shown, judged
    kept = [row for row, audited in zip(shown.kept, rows, strict=True) if not audited.near_copy]
    decisions = [*shown.decisions, *audit_decisions(rows, found["threshold"]["value"])]
    return replace(shown, decisions=decisions, kept=kept), judged


def _to_be_released(shown: gallery.SyntheticSet, judged: dict[str, Any] | None) -> int:
    return 0 if judged and judged["refused"] else len(shown.kept)


def _frequencies(shown: gallery.SyntheticSet, sources: SourceAccount) -> list[tuple[str, int, float, int, float]]:
    """(class, real training clips, their share, kept synthetic clips, share of both together), rarest first."""
    real = {label: splits["train"] for label, splits in sources.labels.items()}
    made = Counter(label for row in shown.kept if (label := shown.provenance[row].label))
    many, both = sum(real.values()), sum(real.values()) + sum(made.values())
    rows = [(label, number, number / many, made[label], (number + made[label]) / both) for label, number in real.items()]
    return sorted(rows, key=lambda row: (row[1], row[0]))


def _real_steps(sources: SourceAccount) -> list[Step]:
    refused = len(sources.quarantined)
    longest = max(sources.total, sources.sources, refused)
    steps = [Step("inputs found", sources.sources, sources.sources / longest, f"{sources.used} gave clips"),
             Step("quarantined", refused, refused / longest, "refused, with reasons below" if refused else "none", minor=True),
             Step("clips", sources.total, sources.total / longest, f"{sum(sources.patients.values())} patients")]
    for split, word in (("train", "training"), ("val", "validation"), ("test", "test")):
        number = sources.clips[split]
        note = f"{sources.patients[split]} patients; {sources.annotated[split]} clips annotated"
        steps.append(Step(word, number, number / longest, note, minor=True))
    return steps


def _synthetic_steps(params: Params, data: Path, shown: gallery.SyntheticSet, filters: list[FilterAccount],
                     judged: dict[str, Any] | None) -> list[Step]:
    bank = len(read_table(data / "conditions" / "conditions.parquet", ConditionRecord))
    sampled = len(shown.provenance)
    longest = max(bank, sampled)
    steps = [Step("conditions", bank, bank / longest, f"what generators were asked for: {params.conditions['kind']}"),
             Step("sampled", sampled, sampled / longest, f"set {shown.name}, by {params.samples[shown.name].generator}")]
    for one in filters:
        note = f"of {one.candidates}; threshold {one.threshold}" + ("; score only" if one.score_only else "")
        steps.append(Step(f"dropped by {one.name}", one.dropped, one.dropped / longest, note, minor=True))
    left = len(shown.kept)
    steps.append(Step("kept", left, left / longest, f"{left / max(1, sampled):.0%} of those sampled"))
    number = _to_be_released(shown, judged)
    steps.append(Step("to be released", number, number / longest, f"{params.release.name} {params.release.version}"))
    return steps


def _histogram(one: FilterAccount) -> Markup:
    good = [decision.score for decision in one.decisions if decision.keep]
    bad = [decision.score for decision in one.decisions if not decision.keep]
    alt = f"{one.name}: scores of {len(good)} kept and {len(bad)} dropped clips"
    return Markup(histogram(good, bad, one.limits, f"{one.name} score", alt))


def _training(data: Path) -> list[tuple[str, int, Markup]]:
    """(network and phase, steps, chart) of every checkpoint that has losses."""
    found = []
    for table in sorted([*data.glob("checkpoints/*/losses.csv"), *data.glob("critics/*/losses.csv")]):
        losses = pd.read_csv(table)
        for phase, rows in losses.groupby("phase", sort=False):
            name = f"{table.parent.name}: {phase}"
            line = smooth(rows.sort_values("step").loss.tolist())
            alt = f"training loss of {name} over {len(rows)} steps"
            found.append((name, len(rows), Markup(curves({name: line}, alt, log=True))))
    return found


def _benchmark_curves(table: Path) -> list[tuple[str, Markup]]:
    """(network, chart): for each arm, the mean loss over the seeds."""
    if not table.exists():
        return []
    mean = pd.read_csv(table).groupby(["network", "arm", "step"], sort=False).loss.mean().reset_index()
    found = []
    for network, rows in mean.groupby("network", sort=False):
        series = {str(arm): (part.step.tolist(), part.loss.tolist()) for arm, part in rows.groupby("arm", sort=False)}
        found.append((str(network), Markup(curves(series, f"training loss of {network} by arm"))))
    return found


def _whiskers(params: Params, outcome: BenchmarkAccount | None) -> dict[str, Markup]:
    """By network: primary metric of each arm with its interval."""
    charts: dict[str, Markup] = {}
    if outcome is None:
        return charts
    name = NAMES[outcome.primary]
    for network, arms in outcome.metrics.items():
        found = {arm: metrics.get(outcome.primary, {}) for arm, metrics in arms.items()}
        cells = [(arm, one) for arm, one in found.items() if one.get("low") is not None]
        rows = [(arm, cell["mean"], cell["low"], cell["high"]) for arm, cell in cells]
        if rows:
            alt = f"mean {name} and 95 % interval of each arm, {network}"
            charts[network] = Markup(whiskers(rows, params.benchmark.baseline, f"{name} (higher is better)", alt))
    return charts


def _ablations(params: Params, outcome: BenchmarkAccount | None) -> list[Ablation]:
    """Every arm that trains on another set than the released one."""
    rows = []
    for name, arm in params.benchmark.arms.items():
        if outcome is None or arm.synthetic in (None, params.release.source):
            continue
        twin = arm.model_copy(update={"synthetic": params.release.source})
        whole = next((other for other, one in params.benchmark.arms.items() if one == twin), None)
        cells = [(network, arms[name][outcome.primary], arms.get(whole, {}).get(outcome.primary) if whole else None)
                 for network, arms in outcome.metrics.items() if name in arms]
        rows.append((name, differences(params, str(arm.synthetic)), cells))
    return rows


def _digests(data: Path) -> list[tuple[str, str]]:
    stores = sorted([data / "prepared" / "clips.zarr", data / "conditions" / STORE, *data.glob("clips/*/clips.zarr")])
    rows = [(str(path.parent.relative_to(data)), ClipStore.open(path).digest) for path in stores if path.exists()]
    records = [*data.glob("checkpoints/*/checkpoint.json"), *data.glob("critics/*/checkpoint.json")]
    folders = sorted(path.parent for path in records)
    rows += [(str(folder.relative_to(data)), checkpoint_digest(folder)) for folder in folders]
    return [*rows, ("code", code_digest())]

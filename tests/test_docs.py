"""Every number in the documents comes from the committed files.

`python tests/test_docs.py > docs/results/README.md` writes the page of results; the README repeats parts of it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tasks.account import interval

ROOT = Path(__file__).parent.parent
STUDIES = sorted(path.parent for path in (ROOT / "docs" / "results").glob("*/metrics.json"))


def results_table(study: Path) -> str:
    """Two metrics of every arm, and its difference in the first to the baseline, per network."""
    metrics = json.loads((study / "metrics.json").read_text())
    comparisons = json.loads((study / "comparisons.json").read_text())
    networks = [name for name in metrics if name != "counts"]
    segmented = "dice" in next(iter(metrics[networks[0]].values()))
    primary, second, word, other = (
        ("dice", "hausdorff", "Dice", "Hausdorff, px") if segmented
        else ("balanced_accuracy", "video_jaccard", "Balanced accuracy", "Jaccard by video")
        if "video_jaccard" in next(iter(metrics[networks[0]].values()))
        else ("balanced_accuracy", "auroc", "Balanced accuracy", "Macro AUROC")
    )
    lines = [
        f"| network | training data | {word} [95 % CI] | sd of trainings | {other} | {word} against the arm to beat | Holm p |",
        "|---|---|---|---|---|---|---|",
    ]
    for network in networks:
        for arm, cells in metrics[network].items():
            value, beside = cells[primary], cells[second]["mean"]
            tested = next(
                (one for one in comparisons if (one["network"], one["arm"], one["metric"]) == (network, arm, primary)), None
            )
            against = (
                f"{tested['difference']:+.3f} [{tested['low']:+.3f}, {tested['high']:+.3f}]" if tested else "the arm to beat"
            )
            p = f"{tested['p_holm']:.2g}" if tested and tested["p_holm"] is not None else ""
            sd = "n/a" if value["seed_sd"] is None else f"{value['seed_sd']:.3f}"
            lines.append(
                f"| {network} | {arm.replace('_', ' ')} | {value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}] "
                f"| {sd} | {f'{beside:.1f}' if segmented else f'{beside:.3f}'} | {against} | {p} |"
            )
    return "\n".join(lines)


def control_table(study: Path) -> str:
    """Whether the sets of a run show what they were asked for: what each condition does alone, and all together."""
    lines = ["| set | condition | value | chance | gain over chance [95 % CI] |", "|---|---|---|---|---|"]
    for name, conditions in json.loads((study / "control.json").read_text()).items():
        for condition, one in conditions.items():
            if one["value"] is not None:
                gain = f"{one['advantage']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"
                lines.append(f"| {name} | {condition} | {one['value']:.3f} | {one['chance']:.3f} | {gain} |")
    return "\n".join(lines)


def control_summary(study: Path) -> str:
    """What each condition does: asked for alone, and among all four."""
    found = json.loads((study / "control.json").read_text())
    lines = ["| condition | measured | alone | all four | chance |", "|---|---|---|---|---|"]
    for what in ("label", "text", "image", "motion"):
        alone, whole = found[f"only_{what}"][what], found["ctrl_genaug"][what]
        lines.append(f"| {what} | {whole['what']} | {alone['value']:.2f} [gain {alone['low']:+.2f} to {alone['high']:+.2f}] "
                     f"| {whole['value']:.2f} [gain {whole['low']:+.2f} to {whole['high']:+.2f}] | {whole['chance']:.2f} |")
    return "\n".join(lines)


def appearance_table(study: Path) -> str:
    """Whether the sets of a run look and move like the real training clips."""
    lines = ["| set | measure | synthetic | real | 90 % of the real clips | synthetic clips within |",
             "|---|---|---|---|---|---|"]
    for name, measures in json.loads((study / "appearance.json").read_text()).items():
        for measure, one in measures.items():
            low, high = band(one)
            value = interval(one, 3, "", "value") if "band" in one else f"{one['value']:.3f}"
            lines.append(f"| {name} | {measure.replace('_', ' ')} | {value} | {one['real']:.3f} "
                         f"| {low:.3f} to {high:.3f} | {100 * one['inside']:.0f} % |")
    return "\n".join(lines)


def band(one: dict[str, Any]) -> tuple[float, float]:
    """Where 90 % of the real clips lie; files of before there were intervals have it as `low` and `high`."""
    low, high = one["band"] if "band" in one else (one["low"], one["high"])
    return low, high


def likeness_table(study: Path) -> str:
    """How like each other, and the training clips, the clips of the sets are."""
    lines = ["| set | metric | similarity | value [95 % CI] | sd | held-out real clips | direction | doubtful because |",
             "|---" * 8 + "|"]
    for name, metrics in json.loads((study / "likeness.json").read_text()).items():
        for metric, one in metrics.items():
            sd, real = ("n/a" if one[key] is None else f"{one[key]:.3f}" for key in ("sd", "real"))
            lines.append(f"| {name} | {metric} | {one['similarity']} | {interval(one, 3, '', 'value')} | {sd} | {real} "
                         f"| {one['direction']} | {'; '.join(one['flags'])} |")
    return "\n".join(lines)


def solver_table(study: Path) -> str:
    """The fast preset, with a guidance interval, and the paper's own sampling: what their clips show and look like."""
    control, seen = (json.loads((study / f"{name}.json").read_text()) for name in ("control", "appearance"))
    sets = {"ctrl_genaug": "DPM-Solver++, 20 steps, guidance 2", "interval": "the same, guidance 4 at 20 to 80 % of the noise",
            "ddim": "DDIM, 200 steps, guidance 7.5 (the paper's)"}
    shown = {"label": "class", "text": "text", "image": "image prior", "motion": "motion"}
    looks = ("contrast", "sharpness", "frame_change", "motion_energy")
    heads = ["sampling", *shown.values(), *(name.replace("_", " ") for name in looks)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, words in sets.items():
        cells = [f"{control[name][what]['value']:.2f}" for what in shown]
        cells += [format(seen[name][what]["value"], ".3f") for what in looks]
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    real = [f"{seen['ctrl_genaug'][what]['real']:.3f}" for what in looks]
    return "\n".join([*lines, "| real training clips | | | | | " + " | ".join(real) + " |"])


def filters_tell(study: Path) -> bool:
    """Whether it was measured what the filters do; runs of before that have conditions without it."""
    found = json.loads((study / "control.json").read_text()) if (study / "control.json").exists() else {}
    return any("filters" in one for conditions in found.values() for one in conditions.values())


def filters_table(study: Path) -> str:
    """What each filter does to what the sets show."""
    lines = ["| set | condition | filter | kept | before | after | gain [95 % CI] |", "|---|---|---|---|---|---|---|"]
    for name, conditions in json.loads((study / "control.json").read_text()).items():
        for condition, measured in conditions.items():
            for filtered, one in measured["filters"].items():
                if one["gain"] is not None:
                    lines.append(f"| {name} | {condition} | {filtered} | {one['kept']} of {one['clips']} | {one['before']:.3f} "
                                 f"| {one['after']:.3f} | {one['gain']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}] |")
    return "\n".join(lines)


def fidelity_table(study: Path) -> str:
    """How far the sets' single frames are from real ones, in runs of before `distribution.json` said so."""
    found = {name: one["frames"] for name, one in json.loads((study / "fidelity.json").read_text()).items()}
    lines = [f"| set | {next(iter(found.values()))['what']} [95 % CI] | held-out real clips |", "|---|---|---|"]
    lines += [f"| {name} | {one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}] | {one['real']:.2f} |"
              for name, one in found.items()]
    return "\n".join(lines)


def distribution_table(study: Path) -> str:
    """How far the sets' clips are from real ones, in the eyes of every network, and what is doubtful about it."""
    lines = ["| set | network | metric | value [95 % CI] | held-out real clips | direction | doubtful because |",
             "|---" * 7 + "|"]
    for name, networks in json.loads((study / "distribution.json").read_text()).items():
        for network, seen in networks.items():
            for metric, one in seen["metrics"].items():
                real = "n/a" if one["real"] is None else f"{one['real']:.3f}"
                lines.append(f"| {name} | {network} | {metric} | {interval(one, 3, '', 'value')} | {real} | {one['direction']} "
                             f"| {'; '.join(one['flags'])} |")
    return "\n".join(lines)


def animation_table(study: Path) -> str:
    """How well the sets' generators animate held-out stills: what they say of it, and every number."""
    parts = []
    for name, found in json.loads((study / "animation.json").read_text()).items():
        parts += [f"{name}: {found['sentences']['reconstruction']} {found['sentences']['diversity']}", ""]
        parts += ["| | measure | whose | mean | beside | mean | margin or difference [95 % CI] |", "|---" * 7 + "|"]
        pairs = {"reconstruction": ("value", "repeated", "margin"), "diversity": ("samples", "reconstructions", "difference"),
                 "motion": ("samples", "real", "difference")}
        words = {"value": "reconstruction", "repeated": "repeated first frame", "real": "real clips"}
        for group, (own, other, change) in pairs.items():
            for measure, one in found[group].items():
                ends = "" if one["low"] is None else f" [{one['low']:+.4f}, {one['high']:+.4f}]"
                parts.append(f"| {group} | {measure.replace('_', ' ')} | {words.get(own, own)} | {one[own]:.4f} "
                             f"| {words.get(other, other)} | {one[other]:.4f} | {one[change]:+.4f}{ends} |")
        parts.append("")
    return "\n".join(parts).rstrip("\n")


def frequency_table(study: Path) -> str:
    """How rare the classes are, what rejection sampling made of them, and how rare they are with what was released."""
    counts = json.loads((study / "release.json").read_text())["counts"]
    rounds = json.loads((study / "rounds.json").read_text())["surv_gen"]["classes"]
    real, made = counts["training_clips_by_label"], counts["clips_by_label"]
    many, both = sum(real.values()), sum(real.values()) + sum(made.values())
    lines = ["| class | real training clips | candidates | kept by rejection | released | real and released together |",
             "|---|---|---|---|---|---|"]
    for label, number in sorted(real.items(), key=lambda one: one[1]):
        one = rounds.get(label)
        tried = f"{one['made']} | {one['kept']} ({100 * one['rate']:.0f} %), {one['wanted']} wanted" if one else "none | "
        after = number + made.get(label, 0)
        lines.append(f"| {label.replace('_', ' ')} | {number} ({100 * number / many:.0f} %) | {tried} | {made.get(label, 0)} "
                     f"| {after} ({100 * after / both:.0f} %) |")
    return "\n".join(lines)


def rejection_sentence(study: Path) -> str:
    """What rejection does to the agreement of a judge of another network."""
    label = json.loads((study / "control.json").read_text())["surv_gen"]["label"]
    one = label["filters"]["rejection"]
    gain = f"gain {one['gain']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]"
    return (f"Rejection kept {one['kept']} of {one['clips']} candidates. A judge that took no part in it, another network, "
            f"sees the asked class in {one['before']:.2f} of all and in {one['after']:.2f} of the kept ones ({gain}).")


def temporal_table(study: Path) -> str:
    """The same conditions and seeds with the motion modules and without, beside real clips."""
    seen, frames = (json.loads((study / f"{name}.json").read_text()) for name in ("appearance", "fidelity"))
    looks = ("contrast", "sharpness", "frame_change", "warping_error", "motion_energy")
    heads = ["clips", "distance of frames", *(name.replace("_", " ") for name in looks)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, words in (("clip_by_clip", "with motion modules"), ("frame_by_frame", "frame by frame")):
        one = frames[name]["frames"]
        cells = [f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]",
                 *(f"{seen[name][what]['value']:.3f}" for what in looks)]
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    held, own = frames["clip_by_clip"]["frames"]["real"], seen["clip_by_clip"]
    cells = [f"{held:.2f} (held out)",
             *("{:.3f} ({:.3f} to {:.3f})".format(own[what]["real"], *band(own[what])) for what in looks)]
    return "\n".join([*lines, "| real (90 % of them) | " + " | ".join(cells) + " |"])


def repeats_sentences(study: Path) -> str:
    """What every training share says."""
    found = json.loads((study / "repeats.json").read_text())
    return "\n".join(f"- {float(share):.0%} of the patients train, {len(one['splits'])} splits: {one['verdict']}"
                     for share, one in found.items())


def repeats_table(study: Path, networks: tuple[str, ...] = ()) -> str:
    """Accuracy and macro F1 of every arm by training share, over random splits; of all networks, or of these."""
    lines = ["| patients that train | network | training data | Accuracy [95 % CI] | Macro F1 [95 % CI] "
             "| accuracy against real clips [95 % CI] | Holm p |", "|---" * 7 + "|"]
    for share, one in json.loads((study / "repeats.json").read_text()).items():
        for network, arms in one["means"].items():
            for arm, cells in arms.items() if not networks or network in networks else ():
                values = [f"{cell['mean']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]" for cell in
                          (cells["accuracy"], cells["f1"])]
                tested = next((row for row in one["comparisons"]
                               if (row["network"], row["arm"], row["metric"]) == (network, arm, "accuracy")), None)
                against = ([f"{tested['difference']:+.3f} [{tested['low']:+.3f}, {tested['high']:+.3f}]",
                            f"{tested['p_holm']:.2g}"] if tested else ["the arm to beat", ""])
                lines.append("| " + " | ".join([f"{float(share):.0%}", network, arm.replace("_", " + "), *values, *against])
                             + " |")
    return "\n".join(lines)


def still_margins(study: Path) -> str:
    """How well stills are animated, over the same splits."""
    lines = ["| patients that train | set | reconstruction nearer than the repeated first frame, dB [95 % CI] "
             "| so in its own interval | samples of one still apart | reconstructions of one clip apart | more so |",
             "|---" * 7 + "|"]
    for share, one in json.loads((study / "repeats.json").read_text()).items():
        many = len(one["splits"])
        for name, cells in one["animation"].items():
            margin = cells["margin"]
            lines.append(f"| {float(share):.0%} | {name} | {margin['mean']:+.2f} [{margin['low']:+.2f}, {margin['high']:+.2f}] "
                         f"| {cells['nearer']} of {many} splits | {cells['samples']['mean']:.3f} "
                         f"| {cells['reconstructions']['mean']:.4f} | {cells['more_varied']} of {many} splits |")
    return "\n".join(lines)


def planted_table(study: Path) -> str:
    """Of held-out patients' clips: what each filter drops of good and of planted ones."""
    found = json.loads((study / "planted.json").read_text())["good clips of"]["test"]
    kinds = list(next(iter(found.values())))
    lines = ["| dropped by | " + " | ".join(kind.replace("_", " ") for kind in kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for name, row in found.items():
        cells = [f"{row[kind]['dropped']} of {row[kind]['of']}" for kind in kinds]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def copies_table(study: Path) -> str:
    """Exact and altered copies of training clips among held-out patients' clips: how many the audit finds."""
    found = json.loads((study / "copies.json").read_text())
    lines = ["| copies of training clips | found | recall [95 % CI] |", "|---|---|---|"]
    lines += [f"| {kind} | {one['found']} of {one['of']} | {one['share']:.2f} [{one['low']:.2f}, {one['high']:.2f}] |"
              for kind, one in found["found"].items()]
    unseen = "" if found["left_out"] is None else f" ({found['left_out']:.3f} for a patient the threshold has not seen)"
    return "\n".join([*lines, f"| false alarms among {found['held_out_clips']} clips of {found['held_out_patients']} held-out "
                      f"patients | {found['false_alarms']:.3f}{unseen} | |"])


def results_page() -> str:
    """Every committed run: its sentence, its table and how many patients, clips and seeds are behind them."""
    intervals = ("Intervals are 95 %: of means over held-out patients, of differences over patients and trainings; "
                 "p is Holm-corrected.")
    parts = ["# What the committed runs wrote\n",
             intervals + " `python tests/test_docs.py` makes this page from the runs' own files.\n",
             "What the metrics say of sets whose fault is known: [canaries](canaries.md). What the audit finds of exact and "
             "altered copies: [planted copies](planted_copies.md).\n"]
    for study in STUDIES:
        counts = json.loads((study / "metrics.json").read_text())["counts"]
        control = [control_table(study) + "\n"] if (study / "control.json").exists() else []
        if (study / "appearance.json").exists():
            control.append(appearance_table(study) + "\n")
        if filters_tell(study):
            control.append(filters_table(study) + "\n")
        if (study / "fidelity.json").exists():
            control.append(fidelity_table(study) + "\n")
        if (study / "likeness.json").exists():
            control.append(likeness_table(study) + "\n")
        if (study / "distribution.json").exists():
            control.append(distribution_table(study) + "\n")
        if (study / "animation.json").exists():
            control.append(animation_table(study) + "\n")
        if (study / "repeats.json").exists():
            control.append(f"All of the above is about one line of several. [Random splits]({study.name}/repeats.html), the "
                           "whole line again on each:\n")
            control += [repeats_table(study) + "\n", still_margins(study) + "\n"]
        if (study / "rounds.json").exists():
            control.append(frequency_table(study) + "\n")
        if (study / "planted.json").exists():
            control.append("Planted among clips of held-out patients (`python benchmarks/planted.py`):\n")
            control.append(planted_table(study) + "\n")
        if (study / "copies.json").exists():
            control.append("Copies planted for the audit (`python benchmarks/copies.py`):\n")
            control.append(copies_table(study) + "\n")
        parts += [f"## {study.name}\n", sentence(study) + "\n", results_table(study) + "\n", *control,
                  f"{counts['patients']} test patients, {counts['clips']} test clips, {counts['seeds']} seeds. "
                  f"[The run's report]({study.name}/report.html), [its parameters]({study.name}/params.yaml).\n"]
    return "\n".join(parts)


def sentence(study: Path) -> str:
    """What a run says in the end; of random splits, what each training share says."""
    if (study / "repeats.json").exists():
        return repeats_sentences(study)
    words: str = json.loads((study / "verdict.json").read_text())["sentence"]
    return words


def test_the_page_of_results_is_what_the_runs_wrote() -> None:
    assert (ROOT / "docs" / "results" / "README.md").read_text() == results_page()


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_the_readme_repeats_every_verdict(study: Path) -> None:
    assert sentence(study) in (ROOT / "README.md").read_text()


def test_the_readme_shows_the_study_on_real_data() -> None:
    assert results_table(ROOT / "docs" / "results" / "hippocampus_study") in (ROOT / "README.md").read_text()


def test_the_readme_shows_what_conditions_and_filters_do() -> None:
    study, page = ROOT / "docs" / "results" / "lung_study", (ROOT / "README.md").read_text()
    assert control_summary(study) in page and solver_table(study) in page and planted_table(study) in page
    seen = json.loads((study / "appearance.json").read_text())["ctrl_genaug"]
    change, motion = (f"{100 * seen[name]['inside']:.0f} %" for name in ("frame_change", "motion_energy"))
    assert f"In change from frame to frame {change} of the synthetic clips, and in motion {motion}, lie" in page


@pytest.mark.parametrize("name", ["actions_study", "b_lines_study"])
def test_the_readme_shows_the_studies_of_rare_classes(name: str) -> None:
    study, page = ROOT / "docs" / "results" / name, (ROOT / "README.md").read_text()
    for written in (frequency_table(study), rejection_sentence(study), temporal_table(study), results_table(study)):
        assert written in page


def test_the_readme_shows_the_study_of_stills() -> None:
    study, page = ROOT / "docs" / "results" / "stills_study", (ROOT / "README.md").read_text()
    for written in (repeats_table(study, ("pooled",)), still_margins(study)):
        assert written in page


def test_a_run_that_animates_stills_says_so(tmp_path: Path) -> None:
    ends = {"low": -0.25, "high": 0.5}
    (tmp_path / "animation.json").write_text(json.dumps({"lddm": {
        "sentences": {"reconstruction": "Nearer.", "diversity": "More varied."},
        "reconstruction": {"psnr": {"value": 21.0, "repeated": 20.5, "margin": 0.5, **ends}},
        "diversity": {"pixels": {"samples": 0.02, "reconstructions": 0.01, "difference": 0.01, "low": None, "high": None}},
        "motion": {"frame_change": {"samples": 0.1, "real": 0.2, "difference": -0.1, **ends}}}}))
    sentences, _, *table = animation_table(tmp_path).splitlines()
    assert sentences == "lddm: Nearer. More varied."
    assert table[2:] == [
        "| reconstruction | psnr | reconstruction | 21.0000 | repeated first frame | 20.5000 | +0.5000 [-0.2500, +0.5000] |",
        "| diversity | pixels | samples | 0.0200 | reconstructions | 0.0100 | +0.0100 |",
        "| motion | frame change | samples | 0.1000 | real clips | 0.2000 | -0.1000 [-0.2500, +0.5000] |"]


def test_a_run_with_planted_copies_says_how_many_are_found(tmp_path: Path) -> None:
    (tmp_path / "copies.json").write_text(json.dumps({
        "held_out_clips": 84, "held_out_patients": 5, "false_alarms": 0.0, "left_out": 0.25,
        "found": {"exact": {"found": 39, "of": 40, "share": 0.975, "low": 0.87, "high": 1.0}}}))
    assert copies_table(tmp_path).splitlines()[2:] == [
        "| exact | 39 of 40 | 0.97 [0.87, 1.00] |",
        "| false alarms among 84 clips of 5 held-out patients | 0.000 (0.250 for a patient the threshold has not seen) | |"]


def test_a_run_of_before_intervals_and_one_of_after_tell_the_same_band(tmp_path: Path) -> None:
    before = {"value": 0.5, "real": 0.25, "low": 0.125, "high": 0.375, "inside": 0.75}
    after = {**before, "low": 0.4, "high": 0.625, "band": [0.125, 0.375]}
    (tmp_path / "appearance.json").write_text(json.dumps({"old": {"frame_change": before}, "new": {"frame_change": after}}))
    assert appearance_table(tmp_path).splitlines()[2:] == [
        "| old | frame change | 0.500 | 0.250 | 0.125 to 0.375 | 75 % |",
        "| new | frame change | 0.500 [0.400, 0.625] | 0.250 | 0.125 to 0.375 | 75 % |"]


def test_a_run_that_measures_likeness_says_so(tmp_path: Path) -> None:
    one = {"value": 0.5, "low": 0.4, "high": 0.625, "sd": 0.25, "real": None, "similarity": "SSIM",
           "direction": "lower is better", "flags": ["4 conditions", "0 held-out clips"]}
    (tmp_path / "likeness.json").write_text(json.dumps({"lddm": {"DS": one}}))
    assert likeness_table(tmp_path).splitlines()[2:] == [
        "| lddm | DS | SSIM | 0.500 [0.400, 0.625] | 0.250 | n/a | lower is better | 4 conditions; 0 held-out clips |"]


def test_a_run_that_measures_distributions_says_so(tmp_path: Path) -> None:
    cell = {"value": 0.5, "low": 0.4, "high": 0.625, "real": 0.25, "direction": "lower is nearer", "flags": []}
    bare = {**cell, "low": None, "high": None, "real": None, "flags": ["7 synthetic clips, needs 49", "0 held-out clips"]}
    (tmp_path / "distribution.json").write_text(json.dumps({"lddm": {"random3d": {"metrics": {"kid": cell, "frechet": bare}}}}))
    assert distribution_table(tmp_path).splitlines()[2:] == [
        "| lddm | random3d | kid | 0.500 [0.400, 0.625] | 0.250 | lower is nearer |  |",
        "| lddm | random3d | frechet | 0.500 | n/a | lower is nearer | 7 synthetic clips, needs 49; 0 held-out clips |"]


def speed_table() -> str:
    """Both halves of FVD beside their peers, in seconds and ratios of processor time."""
    report = json.loads((ROOT / "docs" / "speed" / "fvd.json").read_text())
    lines = ["| half | peer | here | ratio |", "|---|---|---|---|"]
    for name, one in report["measured"].items():
        words, digits, cpu = name.split(), 0 if one["cpu"]["ratio"] > 100 else 1, one["cpu"]
        half = ("features of {} clips of {} frames".format(*report["clips"]) if name == "features"
                else f"Fréchet distance, {words[0]} clips of {words[2]} features")
        ratio, low, high = (format(cpu[key], f".{digits}f") for key in ("ratio", "lowest", "highest"))
        lines.append(f"| {half} | {cpu['peer_s']:.3f} s | {cpu['ours_s']:.3f} s | {ratio} ({low} to {high}) |")
    return "\n".join(lines)


def test_the_page_of_speed_is_what_the_benchmarks_printed() -> None:
    page = (ROOT / "docs" / "speed.md").read_text()
    assert speed_table() in page
    for printed in (ROOT / "docs" / "speed").glob("*.txt"):
        assert printed.read_text() in page, printed.name


def test_every_local_link_and_picture_exists() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "results").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), target


if __name__ == "__main__":
    import sys

    sys.stdout.write(results_page())

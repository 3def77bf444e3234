"""The report needs nothing outside its page, says what the files say, and survives hostile names and missing stages."""

from __future__ import annotations

import base64
import io
import itertools
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tiny_line
from PIL import Image

from models.trainer import TrainParams
from tasks.charts import curves, histogram, smooth, whiskers
from tasks.class_comparisons import conclude
from tasks.feature_map import feature_map
from tasks.params import ArmParams, BenchmarkParams, ClassifierParams, ControlParams, EngineParams, Params
from tasks.records import ClassificationRecord, Decision
from tasks.release import release
from tasks.report import report
from tasks.tables import read_json, read_table, write_json, write_table

VOID = {"meta", "img", "source", "br", "link", "input", "hr"}
SECTIONS = ("asked", "line", "clips", "map", "filters", "paths", "training", "benchmark", "limits", "provenance")


class Page(HTMLParser):
    """Tags, ids, addresses and text; every tag must be closed where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data + " "

    def values(self, name: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(name))]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    data, tree = tmp_path_factory.mktemp("line"), tiny_line.params()
    tiny_line.build(data, tree)
    folders = (data / name for name in ("prepared", "clips", "decisions", "audit", "benchmark", "release"))
    release(tree.release, tree.dataset, tree.audit, *folders)
    for name in tree.samples:
        feature_map(ControlParams(), data / "critics", data / "prepared", data / "clips" / name, data / "features",
                    data / "control" / name)
    report(tree, data, data / "reports")
    return data, tree


@pytest.fixture(scope="module")
def page(made: tuple[Path, Params]) -> Page:
    return Page((made[0] / "reports" / "report.html").read_text())


@pytest.fixture
def line(made: tuple[Path, Params], tmp_path: Path) -> tuple[Path, Params]:
    shutil.copytree(made[0], tmp_path / "data")
    return tmp_path / "data", made[1]


def test_the_page_needs_nothing_outside_it(made: tuple[Path, Params], page: Page) -> None:
    text = (made[0] / "reports" / "report.html").read_text()
    assert not re.search(r"https?://", text.replace("http://www.w3.org/", ""))  # names of XML vocabularies are no addresses
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert {str(link).split("#")[0] for link in links} == {"", "gallery.html"}  # beside it, to be leafed through
    others = [value for name in ("src", "srcset", "href", "xlink:href") for value in page.values(name) if value not in links]
    assert all(value.startswith(("data:image/", "#")) for value in others)
    assert not any(tag in ("link", "iframe") or (tag == "script" and attributes) for tag, attributes in page.tags)
    assert "url(" not in re.sub(r"url\(#", "", text)
    assert len(text) < 700_000


def test_every_section_is_there_and_every_link_arrives(page: Page) -> None:
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert set(SECTIONS) <= set(ids)
    targets = [value.removeprefix("#") for value in page.values("href") if value.startswith("#")]
    assert set(SECTIONS) <= set(targets) <= set(ids)


def test_every_picture_has_words_and_moves(page: Page) -> None:
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 5 + 2 + 1 + 3 + 7 + 2  # conditions, sets, pairs most alike, dropped, kept, paths
    assert all(attributes["alt"] for attributes in pictures)
    assert all(attributes.get("aria-label") for tag, attributes in page.tags if tag == "svg")
    for attributes in pictures:
        content = base64.b64decode(str(attributes["src"]).split(",")[1])
        with Image.open(io.BytesIO(content)) as image:
            assert (image.format, getattr(image, "n_frames", 1)) == ("WEBP", tiny_line.FRAMES)


def test_counts_through_every_stage(page: Page) -> None:
    for bar in ("inputs found 13 12 gave clips", "quarantined 1", "clips 12 12 patients",
                "training 6 6 patients; 5 clips annotated", "validation 2", "test 4", "conditions 5", "sampled 10",
                "dropped by similarity 2 of 10; threshold 98",
                "dropped by agreement 1 of 8; threshold >= 0.62", "kept 7 70% of those sampled",
                "to be released 7 tiny-wires v1"):
        assert bar in page.text


def test_the_verdict_and_the_table_are_those_of_the_benchmark(made: tuple[Path, Params], page: Page) -> None:
    folder = made[0] / "benchmark"
    assert page.text.count(read_json(folder / "verdict.json")["sentence"]) == 2
    for network in ("vnet", "dynunet"):
        for arm, metrics in read_json(folder / "metrics.json")[network].items():
            dice = metrics["dice"]
            assert f"{dice['mean']:.3f} [{dice['low']:.3f}, {dice['high']:.3f}]" in page.text, arm
    for one in read_json(folder / "comparisons.json"):
        if one["metric"] == "dice":
            assert f"{one['difference']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]" in page.text
    assert "mixed_no_consistency order chronological instead of bisection vnet" in page.text
    assert page.text.index("geometric n/a n/a baseline") < page.text.index("significant loss")


def test_a_classification_run_is_told_by_its_own_metrics(line: tuple[Path, Params]) -> None:
    """On the page and on the card: balanced accuracy, McNemar, what each arm trained on; Dice and its test nowhere."""
    data, tree = line
    network = ClassifierParams(kind="c3d", train=TrainParams(steps=10, batch_size=2))
    arms = {"real": ArmParams(real=True), "joint": ArmParams(real=True, synthetic="sfvd", per_class=3, balanced=False),
            "few": ArmParams(real=True, real_share=0.25, rare={"idle": 0.5}, augment="rand", mix="cutmix")}
    benchmark = BenchmarkParams(kind="classification", arms=arms, baseline="real", networks={"c3d": network}, seeds=[0, 1],
                                bootstrap=100)
    rng = np.random.default_rng(0)
    rows = []
    for arm, seed, clip in itertools.product(arms, (0, 1), range(40)):
        chance = float(np.clip(0.5 + (0.3 if arm == "joint" else 0.1) * (1 - 2 * (clip % 2)) + rng.normal(0, 0.2), 0, 1))
        rows.append(ClassificationRecord(arm, "c3d", seed, f"clip{clip}", f"test{clip // 4}", ["idle", "move"][clip % 2],
                                         ["idle", "move"], [chance, 1 - chance]))
    found = conclude(rows, benchmark)
    for name in ("metrics", "comparisons", "verdict"):
        write_json(data / "benchmark" / f"{name}.json", getattr(found, name))
    tree = tree.model_copy(update={"benchmark": benchmark})
    page = Page(report(tree, data, data / "reports").read_text())
    folders = (data / name for name in ("prepared", "clips", "decisions", "audit", "benchmark", "release"))
    release(tree.release, tree.dataset, tree.audit, *folders)
    card = (data / "release" / "README.md").read_text()
    for text in (page.text, card):
        assert found.verdict["sentence"] in text and "Classification of" in text and "Balanced accuracy" in text
        assert not any(word in text for word in ("Dice", "Hausdorff", "Segmentation of", "Wilcoxon"))
        for cell in (arm["balanced_accuracy"] for arm in found.metrics["c3d"].values()):
            assert f"{cell['mean']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]" in text
    assert "Macro AUROC" in page.text and "p is McNemar's exact test over clips" in page.text
    assert "image diagonal" not in page.text
    assert "at most 3 of each class); classes as often as they are" in page.text
    assert "real clips (25% of the patients, 50% of class idle), with rand augmentation and cutmix" in page.text


def test_dropped_clips_come_with_their_reason(made: tuple[Path, Params], page: Page) -> None:
    for decision in read_table(made[0] / "decisions" / "sfvd" / "decisions.parquet", Decision):
        if not decision.keep:
            assert f"dropped by {decision.filter} clip {decision.clip_id[:8]}: score {decision.score:.4g}" in page.text
            assert decision.reason in page.text


def test_hostile_names_are_text(page: Page) -> None:
    assert "<script>alert(1)</script>.mp4" in page.text
    assert "tip <b>bold</b>" in page.text
    assert sum(tag == "script" for tag, _ in page.tags) == 1 and not any(tag == "b" for tag, _ in page.tags)  # the map's own


def test_simulated_data_is_called_so_and_real_data_is_not(line: tuple[Path, Params], page: Page) -> None:
    assert "SIMULATED SOURCE" in page.text
    data, _ = line
    real = Page(report(tiny_line.params(simulated=False), data, data / "reports").read_text())
    assert "simulated: false" in real.text  # among the parameters
    assert "simulated" not in real.text.lower().replace("simulated: false", "")


def test_what_was_asked_names_no_folder_of_this_machine(made: tuple[Path, Params], page: Page) -> None:
    assert "6 frames of 32 by 32 pixels" in page.text
    assert "scene 30 steps of 4" in page.text
    assert "location: …/phantom.py" in page.text
    for text, name in itertools.product(("/some/where", str(made[0])), ("report.html", "params.yaml")):
        assert text not in (made[0] / "reports" / name).read_text()


def test_the_same_run_gives_the_same_bytes(line: tuple[Path, Params], made: tuple[Path, Params]) -> None:
    """Wherever its work was done."""
    data, tree = line
    shutil.rmtree(data / "reports")
    report(tree.model_copy(update={"engine": EngineParams(kind="dask", workers=7)}), data, data / "reports")
    for name in ("report.html", "clips.webp", "metrics.json", "params.yaml"):
        assert (data / "reports" / name).read_bytes() == (made[0] / "reports" / name).read_bytes()


def test_what_was_not_run_is_said(line: tuple[Path, Params]) -> None:
    data, tree = line
    for folder in ("benchmark", "audit", "checkpoints", "critics", "clips/no_consistency", "decisions/sfvd"):
        shutil.rmtree(data / folder)
    (data / "prepared" / "quarantine.parquet").unlink()
    page = Page(report(tree, data, data / "reports").read_text())
    assert "Benchmark not run: nothing can be said" in page.text
    assert "No audit looked for such parts." in page.text
    assert "No filter was run: every sampled clip counts as kept." in page.text
    assert "kept 10 100% of those sampled" in page.text
    assert page.text.count("Not run.") == 2  # training and benchmark


def test_measures_of_clips_come_with_intervals_directions_and_doubts(line: tuple[Path, Params]) -> None:
    data, tree = line
    clips = {"training": 30, "synthetic": 10, "held-out": 4}
    measure = {"value": 0.125, "real": 0.25, "low": 0.1, "high": 0.15, "band": [0.2, 0.3], "inside": 0.5, "clips": clips,
               "frames": 4, "direction": "d", "span": [0, 1], "what": "w", "flags": ["few <conditions>"]}
    write_json(data / "control" / "sfvd" / "appearance.json", {"frame_change": measure})
    alike = {"value": 0.5, "low": None, "high": None, "sd": 0.25, "real": None, "clips": clips, "frames": 4,
             "similarity": "SSIM", "direction": "lower is better", "span": [-1, 1], "what": "alike", "flags": []}
    write_json(data / "control" / "sfvd" / "likeness.json", {"DS": {**alike, "value": None, "sd": None}, "OS": alike})
    cell = {"value": 0.5, "low": 0.4, "high": 0.625, "real": None, "direction": "lower is nearer", "what": "kernels",
            "flags": []}
    seen = {"clips": {"training": 30, "synthetic": 10, "held-out": 0}, "frames": 4, "features": 48,
            "metrics": {"kid": cell, "frechet": {**cell, "low": None, "flags": ["few & odd", "no yardstick"]}}}
    write_json(data / "control" / "sfvd" / "distribution.json", {"random3d (seed 0)": seen})
    page = Page(report(tree, data, data / "reports").read_text())
    assert "sfvd 10 clips of 4 frames against 30 measure" in page.text
    assert "frame change w Doubtful: few <conditions>. 0.125 [0.100, 0.150] 0.250 0.200 to 0.300 50 %" in page.text
    assert "sfvd 10 clips of 4 frames; SSIM metric" in page.text
    assert "DS alike n/a n/a n/a lower is better" in page.text
    assert "OS, against 30 training clips alike 0.500 0.250 n/a lower is better" in page.text
    assert "sfvd 10 clips of 4 frames against 30, seen by random3d (seed 0) metric" in page.text
    assert "kid kernels 0.500 [0.400, 0.625] n/a lower is nearer" in page.text
    assert "frechet kernels Doubtful: few & odd; no yardstick. 0.500 n/a lower is nearer" in page.text


def test_an_audit_of_other_clips_is_not_shown(line: tuple[Path, Params]) -> None:
    data, tree = line
    write_json(data / "audit" / "sfvd" / "audit.json", {"clips_digest": "of clips sampled before"})
    assert "Does it copy?" not in report(tree, data, data / "reports").read_text()


def test_a_set_that_lost_every_clip_still_has_a_report(line: tuple[Path, Params]) -> None:
    data, tree = line
    table = data / "decisions" / "sfvd" / "decisions.parquet"
    ids = {row.clip_id for row in read_table(table, Decision)}
    lost = [Decision(clip, "agreement", False, float("nan"), "none", "all wrong") for clip in sorted(ids)]
    write_table(table, lost, Decision)
    page = Page(report(tree, data, data / "reports").read_text())
    assert "kept 0 0% of those sampled" in page.text
    assert page.text.count("all wrong") == 8 + 1  # as many as are shown, and the path of one


def test_without_the_released_set_there_is_one_clear_line(line: tuple[Path, Params]) -> None:
    data, tree = line
    shutil.rmtree(data / "clips" / "sfvd")
    with pytest.raises(ValueError, match="sfvd: no such set; run `cinefab sample sfvd` first"):
        report(tree, data, data / "reports")


def test_smooth_keeps_the_mean_and_bounds_the_points() -> None:
    losses = np.random.default_rng(0).random(1234)
    steps, values = smooth(losses.tolist(), points=50)
    assert len(steps) == len(values) <= 62
    window = -(-1234 // 50)
    sizes = [min(window, 1234 - start) for start in range(0, 1234, window)]
    assert np.average(values, weights=sizes) == pytest.approx(losses.mean())
    assert smooth([]) == ([], [])
    assert smooth([3.0])[1] == [3.0]


def test_charts_take_odd_input() -> None:
    """Formula marks, markup, nothing at all, one value, no number: text stays text and the SVG stays well formed."""
    for svg in (
        histogram([], [], [], "$score$", 'a "quoted" <alt> & more'),
        histogram([1.0, 1.0], [float("nan")], [1.0], "one", "one"),
        curves({"$a$ <b>": ([1, 2], [0.1, 0.0]), "c": ([1], [2.0])}, "two", log=True),
        whiskers([("$a$<i>", 0.5, 0.4, 0.6)], "other", "Dice", "one"),
    ):
        chart = Page(svg)
        assert not any(tag in ("b", "i", "alt") for tag, _ in chart.tags)
    assert Page(curves({"$a$ <b>": ([1, 2], [1, 2]), "c": ([1], [2.0])}, "two")).text.count("$a$ <b>") == 1


def test_a_chart_s_bars_are_its_counts() -> None:
    """24 bins of kept clips under 24 of dropped ones: the drawn heights add up to the numbers of clips."""
    svg = histogram([1.0, 2.0, 2.0, 3.0], [5.0, 5.0], [4.0], "score", "alt")
    heights: dict[str, float] = {"var(--accent)": 0.0, "var(--drop)": 0.0}
    for path, colour in re.findall(r'<path d="([^"]*)" clip-path="[^"]*" style="fill: ([^";]*)"', svg):
        y = [float(found) for found in re.findall(r"[ML] [\d.]+ ([\d.]+)", path)]
        heights[colour] += max(y) - min(y)
    assert heights["var(--accent)"] == pytest.approx(2 * heights["var(--drop)"], rel=1e-3)

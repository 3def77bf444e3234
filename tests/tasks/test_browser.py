"""The pages in a real browser, as wide as a phone and as a desk: nothing is broken, cut off or too small, and all of it works.

A browser that is installed is started once, without a window, on a server of this process; pages are looked at in frames of the
width asked for, by `harness.js`, which sends back what it saw.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import tiny_line

from tasks.feature_map import feature_map
from tasks.params import ControlParams, Params
from tasks.records import ProvenanceRecord
from tasks.report import report
from tasks.store import ClipStore
from tasks.tables import read_table, write_table

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on the path")

PHONE, DESK, PATIENCE = 390, 1280, 120
PAGES = ("report.html", "gallery.html", "gallery/00001.html")
CHOICES: list[dict[str, str]] = [
    {}, {"decision": "k"}, {"decision": "d"}, {"decision": "0"}, {"decision": "1"}, {"label": "0"},
    {"filter": "0", "low": "82", "high": "86"}, {"filter": "1", "high": "0.5"}, {"decision": "k", "label": "1", "low": "85"},
    {"decision": "k", "high": "0"},
]
PLANTED = """<p style="font-size:7px">small</p><div style="width:2000px">wide</div>
<img src="data:image/webp;base64,AAAA" alt=""><img src="gone.png" alt="">
<script>console.error("planted"); missing();</script>"""


@dataclass(frozen=True)
class Seen:
    """What the browser saw of "PAGE WIDTH", what it wrote to its console, and what it asked for in vain."""

    pages: dict[str, dict[str, Any]]
    console: list[str]
    missing: list[str]


def look(folder: Path, jobs: list[tuple[str, int]], profile: Path) -> Seen:
    """Start the browser on the pages of a folder; it is ended as soon as it has answered."""
    script = Path(__file__).with_name("harness.js").read_text()
    (folder / "harness.html").write_text(
        f'<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><body><script>'
        f"const JOBS = {json.dumps(jobs)}, CHOICES = {json.dumps(CHOICES)};\n{script}</script>")
    answered, answers, missing = threading.Event(), [], []

    class Handler(SimpleHTTPRequestHandler):
        def do_POST(self) -> None:
            answers.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            answered.set()

        def log_request(self, code: Any = "-", size: Any = "-") -> None:
            if int(code) >= 400:
                missing.append(self.path)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
               "--enable-logging=stderr", f"--user-data-dir={profile}", "--window-size=1400,1000", f"http://127.0.0.1:{server.server_port}/harness.html"]
    log = profile.with_suffix(".log")
    with log.open("wb") as errors:
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
        try:
            assert answered.wait(PATIENCE), f"no answer in {PATIENCE} s:\n{log.read_text(errors='replace')[-2000:]}"
        finally:
            os.killpg(browser.pid, signal.SIGTERM)
            browser.wait()
            server.shutdown()
            server.server_close()
    said = [line for line in log.read_text(errors="replace").splitlines() if ":CONSOLE" in line]
    return Seen(answers[0], said, missing)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    data, tree = tmp_path_factory.mktemp("line"), tiny_line.params()
    tiny_line.build(data, tree)
    table = data / "clips" / "sfvd" / "provenance.parquet"
    rows = read_table(table, ProvenanceRecord)
    labelled = [ProvenanceRecord(**{**vars(one), "label": ["inject", "rotate"][row % 2]}) for row, one in enumerate(rows)]
    write_table(table, labelled, ProvenanceRecord)
    for name in tree.samples:
        feature_map(ControlParams(), data / "critics", data / "prepared", data / "clips" / name, data / "features",
                    data / "control" / name)
    report(tree, data, data / "reports")
    return data, tree


@pytest.fixture(scope="module")
def seen(line: tuple[Path, Params], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(line[0] / "reports", folder / "reports")
    jobs = [(page, width) for page in PAGES for width in (PHONE, DESK)]
    yield look(folder / "reports", jobs, tmp_path_factory.mktemp("browser") / "profile")


def test_every_page_opens_and_nothing_is_missing(seen: Seen) -> None:
    assert set(seen.pages) == {f"{page} {width}" for page in PAGES for width in (PHONE, DESK)}
    assert all("tiny-wires v1" in one["title"] for one in seen.pages.values())
    assert seen.missing == []


def test_the_console_is_silent(seen: Seen) -> None:
    assert seen.console == []


def test_every_picture_is_decoded_and_shown(seen: Seen) -> None:
    wanted = {"report.html": 20, "gallery.html": tiny_line.SAMPLED, "gallery/00001.html": 4}
    for name, one in seen.pages.items():
        assert (one["images"], one["broken"], one["hidden"]) == (wanted[name.split()[0]], 0, 0), name


def test_nothing_sticks_out_at_the_side(seen: Seen) -> None:
    for name, one in seen.pages.items():
        assert one["inner"] == int(name.split()[1])
        assert one["scroll"] <= one["inner"], name


def test_text_can_be_read(seen: Seen) -> None:
    """12 pixels or more, in charts too, which grow and shrink with the page."""
    for name, one in seen.pages.items():
        assert one["smallest"] >= 11.99, (name, one["smallest"], one["smallest_words"])


def test_the_map_has_a_mark_a_clip_and_says_which(seen: Seen) -> None:
    for width in (PHONE, DESK):
        one = seen.pages[f"report.html {width}"]
        assert one["marks"] == [6 + 4 + tiny_line.SAMPLED] * 2
        assert all(mark["said"].startswith(mark["own"]) for mark in one["pointed"])
        assert len({mark["own"] for mark in one["pointed"]}) == len(one["pointed"])


def test_a_mark_of_a_synthetic_clip_leads_to_it(line: tuple[Path, Params], seen: Seen) -> None:
    ids = ClipStore.open(line[0] / "clips" / "sfvd" / "clips.zarr").ids
    links = {mark["link"] for mark in seen.pages[f"report.html {PHONE}"]["pointed"]}
    assert links == {"", *(f"gallery.html#c{clip_id[:12]}" for clip_id in ids)}


def test_the_gallery_shows_what_is_chosen(line: tuple[Path, Params], seen: Seen) -> None:
    """By decision, filter, class and score, and all together; a sheet that has nothing to show goes too."""
    ids = ClipStore.open(line[0] / "clips" / "sfvd" / "clips.zarr").ids
    dropped = sorted((*tiny_line.DUPLICATES, tiny_line.WRONG))
    everything = list(range(tiny_line.SAMPLED))
    wanted = [everything, tiny_line.KEPT, dropped, sorted(tiny_line.DUPLICATES), [tiny_line.WRONG], everything[::2],
              [2, 4, 5, 6], [tiny_line.WRONG], [9], []]
    for width in (PHONE, DESK):
        for choice, rows, found in zip(CHOICES, wanted, seen.pages[f"gallery.html {width}"]["chosen"], strict=True):
            assert found["shown"] == [f"c{ids[row][:12]}" for row in rows], choice
            assert found["said"] == f"{len(rows)} of {tiny_line.SAMPLED} clips"
            assert found["sheets"] == len({row // 4 for row in rows})


def test_planted_faults_are_found(line: tuple[Path, Params], tmp_path: Path) -> None:
    """Every check above can fail."""
    shutil.copytree(line[0] / "reports", tmp_path / "reports")
    page = (line[0] / "reports" / "report.html").read_text()
    (tmp_path / "reports" / "report.html").write_text(page.replace("<main ", PLANTED + "<main "))
    found = look(tmp_path / "reports", [("report.html", PHONE)], tmp_path / "profile")
    one = found.pages[f"report.html {PHONE}"]
    assert (one["broken"], one["smallest"], one["smallest_words"]) == (2, 7, "small")
    assert one["scroll"] >= 2000 > one["inner"]
    assert found.missing == ["/gone.png"]
    assert any("planted" in line for line in found.console) and any("missing is not defined" in line for line in found.console)

"""Take the README's pictures of the dashboard: run the tests' tiny line under `cinefab ui` and look at it with a browser.

    python docs/pictures/screenshots.py

Needs chromium or google-chrome on the path, and the development extra.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
SIZE = (1280, 720)


def ask(address: str, path: str, question: dict[str, Any]) -> Any:
    data, kind = json.dumps(question).encode(), {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}/api/{path}", data, kind), timeout=60) as answer:
        return json.load(answer)


def shoot(address: str, out: Path, size: tuple[int, int] = SIZE) -> None:
    """A page as it is when 20 s of its own time have passed: it fetches all that it shows."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.png"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
                   f"--user-data-dir={folder}/profile", "--virtual-time-budget=20000"]
        subprocess.run([str(BROWSER), *options, f"--window-size={size[0]},{size[1]}", f"--screenshot={picture}", address],
                       check=True, capture_output=True, timeout=300)
        Image.open(picture).convert("RGB").save(out, "WEBP", lossless=True)


def main() -> None:
    if BROWSER is None:
        sys.exit("screenshots: no chromium or google-chrome on the path")
    sys.path.insert(0, str(ROOT / "tests" / "flows"))
    from conftest import checkout

    with tempfile.TemporaryDirectory() as folder:
        line = checkout(Path(folder) / "line")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "PYTHONPATH"))}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        ui = subprocess.Popen([sys.executable, "-m", "flows", "ui"], cwd=line, env=environment, stdout=subprocess.PIPE,
                              text=True)
        assert ui.stdout is not None
        try:
            address = ui.stdout.readline().split()[0]
            subprocess.run([sys.executable, "-m", "flows", "run"], cwd=line, env=environment, check=True)
            [factory] = ask(address, "flow_runs/filter", {"flows": {"name": {"any_": ["factory"]}}})
            latest = ask(address, "artifacts/latest/filter", {"artifacts": {"key": {"any_": ["benchmark"]}}})
            shoot(f"{address}/v2/dashboard?tab=COMPLETED", HERE / "ui_dashboard.webp")
            shoot(f"{address}/v2/runs/flow-run/{factory['id']}", HERE / "ui_run.webp")
            shoot(f"{address}/v2/artifacts/artifact/{latest[0]['latest_id']}", HERE / "ui_artifact.webp")
        finally:
            ui.send_signal(signal.SIGINT)
            ui.wait(60)


if __name__ == "__main__":
    main()

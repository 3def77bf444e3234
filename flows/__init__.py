"""Roof: order, retries, concurrency and the command line. No arithmetic.

Prefect and OpenMP read their settings when they are first imported, so they are set here: a database of its own for this
checkout, and no telemetry, neither Prefect's nor DVC's nor the model hub's.
"""

import os
from pathlib import Path

os.environ.setdefault("PREFECT_HOME", str(Path.cwd() / ".cinefab" / "prefect"))
Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)  # Prefect makes the last folder only
if "DVC_SITE_CACHE_DIR" not in os.environ:  # DVC notes the names of raw files down, by itself in a folder that everybody reads
    os.environ["DVC_SITE_CACHE_DIR"] = str(Path.cwd() / ".cinefab" / "dvc")
    Path(os.environ["DVC_SITE_CACHE_DIR"]).mkdir(mode=0o700, exist_ok=True, parents=True)
for switch, value in {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLI_WELCOME_NOTICE": "false",
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "tasks,models",  # their log lines appear in the UI as well
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the terminal has progress bars, and one line per error from `main`
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # the first start on an empty database took 23 s
    # A waiting thread spins this often (some 20 us) before it sleeps. libgomp's own choice, milliseconds, made sampling ten
    # times slower beside another busy program; not spinning at all makes training take 1.7 times as long when there is none
    "GOMP_SPINCOUNT": "10000",
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}.items():
    os.environ.setdefault(switch, value)

"""Roof: order, retries, concurrency and the command line. No arithmetic.

Prefect reads its settings when it is first imported, so they are set here: a database of its own for this checkout, and
no telemetry, neither Prefect's nor DVC's nor the model hub's.
"""

import os
from pathlib import Path

os.environ.setdefault("PREFECT_HOME", str(Path.cwd() / ".cinefab" / "prefect"))
for switch, value in {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_WELCOME_NOTICE": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # the first start on an empty database took 23 s
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}.items():
    os.environ.setdefault(switch, value)

"""The times of a cron schedule: which come next, and which have passed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim

from tasks.params import ScheduleParams


def times_after(schedule: ScheduleParams, moment: datetime) -> Iterator[datetime]:
    """Every time of the schedule after `moment` (with a time zone), on the schedule's own clock."""
    yield from CronSim(schedule.cron, moment.astimezone(ZoneInfo(schedule.timezone)))


def missed(schedule: ScheduleParams, last: datetime, now: datetime) -> str | None:
    """One sentence about the times between two moments, both left out; None if there were none.

    Args:
        last: when the last run there was had been due.
    """
    passed = list(takewhile(lambda time: time < now, times_after(schedule, last)))
    if not passed:
        return None
    ends = [f"{time:%Y-%m-%d %H:%M %Z}" for time in dict.fromkeys((passed[0], passed[-1]))]
    return f"{len(passed)} time{'s' if len(passed) > 1 else ''} of the schedule passed without a run: {' to '.join(ends)}"

"""Cron times: the same that Prefect fires at, and those that passed named."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from prefect.server.schemas.schedules import CronSchedule

from tasks.params import ScheduleParams
from tasks.schedule import missed, times_after

NOON = datetime(2026, 3, 27, 12, tzinfo=UTC)
"""A Friday, two days before Europe's clocks go forward."""


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("cron", ["* * * * *", "0 3 * * 0", "*/20 8-18 * * mon-fri", "30 4 1,15 * *", "0 0 29 2 *"])
def test_times_are_those_prefect_fires_at(cron: str, timezone: str) -> None:
    theirs = asyncio.run(CronSchedule(cron=cron, timezone=timezone).get_dates(n=20, start=NOON + timedelta(seconds=1)))
    assert list(islice(times_after(ScheduleParams(cron=cron, timezone=timezone), NOON), 20)) == theirs


def test_missed_times_are_counted_and_named() -> None:
    daily = ScheduleParams(cron="0 3 * * *", timezone="Europe/Berlin")
    due = datetime(2026, 3, 28, 2, tzinfo=UTC)  # 3 o'clock in Berlin
    assert missed(daily, due, due + timedelta(hours=23)) is None  # the next is due then: the clocks have gone forward
    assert missed(daily, due, due + timedelta(hours=24)) == (
        "1 time of the schedule passed without a run: 2026-03-29 03:00 CEST")
    assert missed(daily, due, due + timedelta(days=3)) == (
        "3 times of the schedule passed without a run: 2026-03-29 03:00 CEST to 2026-03-31 03:00 CEST")
    assert missed(daily, due, due - timedelta(days=3)) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [({"cron": "0 3 * *"}, "five fields"), ({"cron": "61 3 * * *"}, "minute"), ({"cron": "0 0 30 2 *"}, "day-of-month"),
     ({"cron": "@weekly"}, "five fields"), ({"cron": "0 3 * * 0", "timezone": "Berlin"}, "no such time zone"),
     ({"cron": "0 3 * * 0", "notify": "ops"}, "pattern"), ({"cron": "0 3 * * 0", "git_remote": "--force"}, "pattern")],
)
def test_a_wrong_schedule_is_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScheduleParams(**given)

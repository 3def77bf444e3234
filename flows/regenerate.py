"""What the schedule does: bring the line up to date and, if the release is another one then, make it the next version.

Nothing is remembered but what git, DVC and the server hold, so what one run leaves undone, killed or not, the next one does.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from prefect import Flow, State, get_run_logger, task
from prefect import flow as prefect_flow
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas import filters
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.runtime import flow_run as this_run
from prefect.states import Cancelled, Completed, Failed

from flows.at_work import BusyError, StageFailedError, alive, line_lock, reap, runs_below
from flows.layout import Layout
from flows.notify import tell
from flows.steps import dvc_repro
from tasks import repository
from tasks.changelog import changelog
from tasks.params import ScheduleParams, load_params
from tasks.profiles import set_version
from tasks.release import RefusedError
from tasks.schedule import missed

NAME = "regenerate"
MISSED = "Missed"
"""The state of runs that were due while nobody served."""
PARAMS = Path("params.yaml")


def report(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Hook of runs that failed, were refused or crashed; Prefect passes these three by name."""
    subject = f"{Path.cwd().name}: {flow.name} of {flow_run.expected_start_time:%Y-%m-%d %H:%M %Z}: {state.name}"
    tell(flow_run.parameters.get("notify"), subject, state.message or "")


def due() -> str:
    return f"{NAME} {this_run.scheduled_start_time:%Y-%m-%d %H:%M %Z}"


@prefect_flow(name=NAME, flow_run_name=due, on_failure=[report], on_crashed=[report])
def regenerate(notify: str | None = None) -> State[Any]:
    """Args:
        notify: a notification block of Prefect, type/name, told of what goes wrong. A parameter, as params.yaml itself may be
            what is wrong.
    """
    with alive() as process:
        with get_client(sync_client=True) as client:
            client.update_flow_run(this_run.id, tags=[*this_run.tags, process])
        try:
            with line_lock():
                return _regenerate(notify)
        except BusyError as busy:
            return Cancelled(name="Skipped", message=str(busy))
        except RefusedError as refused:
            return Failed(name="Refused", message=str(refused))


def _regenerate(notify: str | None) -> State[Any]:
    logger = get_run_logger()
    if dead := reap():
        logger.warning("marked as crashed, their processes being gone: %s", ", ".join(dead))
        tell(notify, "runs found dead", ", ".join(dead))
    tree = load_params(PARAMS)
    if tree.schedule and (sentence := missed_until(tree.schedule, this_run.scheduled_start_time)):
        logger.warning(sentence)
    repository.check_identity()
    start = repository.check_committed()
    bring_up_to_date(_before_the_release())
    version, versions = int(tree.release.version[1:]), repository.versions(tree.release.name)
    if version in versions:
        version = versions[-1]
        set_version(PARAMS, f"v{version}")  # a profile may have set it back
        if _is_another_release(f"{tree.release.name}-v{version}"):
            version += 1
            set_version(PARAMS, f"v{version}")
    bring_up_to_date([])
    if repository.check_committed() != start:
        raise ValueError(f"{start[:9]} was checked out when this run began, and another commit is now; the next run goes on")
    name, new = f"{tree.release.name}-v{version}", version not in versions
    changed = repository.commit(name if new else f"Brought up to date; the release is {name} as before")
    if dvc("config", "core.remote", check=False):
        dvc("push")
    else:
        logger.warning("DVC has no default remote, so versions stay in this machine's cache; see `dvc remote add -d`")
    if new:
        text = _changelog(f"{tree.release.name}-v{versions[-1]}" if versions else None)
        repository.tag(name, text)
        create_markdown_artifact(key="changelog", markdown=text)
    if tree.schedule and tree.schedule.git_remote:
        repository.push(tree.schedule.git_remote)
    if new:
        return Completed(name="Released", message=name)
    return Completed(name="Same release" if changed else "Nothing stale", message=f"{name} stands")


def missed_until(schedule: ScheduleParams, now: datetime) -> str | None:
    """What `tasks.schedule.missed` says of the times between the newest run before this one and `now`."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=filters.FlowFilter(name=filters.FlowFilterName(any_=[NAME])),
            flow_run_filter=filters.FlowRunFilter(
                start_time=filters.FlowRunFilterStartTime(is_null_=False),
                state=filters.FlowRunFilterState(name=filters.FlowRunFilterStateName(not_any_=[MISSED])),
            ),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=2,
        )
    due = [run.expected_start_time for run in runs if str(run.id) != this_run.id and run.expected_start_time]
    return missed(schedule, due[0], now) if due else None


def bring_up_to_date(targets: list[str]) -> None:
    """`dvc repro`, whose failure is told in the failed stage's own words.

    Raises:
        RefusedError: if that is what the release stage said.
    """
    try:
        dvc_repro(targets)
    except StageFailedError as error:
        words = [run.state.message or "" for run in runs_below(this_run.id, StateType.FAILED) if run.state]
        for word in words:
            if (mark := f"{RefusedError.__name__}: ") in word:
                raise RefusedError(word.partition(mark)[2]) from None
        raise StageFailedError("; ".join([*words, str(error)])) from None


def _before_the_release() -> list[str]:
    """The stages of dvc.yaml that do not read the release's version, so that it can be decided after them."""
    stages = {name: stage.get("do", stage) for name, stage in yaml.safe_load(Path("dvc.yaml").read_text())["stages"].items()}
    return [name for name, stage in stages.items() if "release" not in stage.get("params", [])]


def _is_another_release(tag: str) -> bool:
    """Whether the release that is there, or the one that DVC would make now, has other content than the tag's.

    A new page about the same clips is none: the report is a dependency of the release only so that it is made first.
    """
    there, tagged = repository.stage_lock("release"), repository.stage_lock("release", tag)
    if there is None or tagged is None or there["outs"] != tagged["outs"]:
        return True
    status = json.loads(dvc("status", "--json", "release"))
    return any(set(change["changed deps"]) - {str(Layout().reports)} for change in status.get("release", [])
               if "changed deps" in change)


def _changelog(older: str | None) -> str:
    data = Layout()
    if older is None:
        return changelog(data.release, data.benchmark)
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "manifest.parquet"
        try:
            dvc("get", ".", str(data.release / manifest.name), "--rev", older, "--out", str(manifest))
        except ValueError as error:
            get_run_logger().warning("%s; so the changelog does not compare with %s", error, older)
            return changelog(data.release, data.benchmark)
        return changelog(data.release, data.benchmark, (older, manifest))


@task(task_run_name="dvc {words[0]}", cache_policy=NO_CACHE, persist_result=False)
def _dvc(words: tuple[str, ...], check: bool) -> str:
    done = subprocess.run(["dvc", *words], capture_output=True, text=True)
    if done.returncode and check:
        raise ValueError(f"dvc {words[0]}: {done.stderr.strip() or f'ended with status {done.returncode}'}")
    return done.stdout.strip()


def dvc(*words: str, check: bool = True) -> str:
    """One command of DVC as a task; returns what it printed.

    Raises:
        ValueError: with DVC's own words, if it fails and `check` is true.
    """
    return _dvc(words, check)

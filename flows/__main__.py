"""The command line: `cinefab`, the same as `python -m flows`. Every stage of dvc.yaml is one of these commands."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.layout import Layout

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="A data factory for synthetic medical video: train, sample, filter, prove, release.",
)
stages = "Stages (dvc.yaml runs these)"
released = "Released versions"
ParamsPath = Annotated[Path, typer.Option("--params", help="the parameter file")]
DataPath = Annotated[Path, typer.Option("--data", help="the folder all stages write under")]
RepoPath = Annotated[str, typer.Option("--repo", help="path or URL of the git repository that has the versions")]
PARAMS, DATA = Path("params.yaml"), Path("data")


@app.command(rich_help_panel=stages)
def prepare(params: ParamsPath = PARAMS, data: DataPath = DATA) -> None:
    """Raw files -> clips, masks, patient-level splits, quarantine.

    Example: `cinefab prepare`
    """
    from flows.prepare import prepare as flow
    from flows.server import run_linked

    run_linked(flow, params=params, data=Layout(data))


@app.command(rich_help_panel=stages)
def condition(params: ParamsPath = PARAMS, data: DataPath = DATA) -> None:
    """Training split -> condition bank (mask sequences to ask for)."""
    from flows.prepare import condition as flow
    from flows.server import run_linked

    run_linked(flow, params=params, data=Layout(data))


@app.command(rich_help_panel=stages)
def train(name: str, params: ParamsPath = PARAMS, data: DataPath = DATA) -> None:
    """Fit one entry of `generators`; resumes where a killed run stopped.

    Example: `cinefab train sfvd`
    """
    from flows.server import run_linked
    from flows.train import train as flow

    run_linked(flow, params=params, data=Layout(data), name=name)


@app.command(rich_help_panel=stages)
def critic(name: str, params: ParamsPath = PARAMS, data: DataPath = DATA) -> None:
    """Fit one entry of `critics`, the networks the filters look through."""
    from flows.server import run_linked
    from flows.train import critic as flow

    run_linked(flow, params=params, data=Layout(data), name=name)


@app.command(rich_help_panel=stages)
def sample(name: str, params: ParamsPath = PARAMS, data: DataPath = DATA) -> None:
    """Sample one entry of `samples` in shards; finished shards are skipped.

    Example: `cinefab sample sfvd`
    """
    from flows.server import run_linked
    from flows.synthesize import sample as flow

    run_linked(flow, params=params, data=Layout(data), name=name)


@app.command(rich_help_panel=stages)
def curate(name: str, params: ParamsPath = PARAMS, data: DataPath = DATA) -> None:
    """Run the filter chain over one synthetic set; every decision becomes a row."""
    from flows.curate import curate as flow
    from flows.server import run_linked

    run_linked(flow, params=params, data=Layout(data), name=name)


@app.command(rich_help_panel=stages)
def control(name: str, params: ParamsPath = PARAMS, data: DataPath = DATA) -> None:
    """Measure whether one synthetic set shows the class, text, image prior and motion it was asked for."""
    from flows.curate import control as flow
    from flows.server import run_linked

    run_linked(flow, params=params, data=Layout(data), name=name)


@app.command(rich_help_panel=stages)
def audit(name: str, params: ParamsPath = PARAMS, data: DataPath = DATA) -> None:
    """Ask of every clip of one synthetic set whether it is a near copy of a training clip.

    The line does it for the set that is to be released, and refuses the release if there are too many (`audit` in the
    parameters). The report shows the pairs most alike, of other sets too. Example: `cinefab audit lddm`
    """
    from flows.curate import audit as flow
    from flows.server import run_linked

    typer.echo(run_linked(flow, params=params, data=Layout(data), name=name)["sentence"])


@app.command(rich_help_panel=stages)
def benchmark(params: ParamsPath = PARAMS, data: DataPath = DATA) -> None:
    """Train every arm on every seed and test it on held-out patients."""
    from flows.prove import benchmark as flow
    from flows.server import run_linked

    run_linked(flow, params=params, data=Layout(data))


@app.command(rich_help_panel=stages)
def report(params: ParamsPath = PARAMS, data: DataPath = DATA) -> None:
    """One self-contained HTML page about the run, and a gallery of all clips beside it."""
    from flows.publish import report as flow
    from flows.server import run_linked

    run_linked(flow, params=params, data=Layout(data))


@app.command(rich_help_panel=stages)
def release(params: ParamsPath = PARAMS, data: DataPath = DATA) -> None:
    """Accepted clips, manifest, decisions, provenance and data card in one folder."""
    from flows.publish import release as flow
    from flows.server import run_linked

    run_linked(flow, params=params, data=Layout(data))


@app.command()
def run(targets: Annotated[list[str] | None, typer.Argument(help="stages of dvc.yaml; default: all")] = None) -> None:
    """The whole line as one Prefect run; ends with the report's path. Only stale stages run.

    Examples: `cinefab run`, `cinefab run train@sfvd`
    """
    from flows.factory import run as run_factory

    run_factory(targets or [])
    if (page := Layout(DATA).reports / "report.html").exists():
        typer.echo(page.resolve())


@app.command()
def ui() -> None:
    """Start the server of this checkout, print its address, and stay until Ctrl-C.

    Whatever is started here meanwhile is shown: `cinefab run`, `dvc repro`, single stages. If a server of this checkout runs
    already, its address is all.
    """
    from flows.watch import watch

    watch()


@app.command()
def serve(params: ParamsPath = PARAMS) -> None:
    """Keep the schedule of params.yaml: bring the line up to date and release, tag and push the next version when it changed.

    Shows its runs at the address it prints. Stop it with Ctrl-C; times that pass until it is started again are named then.
    """
    from flows.serve import serve as keep

    keep(params)


@app.command()
def repeat(
    names: Annotated[list[str] | None, typer.Argument(help="these only, e.g. train_0.5_seed_1; default: all")] = None,
    params: ParamsPath = PARAMS, data: DataPath = DATA,
) -> None:
    """The whole line again on other random splits of the patients, and what all of them say together.

    Seeds and training shares stand in the section `repeats` of the parameters. Every repeat lies in a folder of its own under
    data/repeats; those that are done are left alone, so that several machines may each take some by name.

    Examples: `cinefab repeat`, `cinefab repeat train_0.7_seed_0 train_0.5_seed_0`
    """
    from flows.repeat import repeat as flow
    from flows.server import run_linked, server

    with server():
        page = run_linked(flow, params=params, data=Layout(data), names=names or [])
    typer.echo(page.resolve() if page else "the other repeats are not done yet; run `cinefab repeat` when they are")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="RUN_A", help="the older run")],
    second: Annotated[str, typer.Argument(metavar="RUN_B", help="the newer run")],
    out: Annotated[Path | None, typer.Option(help="a page to write too, with every metric and the clips' ids")] = None,
) -> None:
    """What changed between two runs, with intervals, and whether anything got better or worse.

    A run is a data folder: `data`, one of `data/repeats`, that of another clone. Or it is a git revision of this repository, as
    far as DVC has its outputs: a commit, a tag, `HEAD`. Nothing is run again. Where both were tested on the same held-out
    patients, differences are paired and tested; other patients' numbers stand side by side.

    Examples: `cinefab compare HEAD data`, `cinefab compare v1 v2 --out compare.html`,
    `cinefab compare data/repeats/train_0.3_seed_0 data/repeats/train_0.7_seed_0`
    """
    from tasks.compare import READ
    from tasks.compare import compare as compare_runs
    from tasks.compare_page import page, text
    from tasks.revision import run_folder

    with run_folder(first, DATA, READ) as a, run_folder(second, DATA, READ) as b:
        found = compare_runs(a, b, (first, second))
    typer.echo(text(found))
    if out is not None:
        typer.echo(f"\n{page(found, out).resolve()}")


@app.command()
def profile(
    names: Annotated[list[str], typer.Argument(help="files of profiles/, applied in order")], params: ParamsPath = PARAMS
) -> None:
    """Write what `profiles/NAME.yaml` holds over params.yaml, comments kept.

    Examples: `cinefab profile hippocampus`, `cinefab profile hippocampus gpu`
    """
    from tasks.profiles import apply_profiles

    for key, old, new in apply_profiles(params, [Path("profiles") / f"{name}.yaml" for name in names]):
        typer.echo(f"{key}: {old} -> {new}")


@app.command(name="data")
def fetch(
    name: Annotated[str, typer.Argument(help="hippocampus or lung")],
    copy_from: Annotated[Path | None, typer.Option("--from", help="a copy on disk instead of the download")] = None,
) -> None:
    """Get a real data set from its owners into data/raw, checked.

    Lung ultrasound comes out of a clone of its owners' repository, which the README says how to import.

    Examples: `cinefab data hippocampus`, `cinefab data hippocampus --from ~/Task04_Hippocampus`,
    `cinefab data lung --from pocus`
    """
    from tasks.fetch import fetch_hippocampus
    from tasks.fetch_lung import OWNER, fetch_lung

    if name == "hippocampus":
        typer.echo(fetch_hippocampus(DATA / "raw" / "hippocampus", copy_from))
    elif name == "lung" and copy_from is not None:
        typer.echo(fetch_lung(DATA / "raw" / "lung", copy_from))
    elif name == "lung":
        raise ValueError(f"data lung: give --from with a clone of github.com/{OWNER}; see README: lung ultrasound")
    else:
        raise ValueError(f"data: {name!r} is not known; choose hippocampus or lung, or see README: bring your own data")


@app.command()
def verify(path: Annotated[Path, typer.Argument(help="a store, a set, a checkpoint, a release, or a folder of them")]) -> None:
    """Recompute every checksum under PATH and name what is broken; exit status 1 if anything is.

    Example: `cinefab verify data/release`
    """
    from tasks.verify import verify_tree

    checked, problems = verify_tree(path)
    for problem in problems:
        typer.echo(problem)
    typer.echo(f"{checked} checked, {len(problems)} broken")
    raise typer.Exit(1 if problems or not checked else 0)


@app.command()
def source(
    digest: Annotated[str, typer.Argument(help="its beginning, of `file` in a quarantine or of `source` in the manifest")],
    folder: Annotated[Path | None, typer.Argument(help="look there, not in the data set of the parameters")] = None,
    params: ParamsPath = PARAMS,
) -> None:
    """Print which files a digest stands for: tables and logs hold no file names, which may be those of people.

    Examples: `cinefab source 0a1b2c3d4e5f6071`, `cinefab source 0a1b2c3d4e5f6071 /data/lesions`
    """
    from flows.prepare import OBJECTS
    from tasks.find_source import find_file, find_source
    from tasks.local_copy import local_copy
    from tasks.params import load_params

    if folder is None:
        dataset = load_params(params).dataset
        found = find_source(digest, dataset.model_copy(update={"location": local_copy(dataset.location, OBJECTS)}))
    else:
        found = find_file(digest, folder)
    typer.echo("\n".join(map(str, found)))


@app.command()
def deidentify(
    folder: Annotated[Path, typer.Argument(metavar="IN", help="DICOM files, at any depth")],
    out: Annotated[Path, typer.Argument(help="a new folder, elsewhere")],
    recipe: Annotated[Path | None, typer.Option(help="YAML: {blank: [[x0, y0, x1, y1], ...]}, boxes of burned-in text")] = None,
) -> None:
    """Write de-identified copies of DICOM files: PS3.15's basic profile, burned-in text hidden, see docs/deidentification.md.

    Files that cannot be cleaned are left out; exit status 1 if any is. `cinefab source DIGEST IN` finds them.

    Example: `cinefab deidentify /data/echo /data/echo_clean --recipe device.yaml`
    """
    from tasks.deidentify import deidentify as copy
    from tasks.deidentify import lines, read_recipe

    found = copy(folder, out, read_recipe(recipe) if recipe else None)
    typer.echo("\n".join(lines(found)))
    raise typer.Exit(1 if found.left_out else 0)


@app.command(name="list", rich_help_panel=released)
def list_versions(repo: RepoPath = ".") -> None:
    """The released versions of a repository, with what their changelogs begin with.

    Examples: `cinefab list`, `cinefab list --repo https://example.org/factory.git`
    """
    from tasks.versions import versions

    for one in versions(repo):
        typer.echo(f"{one}  {one.day}  {one.summary}")


@app.command(rich_help_panel=released)
def pull(
    version: Annotated[str, typer.Argument(help="NAME@vN, as `cinefab list` has it")],
    out: Annotated[Path | None, typer.Option(help="the folder to make; default data/releases/NAME-vN")] = None,
    repo: RepoPath = ".",
) -> None:
    """Have a released version as a folder, verified; hard links into DVC's cache, so that nothing is stored twice.

    Examples: `cinefab pull phantom@v1`, `cinefab pull phantom@v1 --repo https://example.org/factory.git --out phantom`
    """
    from tasks.pull import pull as pull_version

    typer.echo(pull_version(version, out or Layout(DATA).releases / version.replace("@", "-"), repo))


@app.command(rich_help_panel=released)
def diff(
    old: Annotated[str, typer.Argument(help="NAME@vN")],
    new: Annotated[str, typer.Argument(help="NAME@vM")],
    out: Annotated[Path | None, typer.Option(help="a table of every clip that changed: .parquet")] = None,
    repo: RepoPath = ".",
) -> None:
    """Clips added and dropped from one released version to another, why, and the metrics of both.

    Example: `cinefab diff phantom@v1 phantom@v2`
    """
    from tasks.tables import write_table
    from tasks.version_diff import ClipChange
    from tasks.version_diff import diff as compare

    found = compare(old, new, repo)
    if out is not None:
        write_table(out, found.changes, ClipChange)
    typer.echo(found.text())


@app.command(rich_help_panel=released)
def export(
    release: Annotated[str, typer.Argument(help="a release's folder, or NAME@vN, as `cinefab list` has it")],
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="mp4, nifti, dicom, webdataset or huggingface")],
    out: Annotated[Path | None, typer.Option(help="the folder to make; default data/exports/NAME-VERSION-FORMAT")] = None,
    repo: RepoPath = ".",
) -> None:
    """Write a release as other tools open it, with its card, citation, Croissant description and checksums.

    - **mp4**: films that any player shows (with loss, which is measured), masks without loss
    - **nifti**: frames and label maps as .nii.gz
    - **dicom**: multi-frame DICOM that says it is synthetic, masks as DICOM SEG
    - **webdataset**: tar shards for training loops (extra `export`)
    - **huggingface**: a folder that `datasets.load_dataset` opens (extra `export`)

    Stop it with Ctrl-C whenever you like; the same command goes on. Done again, it compares every checksum.

    Examples: `cinefab export data/release mp4`, `cinefab export phantom@v1 dicom --out phantom-dicom`
    """
    from tasks.export import export as export_release
    from tasks.export import folder_name
    from tasks.open_release import open_release

    opened = open_release(release, repo)
    typer.echo(export_release(opened, form, out or Layout(DATA).exports / folder_name(opened, form)))


@app.command()
def resample(
    clip_id: str,
    out: Annotated[Path | None, typer.Option(help="picture to write; default CLIP_ID.webp")] = None,
    data: DataPath = DATA,
) -> None:
    """Make one released or sampled clip again from its provenance and say whether the pixels are the same.

    Example: `cinefab resample 0a1b…`
    """
    from tasks.devices import first_device
    from tasks.pictures import clip_picture
    from tasks.sample import find_provenance
    from tasks.sample import resample as resample_clip

    layout = Layout(data)
    record = find_provenance(clip_id, [layout.release, *sorted(layout.clips.glob("*"))])
    arrays, same = resample_clip(record, layout.checkpoint(record.generator), layout.conditions, first_device())
    path = clip_picture(arrays, out or Path(f"{clip_id}.webp"))
    typer.echo(f"{path}: {'the same pixels' if same else 'OTHER pixels than recorded'} (digest {record.digest})")
    raise typer.Exit(0 if same else 1)


@app.command()
def animate(
    image: Annotated[Path, typer.Argument(help="any picture")],
    checkpoint: Annotated[Path, typer.Option(help="a trained generator of kind lddm or cinn")],
    out: Annotated[Path, typer.Option(help="video to write: .mp4, .mov or .mkv")] = Path("clip.mp4"),
    seeds: Annotated[int, typer.Option(min=1, help="so many motions, side by side")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="of diffusion, default 20; cinn has none")] = None,
) -> None:
    """Make a clip out of one picture of your own.

    Examples: `cinefab animate lesion.png --checkpoint data/checkpoints/lddm --out clip.mp4`,
    `cinefab animate lesion.png --checkpoint data/checkpoints/lddm --seeds 4 --out motions.mp4`
    """
    from tasks.animate import animate as animate_image

    film = animate_image(image, checkpoint, out, range(seeds), {} if steps is None else {"steps": steps})
    typer.echo(f"{out}: {len(film)} frames, {seeds} motion{'s' if seeds > 1 else ''} of {image.name}")


def main() -> None:
    """Run the command line; a wrong parameter ends as one clear line, not as a traceback.

    SIGTERM ends it like an exit, so that what it started ends with it and its runs are told to the server.
    """
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    terminal = logging.StreamHandler()
    terminal.addFilter(lambda line: line.name != "models.trainer" or "TQDM_DISABLE" in os.environ)  # bars say it
    for floor in ("tasks", "models"):  # ours only: Prefect's own lines are in its UI
        logging.getLogger(floor).setLevel(logging.INFO)
        logging.getLogger(floor).addHandler(terminal)
    try:
        app()
    except (ValueError, OSError) as error:
        sys.exit(f"cinefab: {error}")


if __name__ == "__main__":
    main()

"""`lethe model`: add, list, show, preview, versions, lineage; and `lethe pull`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn
from rich.table import Table

from lethe.command_line.datasets import registered
from lethe.command_line.following import settled
from lethe.command_line.options import AsJson, Follow, Limit, Output, Timeout, Wait
from lethe.command_line.screen import Screen, counted, details, table, word
from lethe.command_line.session import connect
from lethe.schemas.models import (
    Accuracy,
    Channels,
    Model,
    PythonArchitecture,
    Retraining,
    TransformersArchitecture,
)
from lethe.schemas.near_duplicates import NearDuplicates
from lethe.schemas.versions import Version

app = typer.Typer(no_args_is_help=True, help="Neural networks, and their versions.")

Name = Annotated[str, typer.Argument(help="Name of the model.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add `lethe pull` to the command line."""
    app.command()(pull)


@app.command()
def add(
    context: typer.Context,
    name: Name,
    weights: Annotated[
        str,
        typer.Argument(
            help="A .safetensors file, where the service may read: file:///… (for Transformers its "
            "directory).",
            show_default=False,
        ),
    ],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="What it was trained on.")],
    head: Annotated[
        str, typer.Option(help="Module whose input are the features: the classification head.")
    ],
    factory: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="Builds the network; one that is allowed."),
    ] = None,
    argument: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=JSON", help="Argument of the factory; may be repeated."),
    ] = None,
    transformers: Annotated[
        bool, typer.Option("--transformers", help="config.json beside the weights describes it.")
    ] = False,
    resize: Annotated[
        str | None, typer.Option(metavar="224,224", help="Height and width of the inputs.")
    ] = None,
    mode: Annotated[Channels | None, typer.Option(help="Colour, or grey.")] = None,
    scale: Annotated[float | None, typer.Option(help="Factor before mean and std.")] = None,
    mean: Annotated[
        str | None, typer.Option(metavar="0.5,0.5,0.5", help="One number, or one per channel.")
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="0.5,0.5,0.5", help="One number, or one per channel.")
    ] = None,
    preprocessing: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=JSON",
            help="Any other part of it, as in crop=[224,224], interpolation=bicubic or "
            "orientation=exif.",
        ),
    ] = None,
    ignore_files_beside: Annotated[
        bool,
        typer.Option(
            "--ignore-files-beside",
            help="The files beside the weights describe other preprocessing than that of the "
            "training.",
        ),
    ] = False,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="Name of an output; repeated, in the order of the outputs."),
    ] = None,
    map_classes: Annotated[
        bool,
        typer.Option("--map-classes", help="Translate labels where the dataset has another order."),
    ] = False,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="Trains the network again, if it must be."),
    ] = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=JSON",
            help="With the recipe worker.recipes:head: weights, source, trained_on_dataset=false "
            "and l2.",
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=JSON", help="As in reference_models=8 or drift.max_accuracy_drop=0.1."
        ),
    ] = None,
    expect_train: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Accuracy on the training samples, as you measured it."),
    ] = None,
    expect_holdout: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Accuracy on the hold-out, as you measured it."),
    ] = None,
    accept_accuracy: Annotated[
        bool,
        typer.Option("--accept-accuracy", help="Even if it answers as no trained network does."),
    ] = False,
    wait: Wait = False,
    follow: Follow = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Register a trained classifier. A job examines it; sending the same again is harmless."""
    screen = Screen(as_json)
    if (factory is None) != transformers:
        raise typer.BadParameter("Say what the network is: one of --factory and --transformers.")
    chosen = {
        "resize": _numbers(resize),
        "mode": mode,
        "scale": scale,
        "mean": _numbers(mean),
        "std": _numbers(std),
    }
    with connect(context) as lethe:
        made = lethe.register_model(
            name,
            dataset=dataset,
            weights=weights,
            architecture=TransformersArchitecture()
            if factory is None
            else PythonArchitecture(factory=factory, arguments=_settings(argument)),
            head=head,
            preprocessing=_settings(preprocessing)
            | {key: value for key, value in chosen.items() if value is not None},
            preprocessing_source="declared" if ignore_files_beside else None,
            classes=classes or None,
            map_classes=map_classes or None,
            recipe=recipe,
            backbone=_settings(backbone) or None,
            policy=_settings(policy) or None,
            expected_accuracy=_given(train=expect_train, holdout=expect_holdout),
            accept_accuracy=accept_accuracy or None,
        )
        if wait or follow:
            made = settled(lethe, made, screen, timeout=timeout, watched=follow)
    screen.show(made, _picture(made))
    raise typer.Exit(registered(made.status))


@app.command("list")
def show_all(context: typer.Context, limit: Limit = 50, as_json: AsJson = False) -> None:
    """List models, the newest first."""
    with connect(context) as lethe:
        found = list(islice(lethe.list_models(), limit))
    columns = ("Model", "Status", "Dataset", "Champion", "Registered")
    rows = (
        (
            model.name,
            word(model.status),
            model.dataset,
            model.champion and model.champion.number,
            model.created_at,
        )
        for model in found
    )
    Screen(as_json).show(found, table(columns, rows))


@app.command()
def show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show one model, and the version to serve."""
    with connect(context) as lethe:
        read = lethe.read_model(name)
    Screen(as_json).show(read, _picture(read))


@app.command()
def preview(
    context: typer.Context, name: Name, output: Output = None, as_json: AsJson = False
) -> None:
    """Look at ten samples as the champion's network gets them. The audit trail notes it.

    With --output, a picture of them, for models that take images.
    """
    screen = Screen(as_json)
    with connect(context) as lethe:
        if output is not None:
            output.write_bytes(lethe.read_preview_picture(name))
            screen.show({"file": str(output), "model": name}, f"The picture is in {output}.")
            return
        seen = lethe.read_preview(name)
    columns = ("Label", "Answer", "Confidence", "Smallest", "Largest", "Mean")
    rows = (
        (one.label, one.answer, one.confidence, one.smallest, one.largest, one.mean)
        for one in seen.samples
    )
    screen.show(seen, table(columns, rows))


@app.command()
def versions(
    context: typer.Context, name: Name, limit: Limit = 50, as_json: AsJson = False
) -> None:
    """List the versions of a model, the newest first."""
    with connect(context) as lethe:
        found = list(islice(lethe.list_versions(name), limit))
    columns = ("Version", "Status", "Mode", "From", "SHA-256", "Made", "Purged")
    rows = (
        (
            one.number,
            word(one.status),
            one.mode,
            one.parent,
            one.weights_sha256,
            one.created_at,
            one.purged_at,
        )
        for one in found
    )
    Screen(as_json).show(found, table(columns, rows))


@app.command()
def lineage(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show everything that was made from a model's data, and what forgotten samples it holds."""
    with connect(context) as lethe:
        pages = list(lethe.read_lineage(name))
    items = [item for page in pages for item in page.items]
    jobs = {job.job_id: job for page in pages for job in page.jobs}
    columns = ("What", "Version", "Name", "Holds samples of", "To be deleted", "Deleted")
    rows = (
        (
            item.kind,
            item.version,
            item.name,
            counted(len(item.tainted_by), "job") if item.tainted_by else "none",
            item.purge_after,
            item.purged_at,
        )
        for item in items
    )
    data = {"model": name, "items": items, "jobs": list(jobs.values())}
    Screen(as_json).show(data, table(columns, rows))


def pull(
    context: typer.Context,
    name: Name,
    version: Annotated[
        int | None, typer.Option(min=1, help="The champion unless given.", show_default=False)
    ] = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Download the weights of a model that may be served, and check their digest."""
    screen = Screen(as_json)
    place = output or Path(f"{name}.safetensors")
    with connect(context) as lethe, _download(screen) as told:
        pulled = lethe.weights(name, place, version=version, on_progress=told)
    screen.show(
        {"file": str(place), "model": name, **pulled.model_dump()},
        f"Version {pulled.number} of {name} is in {place}, with the SHA-256 that the service "
        f"names:\n{pulled.weights_sha256}",
    )


@contextmanager
def _download(screen: Screen) -> Iterator[Any]:
    """A bar that shows how much has arrived, on a terminal."""
    if not screen.err.is_terminal:
        yield None
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=screen.err, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda received, total: progress.update(task, completed=received, total=total)


def _picture(model: Model) -> Table:
    drift = model.drift
    return details(
        [
            ("model", model.name),
            ("status", word(model.status)),
            ("failure", model.failure),
            ("warning", model.warning),
            ("dataset", model.dataset),
            ("weights", model.weights),
            ("architecture", model.architecture),
            ("head", model.head),
            ("preprocessing", model.preprocessing_source),
            ("classes", model.classes and ", ".join(model.classes)),
            ("recipe", model.recipe),
            ("backbone", model.backbone and model.backbone.source),
            ("accuracy", model.accuracy and _accuracy(model.accuracy)),
            ("remark", model.accuracy and model.accuracy.remark),
            ("policy", model.policy),
            ("registered", model.created_at),
            ("ready", model.ready_at),
            ("job", model.job_id),
            ("champion", model.champion and _version(model.champion)),
            ("forgotten since training", drift and f"{drift.forgotten_share:.1%} of the samples"),
            ("advice", "Retrain it: it drifted too far." if drift and drift.exceeded else None),
            ("reference models", model.references and word(model.references.status)),
            *(("retraining", _retraining(each)) for each in model.retraining),
            ("near-duplicates", model.near_duplicates and _alike(model.near_duplicates)),
        ]
    )


def _retraining(time: Retraining) -> str:
    passes = f", for {time.passes:g} passes over the data" if time.passes else ""
    assumed = ", which are assumed" if time.assumed else ""
    took = f"about {time.retraining_seconds:.3g} seconds on {time.device}"
    measured = time.measured.replace("_", " ")
    return f"{took}, judged by {measured}{passes}{assumed}"


def _alike(found: NearDuplicates) -> str:
    if found.left_out is not None and not found.samples:
        return found.left_out
    if not found.samples:
        return f"none among {found.training_samples:,} training samples"
    return (
        f"{found.samples:,} of {found.training_samples:,} training samples have one, in "
        f"{found.groups:,} groups, the largest of {found.largest:,}; "
        f"{found.groups_in_holdout:,} of these are also in the hold-out; "
        f"{'' if found.used else 'not '}used as groups"
    )


def _accuracy(measured: Accuracy) -> str:
    parts = {"training samples": measured.train, "hold-out": measured.holdout}
    return ", ".join(f"{share:.3f} on {of}" for of, share in parts.items() if share is not None)


def _given(**values: float | None) -> dict[str, object] | None:
    """Those that are set; None if none is."""
    return {name: value for name, value in values.items() if value is not None} or None


def _version(version: Version) -> str:
    return f"version {version.number} ({version.mode}), SHA-256 {version.weights_sha256}"


def _numbers(given: str | None) -> list[float] | None:
    if given is None:
        return None
    try:
        values = [float(part) for part in given.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{given!r}: numbers with commas between, as in 0.5,0.5") from None
    return [int(value) if value.is_integer() else value for value in values]


def _settings(given: list[str] | None) -> dict[str, Any]:
    """`a.b=1` as `{"a": {"b": 1}}`. What is not JSON is text."""
    settings: dict[str, Any] = {}
    for pair in given or []:
        name, separator, value = pair.partition("=")
        if not separator:
            raise typer.BadParameter(f"{pair!r}: give a name and a value, as in name=1.")
        *parents, last = name.split(".")
        part = settings
        for parent in parents:
            part = part.setdefault(parent, {})
        try:
            part[last] = json.loads(value)
        except ValueError:
            part[last] = value
    return settings

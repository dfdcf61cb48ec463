"""The commands ``minigen trace gan`` and ``minigen trace vae``: training steps watched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from minigen.cli.application import Command, command, trace_group
from minigen.cli.options import DATA, DataName, LabelsName, option
from minigen.errors import ArgumentError

TRACE = "Trace"


@dataclass(frozen=True, kw_only=True)
class TraceOptions:
    """What a trace is told beside the hyper-parameters of its model."""

    data: DataName = None
    labels: LabelsName = None
    model: Annotated[
        Path | None,
        option(
            DATA, "MODEL", "Trace the next step of this model, as --resume would go on. Default: a new one's first."
        ),
    ] = None
    steps: Annotated[int, option(TRACE, "INT", "How many steps. Default: 1.")] = 1
    tiny: Annotated[
        bool,
        typer.Option(
            "--tiny",
            help="A network small enough to follow by hand, of 2-3-2 units, on two of four rows of two numbers; with "
            "--hidden 1 of 1-1-1 units, on rows of one number.",
            rich_help_panel=TRACE,
        ),
    ] = False
    values: Annotated[
        bool, typer.Option("--values", help="Print the numbers of every array, not its norm.", rich_help_panel=TRACE)
    ] = False
    mermaid: Annotated[
        bool,
        typer.Option(
            "--mermaid",
            help="Print the step as a graph, which GitHub draws in a block of mermaid, and nothing else.",
            rich_help_panel=TRACE,
        ),
    ] = False
    csv: Annotated[
        Path | None,
        option(
            TRACE,
            "FILE",
            "Do not print the calls: write the sizes of gradients and updates by step and layer into this .csv file, "
            "and their picture into the .png file beside it.",
        ),
    ] = None


class TraceCommand(Command):
    """A trace of the model that the function of the command returns; its options are made when they are needed."""

    def get_params(self, ctx: Any) -> Any:
        if not self.params:
            made = trace_of(self.callback())  # type: ignore[misc]
            self.params, self.callback = made.params, made.callback
        return super().get_params(ctx)


def trace_of(family: Any) -> Any:
    """The command that traces models of ``family``."""
    from minigen.cli.settings import command_of

    return command_of(family, TraceOptions, trace)


def trace(family: Any, options: TraceOptions, settings: dict[str, Any]) -> None:
    """Trace steps of a model of ``family`` and print what there is to see."""
    from minigen import checks
    from minigen.tracing import explain
    from minigen.tracing import run as tracing

    checks.integer("steps", options.steps, 1)
    if options.csv is not None:
        if options.mermaid or options.values:
            raise ArgumentError("csv", "writes norms, no graph and no values: give it without --mermaid and --values")
        checks.choice("the ending of csv", options.csv.suffix.lower(), (".csv",))
    model, items, labels = _subject(family, options, settings)
    if options.csv is not None:
        flow = tracing.gradient_flow(model, items, labels, steps=options.steps)
        _write(flow, options.csv)
        findings = explain.of_last(flow.steps)
    else:
        traced = tracing.trace(model, items, labels, steps=options.steps)
        if options.mermaid:
            print(traced.mermaid(), end="")
            return
        print(traced.text(values=options.values))
        for name, losses in traced.losses.items():
            print(f"{name}: {', '.join(f'{loss:.6g}' for loss in losses)}")
        findings = traced.explain()
    print("", *findings, sep="\n")


def _write(flow: Any, path: Path) -> None:
    flow.to_csv(path)
    picture = path.with_suffix(".png")
    try:
        flow.plot(picture)
        print(f"results: {path}, {picture}")
    except ImportError as error:
        print(f"results: {path}; {picture} is not drawn: {error}")


def _subject(family: Any, options: TraceOptions, settings: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The model to trace, its data, and their labels or None."""
    from minigen import load
    from minigen.cli.saved import model_file, require_kind, source_of, with_labels

    if options.model is not None:
        if settings or options.tiny:
            name = "tiny" if options.tiny else next(iter(settings))
            raise ValueError(
                f"--{name.replace('_', '-')} cannot be given with --model: the model has settings of its own"
            )
        model = load(model_file(options.model), "numpy")
        require_kind(model, family.kind, options.model)
        data = source_of(model) if options.data is None else options.data
        return model, *with_labels(data, options.labels or model.labels_source_)
    if not options.tiny:
        return family(**settings), *with_labels(options.data or "mnist-sample", options.labels)
    if options.data is not None or options.labels is not None:
        raise ValueError("--tiny cannot be given with --data or --labels: it brings its own rows")
    columns = 1 if settings.get("hidden") == (1,) else 2
    narrow = columns if family.kind == "gan" else 1
    return family(**{"hidden": (3,), "latent_dim": narrow, "batch_size": 2, **settings}), _rows(columns), None


def _rows(columns: int) -> Any:
    import numpy as np

    return np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.1, 0.6]], np.float32)[:, :columns].copy()


@command(trace_group, TraceCommand)
def gan() -> Any:
    """Run a training step of a GAN on the reference and show every operation of it.

    For each call: its formula, what it reads and writes with shapes and norms, the line that makes it and the file that
    derives it. At the end: which player is winning, whether gradients vanish or explode, which units are saturated. All
    options of minigen train gan choose the model.

    Examples:

      minigen trace gan --tiny --values

      minigen trace gan --mermaid --r1 1

      minigen trace gan --csv flow.csv --steps 50
    """
    from minigen import GAN

    return GAN


@command(trace_group, TraceCommand)
def vae() -> Any:
    """Run a training step of a VAE on the reference and show every operation of it.

    For each call: its formula, what it reads and writes with shapes and norms, the line that makes it and the file that
    derives it. At the end: how many latents are in use, whether gradients vanish or explode, which units are saturated.
    All options of minigen train vae choose the model.

    Examples:

      minigen trace vae --tiny --values

      minigen trace vae --model runs/vae
    """
    from minigen import VAE

    return VAE

"""Several trainings in one command, ``--seeds`` and ``--grid``: what varies, the folders, a table and pictures."""

from __future__ import annotations

import csv
import io
import itertools
import re
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from minigen.cli import training
from minigen.cli.exits import code_of_signal
from minigen.cli.options import TrainingOptions
from minigen.cli.reporting import Reporter
from minigen.cli.saved import with_labels
from minigen.cli.validation import apart, leaves_out

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minigen.training.loop import EpochEnd

TABLE = "runs.csv"
SHOWN = 10  # samples of each model in the picture of all
MOST_RUNS = 10_000

Variant = dict[str, tuple[str, Any]]
"""Of each setting that varies, what the user wrote and the value."""


def train_many(family: Any, options: TrainingOptions, settings: dict[str, Any]) -> None:
    """Train a model of ``family`` for each combination of what varies, at once, each into its own folder."""
    from minigen.run_folder import free_folder

    variants = variants_of(family, options, settings)
    data = "mnist-sample" if options.data is None else options.data
    training.set_threads(options.threads, settings.get("device", "auto"))
    models = [
        family.preset(options.preset or "article", **settings, **{name: value for name, (_, value) in variant.items()})
        for variant in variants
    ]
    named = training.labels_named(models[0], options, settings)
    items, labels, how = apart(options, named, *with_labels(data, named))
    for model in models:  # no step yet: settings, device and data pass every check
        model.partial_fit(items, labels, epochs=0, progress=False, **how)
    folder = options.out or free_folder(Path("runs") / f"{family.kind}-many")
    if (folder / TABLE).exists() and not options.force:
        raise ValueError(f"--out: {folder} holds runs already; choose another folder, or --force to replace them")
    _Runs(folder, dict(zip(map(name_of, variants), models, strict=True)), variants, data, named, options).train(
        items, labels, how
    )


# --- what varies ----------------------------------------------------------------------------------------------------


def variants_of(family: Any, options: TrainingOptions, settings: dict[str, Any]) -> list[Variant]:
    """All combinations, in order: the first option varies slowest."""
    if options.resume is not None:
        raise ValueError("--resume cannot be given with --seeds or --grid: a training that goes on is one training")
    axes: dict[str, list[tuple[str, Any]]] = {}
    for text in options.grid or []:
        name, values = _axis(family, text)
        if name in axes:
            raise ValueError(f"--grid: {name} is given twice")
        axes[name] = values
    if options.seeds is not None:
        if "seed" in axes:
            raise ValueError("--seeds cannot be given with --grid seed=...: both say which seeds")
        axes["seed"] = [(str(seed), seed) for seed in seeds_of(options.seeds)]
    for name in axes:
        if name in settings:
            raise ValueError(f"--{name.replace('_', '-')} cannot be given with --seeds or --grid of the same setting")
    count = 1
    for values in axes.values():
        count *= len(values)
    if count > MOST_RUNS:
        raise ValueError(f"--grid and --seeds make {count} trainings, more than {MOST_RUNS}")
    return [dict(zip(axes, each, strict=True)) for each in itertools.product(*axes.values())]


def seeds_of(text: str) -> list[int]:
    """``0-9`` or ``1,5,7`` or both."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first or last - first >= MOST_RUNS:
            raise ValueError(f"--seeds must be such as 0-9 or 1,5,7, not {text!r}")
        found += range(first, last + 1)
    if len(set(found)) < len(found):
        raise ValueError(f"--seeds must be different ones, not {text!r}")
    return found


def _axis(family: Any, text: str) -> tuple[str, list[tuple[str, Any]]]:
    """``learning_rate=1e-4,2e-4``: the setting and its values, each beside what was written."""
    from minigen.cli.settings import parameters

    parsers = {parameter.name: parameter.annotation.__metadata__[0].parser for parameter in parameters(family)}
    name, equals, values = text.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    if not equals or not values:
        raise ValueError(f"--grid must be such as learning_rate=1e-4,2e-4, not {text!r}")
    if name not in parsers:
        raise ValueError(f"--grid: {name!r} is no setting of {family.__name__}; they are {', '.join(parsers)}")
    written = [value.strip() for value in values.split(";" if ";" in values else ",")]
    try:
        found = [(value, (parsers[name] or str)(value)) for value in written]
    except typer.BadParameter as error:
        raise ValueError(f"--grid {name}: {error.message}") from error
    if len(set(written)) < len(written):
        raise ValueError(f"--grid {name} has a value twice: {values}")
    return name, found


def name_of(variant: Variant) -> str:
    """The name of a run and its folder, such as ``learning_rate=1e-4_seed=3``."""
    fit_for_a_folder = {name: re.sub(r"[^\w.,+-]", "-", written) for name, (written, _) in variant.items()}
    return "_".join(f"{name}={written}" for name, written in fit_for_a_folder.items())


# --- the trainings --------------------------------------------------------------------------------------------------


class _Runs:
    """Trainings by their names, which are those of their folders in ``folder``."""

    def __init__(
        self,
        folder: Path,
        models: dict[str, Any],
        variants: list[Variant],
        data: str,
        named: str | None,
        options: TrainingOptions,
    ) -> None:
        self.folder, self.models, self.variants = folder, models, dict(zip(models, variants, strict=True))
        self.data, self.named, self.options = data, named, options
        self.say = training.print_nothing if options.quiet else training.print_line
        self.reporters: dict[str, Reporter] = {}
        self._said: set[str] = set()

    def train(self, items: Any, labels: Any, how: dict[str, Any]) -> None:
        """Train all and write the results. Raises ArithmeticError where some diverged, when the others' are written."""
        from minigen import fit_many
        from minigen.errors import SomeDiverged
        from minigen.estimators.many import listed
        from minigen.run_folder import reserve
        from minigen.training.signals import stop_request

        self.left_out = leaves_out(self.options, how)
        one = next(iter(self.models.values()))
        if not self.options.no_report:
            self.reporters = {
                name: Reporter(self.folder / name, items, labels, self._say_once, timed=False) for name in self.models
            }
        diverged: SomeDiverged | None = None
        with ExitStack() as locks:
            for name in self.models:
                place, force = self.folder / name, self.options.force
                locks.enter_context(reserve(one.kind, place, data=self.data, resume=None, force=force))
            self.say(f"{self.data}: {' x '.join(map(str, items.shape))}, {one.data_dtype_}")
            self.say(f"{len(self.models)} trainings on {one.device_} ({one.precision_}), into {self.folder}")
            progress = False if self.options.quiet else None
            try:
                models = list(self.models.values())
                fit_many(models, items, labels, callbacks=self._callbacks(), progress=progress, **how)
            except SomeDiverged as error:
                diverged = error
            with stop_request() as late:  # what a signal now interrupts is less than what it would lose
                for name, model in self.models.items():
                    self._name_sources(model)
                    if model.history_.steps:
                        training.write_run(
                            model, self.folder / name, items, labels, training.print_nothing, self.reporters.get(name)
                        )
                self._write_all()
        self._remove_empty()
        stopped_by = next((m.history_.stop_signal for m in self.models.values() if m.history_.stop_signal), late.number)
        if stopped_by:
            done = sum(model.history_.stop_reason == "finished" for model in self.models.values())
            print(f"minigen: interrupted: {done} of {len(self.models)} trainings are done", file=sys.stderr)
            raise typer.Exit(code_of_signal(stopped_by))
        if diverged:
            names = listed(name for name, model in self.models.items() if model.history_.stop_reason == "diverged")
            raise ArithmeticError(
                f"{len(diverged.errors)} of {len(self.models)} trainings diverged, the others are done and saved: "
                f"{names}. The first: {next(iter(diverged.errors.values()))}"
            )

    def _say_once(self, line: str) -> None:
        """What would be said of every run in the same words, such as that a package is missing."""
        if line not in self._said:
            self._said.add(line)
            self.say(line)

    def _name_sources(self, model: Any) -> None:
        model.source_, model.labels_source_, model.left_out_ = self.data, self.named, self.left_out

    def _callbacks(self) -> list[Callable[[EpochEnd], None]]:
        """What saves each model on the way, where that is asked for."""
        from minigen import checks

        every = checks.integer("sample_every", self.options.sample_every or 0, 0)
        if not every:
            return []
        watchers = {
            id(model): training.watcher(self.folder / name, every, self.say, self.reporters.get(name))
            for name, model in self.models.items()
        }

        def watch(end: EpochEnd) -> None:
            self._name_sources(end.model)
            watchers[id(end.model)](end)

        return [watch]

    def _remove_empty(self) -> None:
        """The folders of trainings that an interruption came before."""
        for name in self.models:
            if (place := self.folder / name).is_dir() and not any(place.iterdir()):
                place.rmdir()

    # --- of all -----------------------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        """A table and a picture of all runs."""
        from minigen import output, plotting
        from minigen.files import write_atomically

        rows = self._table()
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        write_atomically(self.folder / TABLE, text.getvalue().encode())
        self.say(aligned([[name_of_row, *(_short(value) for value in row)] for name_of_row, *row in rows]))
        names, trained = [TABLE], [model for model in self.models.values() if model.history_.steps]
        if trained and output.natural_suffix(trained[0]) == ".png":
            self._draw_samples(trained)
            names.append("samples.png")
        try:
            figure = plotting.loss_curves_of_many({name: model.history_ for name, model in self.models.items()})
            plotting.save_figure(figure, self.folder / "losses.png")
            names.append("losses.png")
        except (ImportError, ValueError) as error:
            self.say(f"losses.png is not drawn: {error}")
        self.say(f"results in {self.folder}: {', '.join(names)}, and a folder for each training")

    def _table(self) -> list[list[Any]]:
        """A header and a line a run: its folder, what varies, how it ended, and the last epoch's means."""
        histories = {name: model.history_ for name, model in self.models.items()}
        losses = list(dict.fromkeys(loss for history in histories.values() for loss in history.names))
        metrics = list(dict.fromkeys(metric for history in histories.values() for metric in _metrics(history)))
        rows: list[list[Any]] = [
            ["run", *next(iter(self.variants.values())), "ended", "epochs", "seconds", *losses, *metrics]
        ]
        for name, history in histories.items():
            last = (history.last_epoch() if history.epochs else {}) | _metrics(history)
            settings = [written for written, _ in self.variants[name].values()]
            ended = [history.stop_reason, history.epochs, f"{sum(history.seconds):.4g}"]
            rows.append([name, *settings, *ended, *(last.get(key, "") for key in (*losses, *metrics))])
        return rows

    def _draw_samples(self, trained: list[Any]) -> None:
        """A row of samples of each model, all of the same noise, in the order of the table."""
        import numpy as np

        from minigen import output

        samples = [np.asarray(model._grid(SHOWN, 0)[0])[:SHOWN] for model in trained]
        output.write_items(self.folder / "samples.png", trained[0], np.concatenate(samples), across=len(samples[0]))


def _metrics(history: Any) -> dict[str, float]:
    """What the last evaluation has found."""
    return {name: float(values[-1]) for name, values in history.metrics.items() if len(values)}


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [row[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(row[1:], widths[1:], strict=True))] for row in rows
    ]
    return "\n".join("  ".join(line).rstrip() for line in lines)

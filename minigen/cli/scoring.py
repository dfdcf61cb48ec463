"""The commands ``score`` and ``train anomalies``."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minigen.cli import tables
from minigen.cli.application import Command, app, command, train_group
from minigen.cli.options import DATA, RUN, DataName, Device, LabelsName, ModelFile, option
from minigen.cli.saved import DETECTOR, model_file, require_kind, source_of, with_labels
from minigen.errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np

SCORES = "scores.csv"


@command(app)
def score(
    model: ModelFile,
    data: DataName = None,
    labels: LabelsName = None,
    out: Annotated[Path | None, option(DATA, "FILE", "Where to, a .csv. Default: scores.csv.", "--out")] = None,
    samples: Annotated[
        int | None, option(RUN, "INT", "Draws of the latent for each row's score. Default: 64, or a detector's own.")
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Of a detector: a column of nats for each column of DATA.", rich_help_panel=DATA
        ),
    ] = False,
    device: Device = "auto",
) -> None:
    """Score rows by how usual they are: low scores are anomalies.

    Of a VAE, the estimated log p(x) of each row in nats. Of a detector of unusual rows, its own score, and whether the
    row counts as unusual; with --explain also by how many nats each column makes it so.

    Examples:

      minigen score runs/vae --data new.csv

      minigen score runs/anomalies --data new.csv --explain --out scores.csv
    """
    from minigen import load
    from minigen.run_folder import check_spares_data

    path = model_file(model)
    trained = load(path, device)
    source = source_of(trained) if data is None else data
    target = _target(out or Path(SCORES))
    check_spares_data(target, source)
    if trained.kind == DETECTOR:
        if samples is not None:
            trained.set_params(samples=samples)._check_params()
        if labels is not None:
            raise ArgumentError("labels", "is for conditional models, not for a detector of unusual rows")
        rows = write_scores(target, trained, rows_of(trained, source), explain)
    else:
        require_kind(trained, "vae", path)
        if explain:
            raise ArgumentError("explain", f"is for detectors of unusual rows, but {path} holds a vae")
        items, of_items = with_labels(source, trained.labels_source_ if labels is None else labels)
        found = trained.score_samples(items, of_items, **({} if samples is None else {"samples": samples}))
        rows = _write(target, {"score": found})
    print(f"{target}: scores of {rows} rows")


def _target(path: Path) -> Path:
    from minigen import checks

    checks.choice("the ending of --out", path.suffix.lower(), (".csv",))
    checks.writable_folder("--out", path.parent)
    return path


def rows_of(detector: Any, source: str) -> Any:
    """The rows that ``source`` names as ``detector`` takes them; of a table the columns that it was trained on."""
    from minigen.datasets.load import resolve
    from minigen.tables.reading import read_file

    names = getattr(detector, "feature_names_in_", None)
    if names is None:
        return resolve(source)
    frame = read_file(source)
    return frame[[name for name in names if name in frame.columns]]


def write_scores(path: Path, detector: Any, X: Any, explain: bool) -> int:
    """Write what ``detector`` says of the rows ``X``; how many there are."""
    found = detector.score_samples(X)
    columns: dict[str, Any] = {"score": found, "unusual": (found < detector.offset_).astype(int)}
    if explain:
        names = getattr(detector, "feature_names_in_", None)
        names = [f"x{d}" for d in range(detector.n_features_in_)] if names is None else names
        columns |= {f"nats of {name}": of_column for name, of_column in zip(names, detector.explain(X).T, strict=True)}
    return _write(path, columns)


def _write(path: Path, columns: dict[str, np.ndarray]) -> int:
    """A line of names and a line a row, which begins with the row's number from 0."""
    from minigen.files import write_atomically

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", *columns])
    rows = list(zip(*(values.tolist() for values in columns.values()), strict=True))
    writer.writerows([i, *(f"{value:.9g}" for value in row)] for i, row in enumerate(rows))
    write_atomically(path, text.getvalue().encode())
    return len(rows)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the training of a detector is told beside hyper-parameters."""

    data: Annotated[
        str | None,
        option(
            DATA,
            "NAME|FILE",
            "Rows most of which are usual: a table, .csv or .parquet, or what other trainings take as --data.",
            "--data",
            parser=str,
        ),
    ] = None
    types: tables.Types = None
    exclude: tables.Exclude = None
    out: Annotated[
        Path | None,
        option(DATA, "DIR", "Folder for the results. Default: runs/anomalies, with -2, ... if taken.", "--out"),
    ] = None
    force: tables.Force = False
    threads: tables.Threads = None
    quiet: tables.Quiet = False


class DetectorCommand(Command):
    """Its options are made when they are needed, as those of the other trainings are."""

    def get_params(self, ctx: Any) -> Any:
        if not self.params:
            from minigen import AnomalyDetector
            from minigen.cli.settings import command_of

            made = command_of(AnomalyDetector, Options, _train)
            self.params, self.callback = made.params, made.callback
        return super().get_params(ctx)


@command(train_group, DetectorCommand)
def anomalies() -> Any:
    """Train a detector of unusual rows, of numbers, categories, dates and missing values.

    Writes into DIR: model.safetensors, and scores.csv, the scores of the rows that it was trained on.

    Examples:

      minigen train anomalies --data usual.csv --exclude id --contamination 0.02

      minigen score runs/anomalies --data new.csv --explain
    """


def _train(family: Any, options: Options, settings: dict[str, Any]) -> None:
    from minigen.cli.training import set_threads
    from minigen.run_folder import reserve
    from minigen.training.checkpoint import MODEL

    if options.data is None:
        raise ArgumentError("data", "must be given: rows most of which are usual")
    detector = family(**settings)
    detector._check_params()
    set_threads(options.threads, settings.get("device", "auto"))
    X = _training_rows(options)
    with reserve("anomalies", options.out, data=options.data, resume=None, force=options.force) as folder:
        detector.fit(X, types=tables.types_of(options.types))
        detector.source_ = options.data
        detector.save(folder / MODEL)
        rows = write_scores(folder / SCORES, detector, X, explain=False)
    if not options.quiet:
        print(f"results in {folder}: {MODEL}, {SCORES} ({rows} rows)")
        print(f"next: minigen score {folder} --data FILE --explain")


def _training_rows(options: Options) -> Any:
    """Numbers as other trainings take them; a table with names as a DataFrame."""
    from minigen.datasets.frames import Table
    from minigen.datasets.load import resolve
    from minigen.tables.reading import read_file

    assert options.data is not None
    is_table = options.data.lower().endswith((".csv", ".csv.gz", ".parquet"))
    if is_table and options.types is None and options.exclude is None:
        try:
            found = resolve(options.data)
        except (ValueError, TypeError):  # there is more than numbers
            return read_file(options.data)
        return found if not isinstance(found, Table) or found.columns is None else read_file(options.data)
    if not is_table:
        for name in ("types", "exclude"):
            if getattr(options, name) is not None:
                raise ArgumentError(name, f"is for tables, .csv or .parquet, not for {options.data}")
        return resolve(options.data)
    return tables.without(read_file(options.data), options.exclude)

"""The command ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from minigen.cli import tables
from minigen.cli.application import app, command
from minigen.cli.options import DATA, RUN, DataName, Device, ModelFile, option
from minigen.cli.reporting import in_run
from minigen.cli.saved import model_file, require_samples, source_of, with_labels
from minigen.cli.validation import parted
from minigen.errors import ArgumentError

TEST_SETS = {"mnist": "mnist-test", "mnist-sample": "mnist-test", "fashion-mnist": "fashion-mnist-test"}


@command(app)
def evaluate(
    model: ModelFile,
    data: DataName = None,
    held_out: Annotated[
        str | None,
        option(
            DATA,
            "NAME|FILE",
            "Rows like the training data that the model has not seen; named as --data names them, and mnist-test, "
            "fashion-mnist-test. Default: the test set, where the training data have one, or every tenth row of the "
            "data, where the training left these out.",
            "--held-out",
        ),
    ] = None,
    n: Annotated[
        int | None,
        option(DATA, "INT", "Samples, and rows of each kind. Default: as many as are held out, at most 10000.", "-n"),
    ] = None,
    features: Annotated[
        str,
        option(
            DATA,
            "NAME",
            "What the metrics look at: none, the numbers of the items as they are; mnist or fashion-mnist, the "
            "features of a classifier of these pictures, which is trained at its first use and kept. Default: none.",
            "--features",
        ),
    ] = "none",
    out: Annotated[Path | None, option(DATA, "FILE", "Write the figures to this file, as JSON.", "--out")] = None,
    seed: Annotated[int, option(RUN, "INT", "Of samples and of the rows that are drawn. Default: 0.")] = 0,
    device: Device = "auto",
) -> None:
    """Measure how good samples are, beside what held-out real rows get.

    Of a VAE also the reconstruction error, the bound and the log likelihood of training rows and of held-out ones; of a
    conditional one where the labels are a data set's own or a column of the table. Where MODEL is in the folder of a
    run, its report.html is written anew with the figures.

    Examples:

      minigen evaluate runs/gan

      minigen evaluate runs/digits --features mnist

      minigen evaluate runs/table --data train.csv --held-out test.csv --out figures.json
    """
    from minigen import checks, load, metrics
    from minigen.files import write_atomically

    checks.choice("features", features, ("none", *metrics.CLASSIFIED))
    trained = load(model_file(model), device)
    require_samples(trained, model)
    if tables.is_table(trained):
        tables.evaluate(trained, data, held_out, n, seed, out)
        return
    source = source_of(trained) if data is None else data
    held_out = TEST_SETS.get(source) if held_out is None else held_out
    left_out = data is None and trained.left_out_
    if held_out is None and not left_out:
        raise ArgumentError(
            "held_out", f": name rows that the model was not trained on; {source} has no test set of its own"
        )
    (rows, new), labels = _rows_and_labels(trained, source, held_out, left_out)
    seen = None if features == "none" else metrics.digit_features(features, device=device)
    found = metrics.evaluate(trained, rows, new, labels=labels, features=seen, n=n, seed=seed)
    print(found)
    if out is not None:
        write_atomically(out, (found.to_json() + "\n").encode())
    if page := in_run(model_file(model), trained, rows, None if labels is None else labels[0], found):
        print(f"report: {page}")


def _rows_and_labels(
    trained: Any, source: str, held_out: str | None, left_out: bool
) -> tuple[tuple[Any, Any], tuple[Any, Any] | None]:
    """Training rows and held-out rows, and their labels where what named the training's can name both.

    Every tenth row of the data is no training row with ``left_out``, but held out unless others are.
    """
    from minigen.paths import user_path

    named = trained.labels_source_
    if named is not None and user_path(named).is_file():
        named = None
    rows, y = with_labels(source, named)
    new, y_new = (None, None) if held_out is None else with_labels(held_out, named)
    if left_out:
        (rows, y), apart = parted(rows, y)
        new, y_new = apart if held_out is None else (new, y_new)
    return (rows, new), None if y is None or trained.conditions_ is None else (y, y_new)

"""The command ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from minigen.cli.application import app, command
from minigen.cli.options import DATA, RUN, DataName, Device, ModelFile, option
from minigen.cli.saved import model_file, source_of
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
            "fashion-mnist-test. Default: the test set, where the training data have one.",
            "--held-out",
        ),
    ] = None,
    n: Annotated[
        int | None,
        option(DATA, "INT", "Samples, and rows of each kind. Default: as many as are held out, at most 10000.", "-n"),
    ] = None,
    out: Annotated[Path | None, option(DATA, "FILE", "Write the figures to this file, as JSON.", "--out")] = None,
    seed: Annotated[int, option(RUN, "INT", "Of samples and of the rows that are drawn. Default: 0.")] = 0,
    device: Device = "auto",
) -> None:
    """Measure how good samples are, beside what held-out real rows get.

    The Frechet distance and the others are taken on the numbers of the items as they are.

    Examples:

      minigen evaluate runs/gan

      minigen evaluate runs/table --data train.csv --held-out test.csv --out figures.json
    """
    from minigen import load, metrics
    from minigen.datasets.load import resolve
    from minigen.files import write_atomically

    trained = load(model_file(model), device)
    source = source_of(trained) if data is None else data
    held_out = TEST_SETS.get(source) if held_out is None else held_out
    if held_out is None:
        raise ArgumentError(
            "held_out", f": name rows that the model was not trained on; {source} has no test set of its own"
        )
    found = metrics.evaluate(trained, resolve(source), resolve(held_out), n=n, seed=seed)
    print(found)
    if out is not None:
        write_atomically(out, (found.to_json() + "\n").encode())

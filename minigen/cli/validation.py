"""The rows that a training is evaluated on: named by --validation, or every tenth row of the data, left out."""

from __future__ import annotations

from typing import Any

from minigen.cli.options import TrainingOptions
from minigen.cli.saved import with_labels

ONE_IN = 10


def apart(options: TrainingOptions, named: str | None, items: Any, labels: Any) -> tuple[Any, Any, dict[str, Any]]:
    """What is trained on, its labels, and how ``fit`` is told of evaluations; ``named`` is what --labels says."""
    given = {
        "evaluate_every": options.evaluate_every,
        "metrics": options.metrics,
        "patience": options.patience,
        "restore_best": options.restore_best or None,
    }
    how = {name: value for name, value in given.items() if value is not None}
    if options.validation is None and not how:
        return items, labels, {}
    if options.validation is not None:
        new, y = _named(options.validation, named, labels)
    else:
        (items, labels), (new, y) = parted(items, labels)
    return items, labels, {**how, "validation": new if y is None else (new, y)}


def leaves_out(options: TrainingOptions, how: dict[str, Any]) -> bool:
    """Whether :func:`apart`, which has told ``how``, has left every tenth row out of the data."""
    return bool(how) and options.validation is None


def _named(validation: str, named: str | None, labels: Any) -> tuple[Any, Any]:
    from minigen.paths import user_path

    if labels is None or named is None:
        return with_labels(validation, None)
    if user_path(named).is_file():
        raise ValueError("--validation needs labels that it can name: --labels own, or a column of both tables")
    return with_labels(validation, named)


def parted(items: Any, labels: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """The data without every tenth row, and these rows; both keep the names of a table's columns."""
    import numpy as np

    from minigen.datasets.frames import Table

    values = np.asarray(items)
    if len(values) < 2 * ONE_IN:
        raise ValueError(f"--validation is needed for data of {len(values)} rows: name rows that are not trained on")
    left_out = np.arange(len(values)) % ONE_IN == ONE_IN - 1

    def part(mask: np.ndarray) -> tuple[Any, Any]:
        rows = Table(values[mask], items.columns) if isinstance(items, Table) else values[mask]
        return rows, None if labels is None else np.asarray(labels)[mask]

    return part(~left_out), part(left_out)

"""A saved model and its data, as commands name them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigen.errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np

DETECTOR = "anomaly-detector"


def model_file(path: Path) -> Path:
    """The model at ``path``, a file or the folder of a run. Raises ``ValueError`` if there is none."""
    from minigen.training import checkpoint

    file = checkpoint.model_file(path)
    if not file.is_file():
        raise ArgumentError("MODEL", f": there is no model at {file}")
    return file


def require_kind(model: Any, kind: str, path: Path) -> None:
    if model.kind != kind:
        raise ArgumentError("MODEL", f"must be a {kind}, but {path} holds a {model.kind}")


def require_samples(model: Any, path: Path) -> None:
    if model.kind == DETECTOR:
        raise ArgumentError("MODEL", f"must be a model that draws samples, but {path} holds a detector: minigen score")


def source_of(model: Any) -> str:
    """The data that ``model`` was trained on, as --data named them."""
    if model.source_ is None:
        raise ValueError("--data is needed: the model was trained in Python, so its file names no data")
    return model.source_


def some_items(data: Any, n: int) -> np.ndarray:
    """At most ``n`` items, evenly spread over ``data``."""
    from minigen.datasets.load import as_rows
    from minigen.output import spread

    rows, item_shape = as_rows(data, min_rows=1)
    return rows[spread(n, len(rows))].reshape(-1, *item_shape)


def with_labels(source: str, labels: str | None) -> tuple[Any, Any]:
    """The data that --data names, and the labels that --labels names, or None."""
    from minigen.datasets.labels import resolve_labelled
    from minigen.datasets.load import resolve

    return (resolve(source), None) if labels is None else resolve_labelled(source, labels)


def some_labelled(items: Any, labels: Any, n: int) -> tuple[Any, Any]:
    """:func:`some_items` and their labels."""
    from minigen.output import spread

    return some_items(items, n), None if labels is None else labels[spread(n, len(labels))]


def parameter_count(model: Any) -> int:
    return sum(net.parameter_count for net in model.networks_)


def training_summary(history: Any, planned: int) -> list[tuple[str, Any]]:
    """What ``minigen info`` says of a training."""
    seconds = f"{sum(history.seconds):.1f} s in steps"
    rows: list[tuple[str, Any]] = [("epochs", f"{history.epochs} of {planned}, {history.steps} steps, {seconds}")]
    if history.stop_reason == "interrupted":
        rows.append(("stopped", "interrupted"))
    for name, means in zip(history.names, history.epoch_means().T, strict=True):
        rows += [(name, f"{means[0]:.4g} in the first epoch, {means[-1]:.4g} in the last")] if len(means) else []
    return rows


def print_table(title: str, rows: Iterable[tuple[str, Any]]) -> None:
    """Names and values below a title."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    print(title)
    for name, value in rows:
        print(f"  {name:{width}}  {value}")

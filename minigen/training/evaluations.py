"""What was measured in the course of a training: metrics at the end of some epochs, beside those of real rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigen import checks
from minigen.errors import ArgumentError, ArgumentTypeError


class Evaluations:
    """Metrics by name, one value for each of ``epochs``, at whose end they were measured.

    ``real`` are those of real rows in the samples' place, where there is such a figure. ``best_epoch`` is the epoch
    whose first metric was the best of the last training that was evaluated.
    """

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.real: dict[str, float] = {}
        self.best_epoch: int | None = None
        self._values: dict[str, list[float]] = {}

    def add(self, epoch: int, values: dict[str, float]) -> None:
        """Append the metrics of an epoch. What an epoch has no value of is NaN there."""
        for name in values:
            self._values.setdefault(name, [math.nan] * len(self.epochs))
        for name, of_name in self._values.items():
            of_name.append(float(values.get(name, math.nan)))
        self.epochs.append(epoch)

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """``float64[len(epochs)]`` by name."""
        return {name: np.array(values) for name, values in self._values.items()}

    def at(self, epoch: int) -> dict[str, float]:
        """The metrics of an epoch by name; none where it was not evaluated."""
        if epoch not in self.epochs:
            return {}
        place = self.epochs.index(epoch)
        return {name: values[place] for name, values in self._values.items()}

    def to_file(self) -> dict[str, Any]:
        """For JSON, which has no NaN: null stands for what is not finite."""
        return {
            "epochs": self.epochs,
            "values": {name: [_or_none(value) for value in values] for name, values in self._values.items()},
            "real": {name: _or_none(value) for name, value in self.real.items()},
            "best_epoch": self.best_epoch,
        }

    @classmethod
    def from_file(cls, saved: dict[str, Any] | None) -> Evaluations:
        """What :meth:`to_file` gave, or older files' None."""
        made = cls()
        for i, epoch in enumerate(saved["epochs"] if saved else []):
            made.add(epoch, {name: _or_nan(values[i]) for name, values in saved["values"].items()})  # type: ignore[index]
        if saved:
            made.real = {name: _or_nan(value) for name, value in saved["real"].items()}
            made.best_epoch = saved["best_epoch"]
        return made


def check_file(name: str, saved: Any) -> None:
    """Raise unless ``saved`` can be what :meth:`Evaluations.to_file` gave."""
    if not isinstance(saved, dict) or set(saved) != {"epochs", "values", "real", "best_epoch"}:
        raise ArgumentTypeError(name, f"must be an object of epochs, values, real and best_epoch, not {saved!r}")
    if not isinstance(saved["epochs"], list):
        raise ArgumentTypeError(f"{name}.epochs", "must be a list")
    for epoch in saved["epochs"]:
        checks.integer(f"{name}.epochs", epoch, 1)
    if sorted(set(saved["epochs"])) != saved["epochs"]:
        raise ArgumentError(f"{name}.epochs", "must rise")
    if saved["best_epoch"] is not None:
        checks.integer(f"{name}.best_epoch", saved["best_epoch"], 1)
    for part in ("values", "real"):
        if not isinstance(saved[part], dict):
            raise ArgumentTypeError(f"{name}.{part}", "must be an object")
    for metric, values in saved["values"].items():
        if not isinstance(values, list) or len(values) != len(saved["epochs"]):
            raise ArgumentError(f"{name}.values.{metric}", "must have a value for each of the epochs")
    for value in [*saved["real"].values(), *(value for values in saved["values"].values() for value in values)]:
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise ArgumentTypeError(name, f"must hold numbers or nulls, not {value!r}")


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)

"""The file of a table's model: settings and columns as JSON, and the model inside, as it would be saved alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from minigen.estimators.saving import content, tuples
from minigen.tables.columns import Column
from minigen.tables.rejection import Rejection
from minigen.tables.schema import Schema, check_condition
from minigen.training import checkpoint
from minigen.training.checkpoint import Tensors

CALIBRATIONS = ("calibration", "recalibration")
OWN = "table."  # what names of tensors that are not of the model inside begin with
Restore = Callable[[dict[str, Any], Tensors], Any]


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Write ``model``, a fitted TableVAE or TableGAN."""
    inner, tensors = (None, {}) if model.model_ is None else content(model.model_)
    columns = []
    for i, column in enumerate(model.schema_.columns):
        said, arrays = column.to_file()
        columns.append(said)
        tensors.update({f"{OWN}{i}.{name}": np.asarray(value, np.float64) for name, value in arrays.items()})
        for name in CALIBRATIONS:
            if column.name in (known := getattr(model, f"{name}_")):
                tensors[f"{OWN}{i}.{name}"] = known[column.name]
    if model.rejection_ is not None:
        tensors.update({f"{OWN}rejection.{name}": value for name, value in model.rejection_.tensors().items()})
    settings = {
        "model": model.kind,
        "params": model.get_params(),
        "library": model.schema_.library,
        "columns": columns,
        "condition": model.condition_,
        "source": model.source_,
        "inner": None if inner is None else json.loads(inner),
    }
    checkpoint.write(path, json.dumps(settings), tensors)


def restored(kind: type, settings: dict[str, Any], tensors: Tensors, restore: Restore) -> Any:
    """The model of class ``kind`` that a file tells of; ``restore`` makes the one inside.

    Raises KeyError, TypeError or ValueError for what cannot be.
    """
    model: Any = kind(**tuples(settings["params"]))
    model._check_params()
    columns: list[Column] = []
    model.calibration_, model.recalibration_, model.source_ = {}, {}, settings["source"]
    for i, said in enumerate(settings["columns"]):
        arrays = _below(f"{OWN}{i}.", tensors)
        columns.append(Column.from_file(said, arrays))
        for name in CALIBRATIONS:
            if name in arrays:
                getattr(model, f"{name}_")[columns[-1].name] = _ascending(arrays[name])
    model.schema_ = Schema(str(settings["library"]), tuple(columns))
    model.condition_ = check_condition(model.schema_, settings["condition"])
    model.rejection_ = Rejection.from_tensors(_below(f"{OWN}rejection.", tensors), len(columns))
    others = {name: value for name, value in tensors.items() if not name.startswith(OWN)}
    inner = settings["inner"]
    model.model_ = None if inner is None else restore(inner, others)
    width = sum(column.width for column in columns if column.name != model.condition_)
    if width != (0 if inner is None else model.model_.n_features_in_):
        raise ValueError(f"the columns take {width} numbers, which are not those of the model inside")
    return model


def _below(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _ascending(values: np.ndarray) -> np.ndarray:
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all() or (np.diff(values) < 0).any():
        raise ValueError("a calibration must be finite numbers in order")
    return values

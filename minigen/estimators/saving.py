"""What a model file holds of a trained GAN or VAE: settings, and weights, moments, counters and losses as tensors."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from minigen import checks
from minigen.backend import PRECISIONS
from minigen.estimators import conditions, fields
from minigen.models.network import flat_size, parameter_shapes, running_shapes, running_size
from minigen.models.optimizer import SLOTS
from minigen.training import checkpoint
from minigen.training.checkpoint import Tensors, check_tensor

# Of the data; source_ and labels_source_ are their name and that of the labels where the command line gave one, and
# left_out_ whether it left every tenth row out of the training.
FITTED = ("item_shape_", "data_dtype_", "source_", "labels_source_", "left_out_", "frame_")


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Write ``model``, a fitted estimator, to ``path``; see :meth:`minigen.GAN.save`.

    Raises ValueError, and writes nothing, for what :func:`minigen.load` would refuse: a setting that has been changed
    to an invalid one since, or a tensor that is not finite.
    """
    checkpoint.write(path, *content(model))


def content(model: Any) -> tuple[str, Tensors]:
    """Settings, as JSON, and tensors of ``model``, a fitted estimator. Raises ValueError as :func:`save` does."""
    tensors = _tensors(model)
    settings = {
        "model": model.kind,
        "params": {**model.get_params(), **model._frozen},
        "fitted": {
            **{name: getattr(model, name) for name in (*FITTED, *model.fitted_from_data)},
            "columns": model._column_names(),
            **conditions.to_file(model.conditions_),
        },
        "history": {
            "seconds": model.history_.seconds,
            "stop_reason": model.history_.stop_reason,
            "metrics": model.history_.evaluations.to_file(),
        },
    }
    text = json.dumps(settings, default=_plain)
    written = json.loads(text)
    fields.check(written)
    check_tensors(from_settings(type(model), written), written["fitted"], tensors)
    return text, tensors


def from_settings(kind: Any, settings: dict[str, Any]) -> Any:
    """The untrained model of class ``kind`` that the settings of a file describe, checked."""
    model = kind(**tuples(settings["params"]))
    checks.choice("precision", model.precision, ("auto", *PRECISIONS))
    model._check_params()
    return model


def check_tensors(model: Any, fitted: dict[str, Any], tensors: Tensors) -> None:
    """Raise ValueError or KeyError unless the weights and moments are those of ``model``; nothing is allocated yet."""
    item_shape: Sequence[int] = fitted["item_shape_"]
    columns = math.prod(checks.integer("item_shape_", size, 1) for size in item_shape)
    known = conditions.from_file(fitted, tensors)
    from_data = (fitted[name] for name in model.fitted_from_data)
    every = model._all_layers(columns, *from_data, condition=None if known is None else known.kind)
    for name, layers in every.items():
        for key, shape in (parameter_shapes(name, layers) | running_shapes(name, layers)).items():
            check_tensor(tensors, key, shape, np.float32)
        for slot in SLOTS[model.optimizer]:
            check_tensor(tensors, f"training.{name}.{slot}", (flat_size(layers),), np.float32)
        if name in model._averaged_networks:
            check_tensor(tensors, f"training.{name}.average", (flat_size(layers),), np.float32)
            if kept := running_size(layers):
                check_tensor(tensors, f"training.{name}.average_running", (kept,), np.float32)
    check_tensor(tensors, "training.step", (1,), np.uint64)
    if "columns.mean" in tensors or "columns.std" in tensors:
        check_tensor(tensors, "columns.mean", (columns,), np.float64)
        check_tensor(tensors, "columns.std", (columns,), np.float64)
        if (tensors["columns.std"] < 0).any():
            raise ValueError("columns.std must be at least 0")
    model._check_own_tensors(tensors, known)
    steps, names = len(tensors["history.losses"]), len(model._history_names())
    check_tensor(tensors, "history.losses", (steps, names), np.float32)
    check_tensor(tensors, "history.ends", (len(tensors["history.ends"]),), np.int64)
    if np.any((tensors["history.ends"] < 1) | (tensors["history.ends"] > steps)):
        raise ValueError(f"history.ends must be numbers of steps from 1 to {steps}")


def _tensors(model: Any) -> Tensors:
    tensors = {key: value for net in model.networks_ for key, value in net.state().items()}
    state = model._training_state() or {}
    beside = {key: value for key, value in state.items() if not key.endswith((".params", ".running"))}
    tensors.update({f"training.{key}": value for key, value in beside.items()})
    if model.columns_ is not None:
        tensors["columns.mean"], tensors["columns.std"] = model.columns_.mean, model.columns_.std
    if isinstance(model.conditions_, conditions.Numbers):
        of_numbers = model.conditions_.columns
        tensors["conditions.mean"], tensors["conditions.std"] = of_numbers.mean, of_numbers.std
    tensors.update(model._own_tensors())
    tensors["history.losses"] = np.ascontiguousarray(model.history_.values)
    tensors["history.rows"] = model.history_.rows
    tensors["history.ends"] = np.array(model.history_.ends, np.int64)
    return tensors


def _plain(value: Any) -> Any:
    """A JSON value for what JSON does not know: a dtype by its name, NumPy's numbers and fractions as Python's."""
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, np.generic):
        return value.item()
    return int(value) if isinstance(value, Integral) else float(value)


def tuples(values: dict[str, Any]) -> dict[str, Any]:
    """``values`` with lists as tuples, which JSON does not have."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}

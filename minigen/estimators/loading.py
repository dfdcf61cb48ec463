"""From a model file back to the GAN or VAE that was saved in it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minigen import checks
from minigen.datasets import frames
from minigen.device import get_backend, precisions
from minigen.errors import ArgumentError, ModelFileError
from minigen.estimators import conditions, fields
from minigen.estimators.gan import GAN
from minigen.estimators.saving import check_tensors, from_settings, tuples
from minigen.estimators.scaling import Columns
from minigen.estimators.vae import VAE
from minigen.training.checkpoint import Tensors, model_file, read
from minigen.training.history import History

KINDS: dict[str, Any] = {"gan": GAN, "vae": VAE}
MADE_OF_MODELS = {
    "table-vae": ("minigen.tables.vae", "TableVAE", "minigen.tables.saving"),
    "table-gan": ("minigen.tables.gan", "TableGAN", "minigen.tables.saving"),
    "anomaly-detector": ("minigen.anomalies.detector", "AnomalyDetector", "minigen.anomalies.files"),
}
"""Kinds that hold models: where their class is, and the module whose ``restored`` puts one together again."""
WHOLE = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))  # of zeros and ones
DTYPES = ("float32", *WHOLE)


def load(path: str | os.PathLike[str], device: str = "auto", precision: str | None = None) -> Any:
    """The :class:`~minigen.GAN` or :class:`~minigen.VAE` saved at ``path``, on ``device``, whichever it was trained on.

    ``path`` is a file, or the folder of a training run such as ``"runs/gan"``.
    ``precision`` replaces the model's setting. Without it the model keeps its own; on a device that does not have that
    one it computes in the device's default, which ``model.precision_`` names.

    Raises ``FileNotFoundError``, :class:`~minigen.ModelFileError` for a file that is foreign, truncated or altered, and
    the errors of an unusable ``device`` or ``precision``.
    """
    settings, tensors = read(model_file(path))
    kind = MADE_OF_MODELS.get(str(settings.get("model"))) if isinstance(settings, dict) else None
    if kind is None:
        return _restored(path, settings, tensors, device, precision)
    with _foreign(path):
        module, name, files = kind
        family, restored = getattr(importlib.import_module(module), name), importlib.import_module(files).restored
        return restored(family, settings, tensors, lambda inner, own: _restored(path, inner, own, device, precision))


def _restored(path: Any, settings: dict[str, Any], tensors: Tensors, device: str, precision: str | None) -> Any:
    """The GAN or VAE that the content of a file tells of."""
    allowed = precisions(device)
    with _foreign(path):
        fields.check(settings)
        model = from_settings(KINDS[settings["model"]], settings)
        check_tensors(model, settings["fitted"], tensors)
    kept = model.precision if model.precision in allowed else "auto"
    ops = get_backend(device, kept if precision is None else precision)
    model.device = device
    model.precision = model.precision if precision is None else precision
    with _foreign(path):
        fitted = tuples(settings["fitted"])
        dtype = checks.choice("data_dtype_", fitted["data_dtype_"], DTYPES)
        from_data = (fitted[name] for name in model.fitted_from_data)
        known = conditions.from_file(fitted, tensors)
        model._build(ops, fitted["item_shape_"], dtype, *from_data, columns=_columns(tensors), conditions=known)
        model.source_, model.labels_source_ = fitted.get("source_"), fitted.get("labels_source_")
        model.left_out_ = fitted.get("left_out_", False)
        _restore_columns(model, fitted.get("frame_"), fitted.get("columns"))
        for net in model.networks_:
            net.load_state(tensors)
        model._state = _training_state(model, tensors)
        model._load_averages(model._state)
        model._load_own_tensors(tensors)
        model.history_ = History(model._history_names())
        rows = tensors.get("history.rows")
        model.history_.restore(tensors["history.losses"], tensors["history.ends"], **settings["history"], rows=rows)
    return model


@contextmanager
def _foreign(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever is missing, of another type or out of range in what the file says becomes a ModelFileError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise ModelFileError(f"{path} does not hold a model of this version of minigen: {what}") from error


def _restore_columns(model: Any, frame: Any, columns: Any) -> None:
    """Names of columns and kind of DataFrame, as a file says. Raises ValueError where they do not fit the model."""
    model.frame_ = checks.choice("frame_", frame, (None, *frames.LIBRARIES))
    if columns is None:
        return
    if not all(isinstance(name, str) for name in columns) or (len(columns),) != model.item_shape_:
        raise ArgumentError("columns", f"must be {model.item_shape_} names, not {columns!r}")
    model.feature_names_in_ = np.array(columns, dtype=object)


def _columns(tensors: Tensors) -> Columns | None:
    """The columns' statistics, where the data of the training were standardised."""
    mean, std = tensors.get("columns.mean"), tensors.get("columns.std")
    return None if mean is None or std is None else Columns(mean, std)


def _training_state(model: Any, tensors: Tensors) -> Tensors:
    state = {key.removeprefix("training."): value for key, value in tensors.items() if key.startswith("training.")}
    for net in model.networks_:
        state[f"{net.name}.params"] = net.ops.download(net.params)
        if len(net.running):
            state[f"{net.name}.running"] = net.ops.download(net.running)
    return state

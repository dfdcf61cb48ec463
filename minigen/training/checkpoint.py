"""A model in one safetensors file: weights and state as tensors, settings as metadata. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minigen import checks
from minigen.backend import PRECISIONS
from minigen.datasets import frames
from minigen.errors import ModelFileError
from minigen.estimators.scaling import Columns
from minigen.files import write_atomically
from minigen.floors import get_backend, precisions
from minigen.models.mlp import flat_size
from minigen.models.optimizer import SLOTS
from minigen.paths import user_path
from minigen.training import fields
from minigen.training.history import History

if TYPE_CHECKING:
    from minigen.estimators.base import Estimator

FORMAT = "minigen-1"
# Of the data; source_ is their name where the command line gave one.
FITTED = ("item_shape_", "data_dtype_", "source_", "frame_")
MODEL = "model.safetensors"  # the model in the folder of a training run
WHOLE = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))  # of zeros and ones
DTYPES = ("float32", *WHOLE)


def save(model: Estimator, path: str | os.PathLike[str]) -> None:
    """Write ``model`` to ``path``; see :meth:`minigen.GAN.save`.

    Raises ValueError, and writes nothing, for what :func:`load` would refuse: a setting that has been changed to an
    invalid one since, or a tensor that is not finite.
    """
    from safetensors.numpy import save as to_bytes

    tensors = _tensors(model)
    settings = {
        "model": model.kind,
        "params": {**model.get_params(), **model._lasting},
        "fitted": {
            **{name: getattr(model, name) for name in (*FITTED, *model.chosen)},
            "columns": model._column_names(),
        },
        "history": {"seconds": model.history_.seconds, "stop_reason": model.history_.stop_reason},
    }
    text = json.dumps(settings, default=_plain)
    fields.check(json.loads(text))
    _check_tensors(_from_settings(json.loads(text)), model.item_shape_, tensors)
    metadata = {"format": FORMAT, "settings": text, "sha256": _digest(text, tensors)}
    write_atomically(user_path(path), to_bytes(tensors, metadata))


def load(path: str | os.PathLike[str], device: str = "auto", precision: str | None = None) -> Any:
    """The :class:`~minigen.GAN` or :class:`~minigen.VAE` saved at ``path``, on ``device``, whichever it was trained on.

    ``path`` is a file, or the folder of a training run such as ``"runs/gan"``.
    ``precision`` replaces the model's setting. Without it the model keeps its own; on a device that does not have that
    one it computes in the device's default, which ``model.precision_`` names.

    Raises ``FileNotFoundError``, :class:`~minigen.ModelFileError` for a file that is foreign, truncated or altered, and
    the errors of an unusable ``device`` or ``precision``.
    """
    settings, tensors = _read(model_file(path))
    allowed = precisions(device)
    with _foreign(path):
        fields.check(settings)
        model = _from_settings(settings)
        _check_tensors(model, settings["fitted"]["item_shape_"], tensors)
    kept = model.precision if model.precision in allowed else "auto"
    ops = get_backend(device, kept if precision is None else precision)
    model.device = device
    model.precision = model.precision if precision is None else precision
    with _foreign(path):
        fitted = _tuples(settings["fitted"])
        dtype = checks.choice("data_dtype_", fitted["data_dtype_"], DTYPES)
        chosen = (fitted[name] for name in model.chosen)
        model._build(ops, fitted["item_shape_"], dtype, *chosen, columns=_columns(tensors))
        model.source_ = fitted.get("source_")
        _restore_columns(model, fitted.get("frame_"), fitted.get("columns"))
        for net in model.networks_:
            net.load_state(tensors)
        model._state = _training_state(model, tensors)
        model.history_ = History(model._history_names())
        rows = tensors.get("history.rows")
        model.history_.restore(tensors["history.losses"], tensors["history.ends"], **settings["history"], rows=rows)
    return model


def model_file(path: str | os.PathLike[str]) -> Path:
    """``path``, or where it is a folder the model in it."""
    path = user_path(path)
    return path / MODEL if path.is_dir() else path


def _restore_columns(model: Any, frame: Any, columns: Any) -> None:
    """Names of columns and kind of DataFrame, as a file says. Raises ValueError where they do not fit the model."""
    model.frame_ = checks.choice("frame_", frame, (None, *frames.LIBRARIES))
    if columns is None:
        return
    if not all(isinstance(name, str) for name in columns) or (len(columns),) != model.item_shape_:
        raise ValueError(f"columns must be {model.item_shape_} names, not {columns!r}")
    model.feature_names_in_ = np.array(columns, dtype=object)


@contextmanager
def _foreign(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever is missing, of another type or out of range in what the file says becomes a ModelFileError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise ModelFileError(f"{path} does not hold a model of this version of minigen: {what}") from error


def _from_settings(settings: dict[str, Any]) -> Any:
    """The untrained model that the settings of a file describe, checked."""
    from minigen import GAN, VAE

    model = {"gan": GAN, "vae": VAE}[settings["model"]](**_tuples(settings["params"]))
    checks.choice("precision", model.precision, ("auto", *PRECISIONS))
    model._check_params()
    return model


def _check_tensors(model: Any, item_shape: Sequence[int], tensors: dict[str, np.ndarray]) -> None:
    """Raise ValueError or KeyError unless the weights and moments are those of ``model``; nothing is allocated yet."""
    columns = math.prod(checks.integer("item_shape_", size, 1) for size in item_shape)
    for name, sizes in model._sizes(columns).items():
        for i, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
            _check_tensor(tensors, f"{name}.{i}.W", (fan_in, fan_out), np.float32)
            _check_tensor(tensors, f"{name}.{i}.b", (fan_out,), np.float32)
        for slot in SLOTS[model.optimizer]:
            _check_tensor(tensors, f"training.{name}.{slot}", (flat_size(sizes),), np.float32)
    _check_tensor(tensors, "training.step", (1,), np.uint64)
    if "columns.mean" in tensors or "columns.std" in tensors:
        _check_tensor(tensors, "columns.mean", (columns,), np.float64)
        _check_tensor(tensors, "columns.std", (columns,), np.float64)
        if (tensors["columns.std"] < 0).any():
            raise ValueError("columns.std must be at least 0")
    steps, names = len(tensors["history.losses"]), len(model._history_names())
    _check_tensor(tensors, "history.losses", (steps, names), np.float32)
    _check_tensor(tensors, "history.ends", (len(tensors["history.ends"]),), np.int64)
    if np.any((tensors["history.ends"] < 1) | (tensors["history.ends"] > steps)):
        raise ValueError(f"history.ends must be numbers of steps from 1 to {steps}")


def _check_tensor(tensors: dict[str, np.ndarray], key: str, shape: tuple[int, ...], dtype: Any) -> None:
    if key not in tensors:
        raise KeyError(f"{key} is missing")
    value = tensors[key]
    if value.shape != shape or value.dtype != dtype:
        raise ValueError(f"{key} must be {np.dtype(dtype)} of shape {shape}, not {value.dtype} {value.shape}")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise ValueError(f"{key} must be finite, but some values are NaN or infinite")


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Kind of model, hyper-parameters and data description of the file at ``path``; raises as :func:`load` does."""
    return _read(user_path(path))[0]


def _tensors(model: Estimator) -> dict[str, np.ndarray]:
    tensors = {key: value for net in model.networks_ for key, value in net.state().items()}
    state = model._training_state() or {}
    tensors.update({f"training.{key}": value for key, value in state.items() if not key.endswith(".params")})
    if model.columns_ is not None:
        tensors["columns.mean"], tensors["columns.std"] = model.columns_.mean, model.columns_.std
    tensors["history.losses"] = np.ascontiguousarray(model.history_.values)
    tensors["history.rows"] = model.history_.rows
    tensors["history.ends"] = np.array(model.history_.ends, np.int64)
    return tensors


def _columns(tensors: dict[str, np.ndarray]) -> Columns | None:
    """The columns' statistics, where the data of the training were standardised."""
    mean, std = tensors.get("columns.mean"), tensors.get("columns.std")
    return None if mean is None or std is None else Columns(mean, std)


def _training_state(model: Estimator, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    state = {key.removeprefix("training."): value for key, value in tensors.items() if key.startswith("training.")}
    for net in model.networks_:
        state[f"{net.name}.params"] = np.array(net.ops.download(net.params))
    return state


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"no model file at {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ModelFileError(f"{path} was not written by this version of minigen")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, TypeError, AttributeError) as error:  # the last two: types that NumPy does not have
        raise ModelFileError(f"{path} is no safetensors file, or a truncated one: {error}") from error
    text = metadata.get("settings", "")
    if metadata.get("sha256") != _digest(text, tensors):
        raise ModelFileError(f"{path} has been altered: its SHA-256 does not match its contents")
    try:
        return json.loads(text, parse_constant=_refuse_constant), tensors
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} does not hold a model of minigen: its settings are not JSON: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _digest(text: str, tensors: dict[str, np.ndarray]) -> str:
    """SHA-256 over settings, and over name, type, shape and bytes of each tensor."""
    digest = hashlib.sha256(text.encode())
    for key in sorted(tensors):
        value = np.ascontiguousarray(tensors[key])
        digest.update(f"{key} {value.dtype.str} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """A JSON value for what JSON does not know: a dtype by its name, NumPy's numbers and fractions as Python's."""
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, np.generic):
        return value.item()
    return int(value) if isinstance(value, Integral) else float(value)


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples: its lists back to them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}

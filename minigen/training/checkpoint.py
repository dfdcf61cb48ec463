"""A model in one safetensors file: weights and state as tensors, settings as metadata. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minigen import checks
from minigen.backend import PRECISIONS
from minigen.errors import ModelFileError
from minigen.files import write_atomically
from minigen.floors import get_backend, precisions
from minigen.training.history import History

if TYPE_CHECKING:
    from minigen.estimators.base import Estimator

FORMAT = "minigen-1"
# What fit decided from the data, and the name of the data where the command line gave one.
FITTED = ("item_shape_", "data_dtype_", "scale_", "shift_", "output_", "source_")


def save(model: Estimator, path: str | os.PathLike[str]) -> None:
    """Write ``model`` to ``path``; see :meth:`minigen.GAN.save`."""
    from safetensors.numpy import save as to_bytes

    tensors = _tensors(model)
    settings = {
        "model": model.kind,
        "params": model.get_params(),
        "fitted": {name: _plain(getattr(model, name)) for name in FITTED if hasattr(model, name)},
        "history": {"seconds": model.history_.seconds, "stop_reason": model.history_.stop_reason},
    }
    text = json.dumps(settings)
    metadata = {"format": FORMAT, "settings": text, "sha256": _digest(text, tensors)}
    write_atomically(Path(path), to_bytes(tensors, metadata))


def load(path: str | os.PathLike[str], device: str = "auto", precision: str | None = None) -> Any:
    """The :class:`~minigen.GAN` or :class:`~minigen.VAE` saved at ``path``, on ``device``, whichever it was trained on.

    ``precision`` replaces the model's setting. Without it the model keeps its own; on a device that does not have that
    one it computes in the device's default, which ``model.precision_`` names.

    Raises ``FileNotFoundError``, :class:`~minigen.ModelFileError` for a file that is foreign, truncated or altered, and
    the errors of an unusable ``device`` or ``precision``.
    """
    from minigen import GAN, VAE

    settings, tensors = _read(Path(path))
    ops = get_backend(device, _kept_precision(settings, device) if precision is None else precision)
    try:
        model = {"gan": GAN, "vae": VAE}[settings["model"]](**_tuples(settings["params"]))
        fitted = _tuples(settings["fitted"])
        model.device = device
        checks.choice("precision", model.precision, ("auto", *PRECISIONS))
        model.precision = model.precision if precision is None else precision
        model._check_params()
        if "output_" in fitted:
            model.output_ = fitted["output_"]
        model._build(ops, fitted["item_shape_"], fitted["data_dtype_"], fitted["scale_"], fitted["shift_"])
        model.source_ = fitted.get("source_")
        for net in model.networks_:
            net.load_state(tensors)
        model._state = _training_state(model, tensors)
        model.history_ = History(model._history_names())
        model.history_.restore(tensors["history.losses"], tensors["history.ends"], **settings["history"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path} does not hold a model of this version of minigen: {error!r}") from error
    return model


def _kept_precision(settings: dict[str, Any], device: str) -> str:
    """The precision that the model was trained in, or ``"auto"`` where ``device`` does not have it."""
    kept = settings.get("params", {}).get("precision", "auto")
    return kept if kept in precisions(device) else "auto"


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Kind of model, hyper-parameters and data description of the file at ``path``; raises as :func:`load` does."""
    return _read(Path(path))[0]


def _tensors(model: Estimator) -> dict[str, np.ndarray]:
    tensors = {key: value for net in model.networks_ for key, value in net.state().items()}
    state = model._training_state() or {}
    tensors.update({f"training.{key}": value for key, value in state.items() if not key.endswith(".params")})
    tensors["history.losses"] = np.ascontiguousarray(model.history_.values)
    tensors["history.ends"] = np.array(model.history_.ends, np.int64)
    return tensors


def _training_state(model: Estimator, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    state = {key.removeprefix("training."): value for key, value in tensors.items() if key.startswith("training.")}
    if not state:
        return None
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
    except SafetensorError as error:
        raise ModelFileError(f"{path} is no safetensors file, or a truncated one: {error}") from error
    text = metadata.get("settings", "")
    if metadata.get("sha256") != _digest(text, tensors):
        raise ModelFileError(f"{path} has been altered: its SHA-256 does not match its contents")
    return json.loads(text), tensors


def _digest(text: str, tensors: dict[str, np.ndarray]) -> str:
    """SHA-256 over settings, and over name, type, shape and bytes of each tensor."""
    digest = hashlib.sha256(text.encode())
    for key in sorted(tensors):
        value = np.ascontiguousarray(tensors[key])
        digest.update(f"{key} {value.dtype.str} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """A JSON value; a dtype by its name."""
    return value.name if isinstance(value, np.dtype) else value


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples: its lists back to them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}

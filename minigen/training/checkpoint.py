"""The format of a model file: tensors and settings in one safetensors file, with a digest. Nothing is unpickled.

What a GAN or a VAE puts in it is said in :mod:`minigen.estimators.saving`.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from minigen.errors import ModelFileError
from minigen.files import write_atomically
from minigen.paths import user_path

FORMAT = "minigen-1"
MODEL = "model.safetensors"  # the model in the folder of a training run

Tensors = dict[str, np.ndarray]


def model_file(path: str | os.PathLike[str]) -> Path:
    """``path``, or where it is a folder the model in it."""
    path = user_path(path)
    return path / MODEL if path.is_dir() else path


def write(path: str | os.PathLike[str], settings: str, tensors: Tensors) -> None:
    """Write a model file; ``settings`` are JSON. It appears whole or not at all. Raises ``OSError``."""
    from safetensors.numpy import save as to_bytes

    metadata = {"format": FORMAT, "settings": settings, "sha256": digest(settings, tensors)}
    write_atomically(user_path(path), to_bytes(tensors, metadata))


def read(path: Path) -> tuple[dict[str, Any], Tensors]:
    """Settings and tensors of the file at ``path``.

    Raises ``FileNotFoundError``, and :class:`~minigen.ModelFileError` for a file that is foreign, truncated or altered.
    """
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
    if metadata.get("sha256") != digest(text, tensors):
        raise ModelFileError(f"{path} has been altered: its SHA-256 does not match its contents")
    try:
        return json.loads(text, parse_constant=_refuse_constant), tensors
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} does not hold a model of minigen: its settings are not JSON: {error}") from error


def digest(settings: str, tensors: Tensors) -> str:
    """SHA-256 over settings, and over name, type, shape and bytes of each tensor."""
    sha = hashlib.sha256(settings.encode())
    for key in sorted(tensors):
        value = np.ascontiguousarray(tensors[key])
        sha.update(f"{key} {value.dtype.str} {value.shape}".encode())
        sha.update(value.tobytes())
    return sha.hexdigest()


def check_tensor(tensors: Tensors, key: str, shape: tuple[int, ...], dtype: Any) -> None:
    """Raise KeyError where ``tensors`` has no ``key``, and ValueError for one of another kind or that is not finite."""
    if key not in tensors:
        raise KeyError(f"{key} is missing")
    value = tensors[key]
    if value.shape != shape or value.dtype != dtype:
        raise ValueError(f"{key} must be {np.dtype(dtype)} of shape {shape}, not {value.dtype} {value.shape}")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise ValueError(f"{key} must be finite, but some values are NaN or infinite")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")

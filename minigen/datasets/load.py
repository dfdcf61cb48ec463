"""From whatever the user has to rows that a model trains on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minigen.datasets.catalogue import fashion_mnist, mnist, mnist_sample
from minigen.datasets.dataset import Dataset
from minigen.datasets.idx import StrPath, read_idx
from minigen.datasets.npy import read_npy, read_npz

NAMED: dict[str, Callable[[], Dataset]] = {
    "mnist-sample": mnist_sample,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
}
ALLOWED = "uint8, float32 or float64 of shape [N, ...]"
MAX_ROWS = 2**31 - 1  # row numbers are int32 on every device
HOST_DEVICES = (1, 3, 11)  # DLPack's kDLCPU, kDLCUDAHost, kDLROCMHost
CHUNK = 1 << 20  # elements looked at together, so that a mapped file is never in memory as a whole


def as_rows(data: Any, *, name: str = "data", min_rows: int = 2) -> tuple[np.ndarray, tuple[int, ...]]:
    """``(rows[N, D], item_shape)``: C-contiguous uint8 or float32 rows, and the shape of one item, D elements.

    ``data`` is ``[N, ...]`` in uint8, float32 or float64 (rounded to float32): a NumPy array, a memory-mapped file, a
    :class:`Dataset`, or anything else on the host with ``__array__``, ``__array_interface__`` or ``__dlpack__``.
    ``name`` is what the errors call it.
    Nothing is copied unless the dtype or the memory order makes it necessary, so the rows may share memory with
    ``data`` and be read-only.

    Raises ``TypeError`` for what is no array of such a dtype on the host, ``ValueError`` for fewer than ``min_rows``
    rows, no columns, fewer than two dimensions, and NaN or infinite values.
    """
    array = _as_array(name, data)
    _check_dtype(name, array.dtype)
    _check_shape(name, array.shape, min_rows)
    dtype = np.dtype(np.uint8 if array.dtype == np.uint8 else np.float32)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is reported as such below
        rows = np.require(array.reshape(len(array), -1), dtype, ["C_CONTIGUOUS", "ALIGNED"])
    if dtype != np.uint8:
        _check_finite(name, rows)
    return rows, array.shape[1:]


def _as_array(name: str, data: Any) -> np.ndarray:
    """``data`` seen as a plain ndarray, copied only if its own protocol copies."""
    if np.ma.isMaskedArray(data):
        raise TypeError(f"{name} must be {ALLOWED} without a mask: fill it first, {name}.filled(value)")
    check_on_host(name, data)
    if isinstance(data, np.ndarray):
        return np.asarray(data)
    try:
        if hasattr(data, "__array__") or hasattr(data, "__array_interface__"):
            return np.asarray(data)
        if hasattr(data, "__dlpack__"):
            return np.from_dlpack(data)
    except Exception as error:  # whatever the foreign library raises
        raise TypeError(f"{name} of type {_type_name(data)} cannot be read as an array: {error}") from error
    raise TypeError(f"{name} must be an array, {ALLOWED}, not {_type_name(data)}; np.asarray(..., dtype=np.float32) "
                    "makes one of a list, minigen.datasets.resolve(...) of a name or a path")


def check_on_host(name: str, data: Any) -> None:
    """Raise TypeError, saying how to copy it, for an array that is in a device's memory."""
    if not hasattr(data, "__dlpack_device__"):
        return
    try:
        kind = int(data.__dlpack_device__()[0])
    except Exception as error:  # whatever the foreign library raises
        raise TypeError(f"{name} of type {_type_name(data)} does not tell its device: {error}") from error
    if kind not in HOST_DEVICES:
        raise TypeError(f"{name} of type {_type_name(data)} is in a device's memory (DLPack device type {kind}); "
                        "copy it to the host first: .cpu() in PyTorch, .get() in CuPy, jax.device_get in JAX. Only a "
                        "model with device='cuda' takes arrays in a GPU's memory, as they are")


def _type_name(data: Any) -> str:
    return f"{type(data).__module__}.{type(data).__qualname__}"


def _check_dtype(name: str, dtype: np.dtype[Any]) -> None:
    if dtype == np.uint8 or (dtype.kind == "f" and dtype.itemsize in (4, 8)):
        return
    hint = ""
    if dtype.kind in "iu":
        hint = f"; {name}.astype(np.uint8) for bytes from 0 to 255, {name}.astype(np.float32) for other numbers"
    elif dtype.kind in "bf":
        hint = f"; convert with {name}.astype(np.float32)"
    raise TypeError(f"{name} must be {ALLOWED}, not {dtype}{hint}")


def _check_shape(name: str, shape: tuple[int, ...], min_rows: int) -> None:
    if len(shape) < 2:
        raise ValueError(f"{name} must have shape [N, ...] with at least two dimensions, not {shape}")
    if not min_rows <= shape[0] <= MAX_ROWS:
        raise ValueError(f"{name} must have at least {min_rows} rows (and at most {MAX_ROWS}), not {shape[0]}: "
                         f"shape {shape}")
    if 0 in shape:
        raise ValueError(f"{name} must have at least one column, not shape {shape}")


def _check_finite(name: str, rows: np.ndarray) -> None:
    step = max(1, CHUNK // rows.shape[1])
    bad, first = 0, -1
    for start in range(0, len(rows), step):
        finite = np.isfinite(rows[start : start + step])
        if finite.all():
            continue
        if not bad:
            first = start + int(np.argmin(finite.all(axis=1)))
        bad += finite.size - int(np.count_nonzero(finite))
    if bad:
        raise ValueError(f"{name} must be finite in float32: {bad} of {rows.size} values are NaN or infinite, "
                         f"the first in row {first}")


def load_file(path: StrPath, *, key: str | None = None) -> np.ndarray:
    """The array in a file: ``.npy`` (memory-mapped if large), ``.npz`` (its only array, or the one named ``key``), else
    IDX, plain or gzip.

    Raises ``ValueError`` naming the file when its contents are damaged or not allowed (no pickled objects), and
    ``OSError`` when it cannot be read.
    """
    path = Path(path)
    if key is not None and path.suffix != ".npz":
        raise ValueError(f"{path}: only an .npz file holds arrays by name, so there is no {key!r} in it")
    if path.suffix == ".npz":
        return read_npz(path, key)
    return read_npy(path) if path.suffix == ".npy" else read_idx(path)


def resolve(data: str | os.PathLike[str]) -> Dataset | np.ndarray:
    """The data behind a name (``mnist-sample``, ``mnist``, ``fashion-mnist``: their training sets) or a path.

    A path is read by :func:`load_file`; ``FILE.npz:KEY`` names one array of several. Raises ``ValueError`` when it is
    neither a known name nor a file.
    """
    text = os.fspath(data)
    if text in NAMED:
        return NAMED[text]()
    stem, found, key = text.rpartition(".npz:")
    path, wanted = (f"{stem}.npz", key) if found and not os.path.exists(text) else (text, None)
    if not os.path.isfile(path):
        raise ValueError(f"data must be a data set ({', '.join(NAMED)}) or a file (FILE.npy, FILE.npz, FILE.npz:KEY "
                         f"or IDX, plain or gzip), not {text!r}")
    return load_file(path, key=wanted)

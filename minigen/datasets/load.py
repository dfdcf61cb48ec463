"""From whatever the user has to rows that a model trains on."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minigen.datasets.catalogue import fashion_mnist, mnist, mnist_sample
from minigen.datasets.dataset import Dataset
from minigen.datasets.frames import Table, frame_values, library_of
from minigen.datasets.idx import StrPath, read_idx
from minigen.datasets.npy import read_gzipped_npy, read_npy, read_npz
from minigen.datasets.pictures import read_pictures
from minigen.datasets.tables import read_csv, read_parquet
from minigen.errors import ArgumentError, ArgumentTypeError
from minigen.paths import user_path

NAMED: dict[str, Callable[[], Dataset]] = {
    "mnist-sample": mnist_sample,
    "mnist": mnist,
    "mnist-test": partial(mnist, "test"),
    "fashion-mnist": fashion_mnist,
    "fashion-mnist-test": partial(fashion_mnist, "test"),
}
TEXTS = ("csv", "tsv", "txt")  # endings
ALLOWED = "real numbers of shape [N, ...]"
MAX_ROWS = 2**31 - 1  # row numbers are int32 on every device
HOST_DEVICES = (1, 3, 11)  # DLPack's kDLCPU, kDLCUDAHost, kDLROCMHost
CHUNK = 1 << 20  # elements looked at together, so that a mapped file is never in memory as a whole


def as_rows(data: Any, *, name: str = "data", min_rows: int = 2) -> tuple[np.ndarray, tuple[int, ...]]:
    """``(rows[N, D], item_shape)``: C-contiguous uint8 or float32 rows, and the shape of one item, D elements.

    ``data`` is ``[N, ...]``: a NumPy array, a memory-mapped file, a :class:`Dataset`, nested lists, a DataFrame of
    pandas or polars, or anything else on the host with ``__array__``, ``__array_interface__`` or ``__dlpack__``. uint8
    stays as it is; other integers, bool, floats of any size, and Python objects that are numbers become float32.
    ``name`` is what the errors call it.
    Nothing is copied unless the dtype or the memory order makes it necessary, so the rows may share memory with
    ``data`` and be read-only.

    Raises ``TypeError`` for what is no array of numbers on the host, or a sparse or masked one; ``ValueError`` for
    complex numbers, fewer than ``min_rows`` rows, no columns, fewer than two dimensions, and NaN or infinite values.
    """
    array = _numbers(name, _as_array(name, data))
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
        raise ArgumentTypeError(name, f"must be {ALLOWED} without a mask: fill it first, {name}.filled(value)")
    check_dense(name, data)
    if library_of(data):
        return frame_values(name, data)
    check_on_host(name, data)
    if isinstance(data, np.ndarray):
        return np.asarray(data)
    try:
        if hasattr(data, "__array__") or hasattr(data, "__array_interface__"):
            return np.asarray(data)
        if hasattr(data, "__dlpack__"):
            return np.from_dlpack(data)
        if isinstance(data, (list, tuple)):
            return np.asarray(data)
    except Exception as error:  # whatever the foreign library raises, and NumPy for lists of different lengths
        raise ArgumentTypeError(name, f"of type {_type_name(data)} cannot be read as an array: {error}") from error
    raise ArgumentTypeError(
        name,
        f"must be an array or nested lists, {ALLOWED}, not {_type_name(data)}; "
        "minigen.datasets.resolve(...) makes an array of a name or a path",
    )


def as_numbers(name: str, value: Any, dtype: Any) -> np.ndarray:
    """``value``, an array of the host or nested lists, as finite ``dtype``; else TypeError or ValueError."""
    check_dense(name, value)
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of different lengths
        raise ArgumentError(name, f"must be an array of numbers: {error}") from error
    if array.dtype.kind not in "iuf":
        raise ArgumentTypeError(name, f"must be an array of real numbers, not of {array.dtype}")
    with np.errstate(over="ignore"):  # what dtype cannot hold becomes infinite, and is reported as such below
        array = array.astype(dtype)
    if not np.isfinite(array).all():
        raise ArgumentError(name, f"must be finite in {array.dtype}, but some values are NaN or infinite")
    return array


def check_dense(name: str, data: Any) -> None:
    """Raise TypeError, saying how to make it dense, for a sparse array, SciPy's or one that is used in the same way."""
    method = next((method for method in ("toarray", "todense") if hasattr(data, method)), None)
    if hasattr(data, "nnz") and method is not None:
        raise ArgumentTypeError(
            name,
            f"must be a dense array, not a sparse one ({_type_name(data)}): {name}.{method}() makes "
            "it dense, where memory allows",
        )


def check_on_host(name: str, data: Any) -> None:
    """Raise TypeError, saying how to copy it, for an array that is in a device's memory."""
    if not hasattr(data, "__dlpack_device__"):
        return
    try:
        kind = int(data.__dlpack_device__()[0])
    except Exception as error:  # whatever the foreign library raises
        raise ArgumentTypeError(name, f"of type {_type_name(data)} does not tell its device: {error}") from error
    if kind not in HOST_DEVICES:
        raise ArgumentTypeError(
            name,
            f"of type {_type_name(data)} is in a device's memory (DLPack device type {kind}); "
            "copy it to the host first: .cpu() in PyTorch, .get() in CuPy, jax.device_get in JAX. Only a "
            "model with device='cuda' takes arrays in a GPU's memory, as they are",
        )


def _type_name(data: Any) -> str:
    return f"{type(data).__module__}.{type(data).__qualname__}"


def _numbers(name: str, array: np.ndarray) -> np.ndarray:
    """``array`` if it holds real numbers, of whatever dtype; Python's numbers as float64."""
    if array.dtype.kind in "biuf":
        return array
    if array.dtype.kind == "c":  # scikit-learn's checks want these words and ValueError
        raise ArgumentError(
            name,
            f"must be {ALLOWED}, not {array.dtype}: Complex data not supported; take {name}.real or np.abs({name})",
        )
    if array.dtype != object:
        raise ArgumentTypeError(name, f"must be {ALLOWED}, not {array.dtype}")
    try:
        for text in (value for value in array.flat if isinstance(value, (str, bytes))):
            raise TypeError(f"{text!r} is text")  # NumPy would take '1.5' for a number
        return array.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ArgumentTypeError(
            name,
            f"must be {ALLOWED}, but it is an array of Python objects, and not all of them are "
            f"numbers ({error}); leave out or encode columns of text and dates, fill in missing values, "
            f"then {name}.astype(np.float32)",
        ) from error


def _check_shape(name: str, shape: tuple[int, ...], min_rows: int) -> None:
    if len(shape) < 2:
        raise ArgumentError(
            name,
            f"must have shape [N, ...] with at least two dimensions, not {shape}. Reshape your "
            f"data: {name}.reshape(-1, 1) makes a column of it, {name}.reshape(1, -1) a row",
        )
    if not min_rows <= shape[0] <= MAX_ROWS:
        raise ArgumentError(
            name,
            f"must have at least {min_rows} rows (and at most {MAX_ROWS}), not {shape[0]}: "
            f"n_samples = {shape[0]}, shape {shape}",
        )
    if 0 in shape:  # in the words that scikit-learn's checks look for
        raise ArgumentError(
            name, f"must have at least one column, not 0 feature(s) (shape={shape}) while a minimum of 1 is required."
        )


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
        raise ArgumentError(
            name,
            f"must be finite in float32: {bad} of {rows.size} values are NaN or infinite, the first in row {first}",
        )


def load_file(path: StrPath, *, key: str | None = None) -> np.ndarray | Table:
    """The array in a file, or the table, told by the ending of its name.

    ``.npy`` (memory-mapped if large), ``.npy.gz``, ``.npz`` (its only array, or the one named ``key``); ``.csv``,
    ``.tsv`` and ``.txt``, plain or with ``.gz`` behind (:func:`~minigen.datasets.tables.read_csv` says what is taken);
    ``.parquet``, where pyarrow is installed; anything else is IDX, plain or gzip.

    Raises ``ValueError`` naming the file when its contents are damaged or not allowed (no pickled objects, no text
    among the numbers), ``ImportError`` naming what to install, and ``OSError`` when it cannot be read.
    """
    path = user_path(path)
    *_, ending = path.name.lower().removesuffix(".gz").rpartition(".")
    if key is not None and ending != "npz":
        raise ValueError(f"{path}: only an .npz file holds arrays by name, so there is no {key!r} in it")
    if ending == "npz":
        return read_npz(path, key)
    if ending == "npy":
        return read_gzipped_npy(path) if path.suffix.lower() == ".gz" else read_npy(path)
    if ending in TEXTS:
        return read_csv(path)
    return read_parquet(path) if ending == "parquet" else read_idx(path)


def resolve(data: str | os.PathLike[str]) -> Dataset | Table | np.ndarray:
    """The data behind a name (``mnist-sample``, ``mnist``, ``fashion-mnist``: their training sets; ``mnist-test``,
    ``fashion-mnist-test``) or a path.

    A file is read by :func:`load_file`; ``FILE.npz:KEY`` names one array of several. A folder is one of PNG pictures,
    see :func:`~minigen.datasets.pictures.read_pictures`. Raises ``ValueError`` when it is none of these.
    """
    text = os.fspath(data)
    if text in NAMED:
        return NAMED[text]()
    text = os.path.expanduser(text)
    named = re.fullmatch(r"(.*\.npz):(.*)", text, re.IGNORECASE | re.DOTALL)
    path, wanted = named.groups() if named and not os.path.exists(text) else (text, None)
    if os.path.isdir(path):
        return read_pictures(path)
    if not os.path.isfile(path):
        raise ArgumentError(
            "data",
            f"must be a data set ({', '.join(NAMED)}) or a file (FILE.npy, FILE.npz, FILE.npz:KEY, "
            f".csv, .parquet or IDX) or a folder of .png files, not {text!r}",
        )
    return load_file(path, key=wanted)

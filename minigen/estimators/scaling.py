"""From the data's own units to those that a model trains in, and back: zeros and ones, rounding, columns of a table."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigen.backend import Array
from minigen.datasets.load import CHUNK
from minigen.placement import Placement

SLACK = 8 * 2.0**-23
"""How far outside of [0, 1] rounding may carry a float32: eight units in the last place of 1."""

RANGES = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0), "linear": (-np.inf, np.inf)}
"""Output activations of a generator and the values that each can reach."""


@dataclass(frozen=True)
class Columns:
    """``mean`` and ``std`` of each column of the training data, ``float64[D]``; ``std`` is 0 where it is constant.

    A model of standardised data sees ``(x - mean) / scale``, where ``scale`` is ``std``, or 1 for a constant column;
    back from the model, a constant column is that constant.
    """

    mean: np.ndarray
    std: np.ndarray

    @property
    def scale(self) -> np.ndarray:
        """What columns are divided by, ``float64[D]``, all above 0."""
        return np.where(self.std > 0, self.std, 1.0)

    @property
    def log_scale(self) -> float:
        """What a log density per unit of the model exceeds that per unit of the data by, in nats a row.

        With ``y = (x - mean) / scale``: ``p(x) = p(y) prod_d |dy_d / dx_d| = p(y) / prod_d scale_d``.
        """
        return float(np.log(self.scale).sum())

    def standardise(self, rows: Array, ops: Placement) -> Array:
        """``float32[N, D]``, computed in float64 where ``rows`` lie."""
        mean, scale = ops.to_device_of(rows, self.mean), ops.to_device_of(rows, self.scale)
        return converted(rows, lambda piece: ((piece.astype(np.float64) - mean) / scale).astype(np.float32))

    def restore(self, rows: Array, ops: Placement) -> Array:
        """Rows of a model in the data's units, ``float32[N, D]``, computed in float64 where ``rows`` lie."""
        mean, std = ops.to_device_of(rows, self.mean), ops.to_device_of(rows, self.std)
        return converted(rows, lambda piece: (piece.astype(np.float64) * std + mean).astype(np.float32))


def measure(rows: Array, ops: Placement) -> Columns:
    """Mean and standard deviation of each column of ``rows[N, D]``, in one pass in pieces and in float64.

    Two pieces' sums of squares about their own means are put together as in Chan, Golub and LeVeque 1983.
    """
    count, mean, squares = 0, np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    low, high = np.full(rows.shape[1], np.inf), np.full(rows.shape[1], -np.inf)
    for piece in _pieces(rows):
        x = piece.astype(np.float64)
        centre = x.mean(axis=0)
        around = ops.to_host(((x - centre) ** 2).sum(axis=0))
        low, high = np.minimum(low, ops.to_host(x.min(axis=0))), np.maximum(high, ops.to_host(x.max(axis=0)))
        together = count + len(x)
        step = ops.to_host(centre) - mean
        squares += around + step**2 * (count * len(x) / together)
        mean += step * (len(x) / together)
        count = together
    constant = low == high
    return Columns(np.where(constant, low, mean), np.where(constant, 0.0, np.sqrt(squares / count)))


def without(columns: Columns, blocks: list[slice]) -> Columns:
    """``columns`` of which those of ``blocks``, which hold labels, stay as they are."""
    mean, std = columns.mean.copy(), columns.std.copy()
    for block in blocks:
        mean[block], std[block] = 0.0, 1.0
    return Columns(mean, std)


def converted(rows: Array, change: Callable[[Array], Array]) -> Array:
    """``change`` of ``rows[N, D]``, which gives ``float32[n, D]`` for ``n`` rows, a piece at a time.

    Of a memory-mapped file the result is a mapped temporary file, in the folder that ``TMPDIR`` names: neither needs to
    fit into memory. Raises OSError where that folder has no room.
    """
    if not _mapped(rows):
        out = np.empty_like(rows, np.float32)
        start = 0
        for piece in _pieces(rows):
            out[start : start + len(piece)] = change(piece)
            start += len(piece)
        return out
    with tempfile.TemporaryFile() as file:  # it has no name, and goes with the last view of it
        for piece in _pieces(rows):
            file.write(change(piece).tobytes())
        file.flush()
        return np.asarray(np.memmap(file, np.float32, "r", 0, rows.shape))


def _pieces(rows: Array) -> Iterator[Array]:
    step = max(1, CHUNK // rows.shape[1])
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _mapped(rows: Array) -> bool:
    """Whether ``rows`` lie in a memory-mapped file."""
    while isinstance(rows, np.ndarray):
        rows = rows.base
    return isinstance(rows, mmap.mmap)


# --- ranges -----------------------------------------------------------------------------------------


def bounds(rows: Array) -> tuple[float, float]:
    """The least and the greatest value."""
    return float(rows.min()), float(rows.max())


def lies_in(rows: Array, low: float, high: float) -> bool:
    """Whether all values lie in [low, high], or outside of it by no more than rounding can explain."""
    least, most = bounds(rows)
    slack = SLACK * max(abs(low), abs(high))
    return low - slack <= least and most <= high + slack


def clipped(rows: Array, low: float, high: float) -> Array:
    """``rows`` in [low, high]; not copied where they lie there already."""
    least, most = bounds(rows)
    return rows if low <= least and most <= high else converted(rows, lambda piece: np.clip(piece, low, high))


def digits(rows: Array) -> str:
    """The least and the greatest value of float32 ``rows``, with all the digits that tell them from their
    neighbours."""
    least, most = bounds(rows)
    return f"from {np.float32(least)!s} to {np.float32(most)!s}"


# --- zeros and ones ---------------------------------------------------------------------------------


def bits_as_bytes(X: Any) -> tuple[Any, np.dtype[Any] | None]:
    """``X`` as uint8, and its dtype, where it is an array (or lists) of bool, or of integers that are all 0 or 1.

    Anything else comes back as it is, with ``None``.
    """
    array = X
    if not isinstance(getattr(X, "dtype", None), np.dtype):  # a table, lists, another library's array
        if hasattr(X, "__dlpack_device__") or not (isinstance(X, (list, tuple)) or hasattr(X, "__array__")):
            return X, None
        try:
            array = np.asarray(X)
        except Exception:  # any error of a foreign library: as_rows, which reads X next, reports it
            return X, None
    whole = array.dtype.kind in "biu" and 0 not in array.shape and not np.ma.isMaskedArray(array)
    if not whole or array.min() < 0 or array.max() > 1:
        return X, None
    return array if array.dtype == np.uint8 else array.astype(np.uint8), array.dtype

"""What the gradient checks share: a line of the report, central differences, and the relative error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

DIFFERENCES_TOLERANCE = 1e-9
BACKEND_TOLERANCE = {"float32": 5e-6, "float64": 1e-12}
"""Largest relative error ||out - ref|| / ||ref|| that passes: of the reference, and of a backend by its dtype."""


@dataclass(frozen=True)
class Row:
    """One line of the report. ``error`` is relative, in the 2-norm, in float64; NaN does not pass.

    ``formula``: the file and the formula that are wrong if it does not.
    """

    operation: str
    device: str
    check: str
    error: float
    tolerance: float
    formula: str = ""

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


def differences(f: Callable[[np.ndarray], Any], x: np.ndarray, h: float = 1e-3) -> np.ndarray:
    """The gradient of the scalar ``f`` at the float64 array ``x``, by central differences of fourth order.

    ``f'(x) = (8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / 12h``: the error of the formula is about 1e-13 at this
    ``h``, as is that of rounding (Abramowitz and Stegun 1964, table 25.2).
    """
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):

        def along(k: int, i: tuple[int, ...] = i) -> float:
            moved = x.copy()
            moved[i] += k * h
            return float(f(moved))

        gradient[i] = (8 * (along(1) - along(-1)) - (along(2) - along(-2))) / (12 * h)
    return gradient


def relative_error(out: np.ndarray, reference: np.ndarray) -> float:
    """``||out - reference|| / ||reference||`` in float64; NaN if either has one, and the shapes must agree."""
    out, reference = np.asarray(out, np.float64), np.asarray(reference, np.float64)
    if out.shape != reference.shape:
        raise ValueError(f"shapes differ: out {out.shape}, reference {reference.shape}")
    error, size = np.linalg.norm(out - reference), np.linalg.norm(reference)
    return float(error / size) if size != 0 else float(error)


# --- rows of the tables of operations --------------------------------------------------------------------

Derivative = tuple[str, str, Callable[[np.ndarray], Any], np.ndarray, np.ndarray]
Operation = tuple[str, str, str, tuple[Any, ...], list[Any]]


class Out:
    """Stands in the arguments of a call for an output of this shape (dtype None: the backend's own)."""

    def __init__(self, *shape: int, dtype: Any = None) -> None:
        self.shape, self.dtype = shape, dtype


class InOut:
    """Stands in the arguments of a call for a buffer that is read and written, with these contents."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array


def normals(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """float64 normals that a float32 holds exactly, so that every backend starts from the same numbers."""
    return rng.standard_normal(shape).astype(np.float32).astype(np.float64)


def off_zero(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Normals moved away from 0 by 0.1, where relu has no derivative to compare."""
    z = normals(rng, *shape)
    return (z + np.where(z >= 0, 0.1, -0.1)).astype(np.float32).astype(np.float64)


def sizes(rng: np.random.Generator, count: int, low: int, high: int) -> list[int]:
    """``count`` random sizes in [low, high)."""
    return [int(n) for n in rng.integers(low, high, count)]

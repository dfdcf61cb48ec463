"""What the metrics look at: the numbers of an item as they are, or what a function makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigen.datasets.load import as_rows
from minigen.errors import ArgumentError, ArgumentTypeError

Features = Callable[[np.ndarray], np.ndarray]
"""From items ``[n, ...]`` in the units of the data to rows ``[n, F]``."""


def rows_of(samples: Any, real: Any, features: Features | None) -> tuple[np.ndarray, np.ndarray]:
    """Both sets as ``float64[n, F]``. Raises TypeError or ValueError, naming the argument, for bad ones."""
    if features is not None and not callable(features):
        raise ArgumentTypeError("features", f"must be a function of items or None, not {features!r}")
    sets = {"samples": as_rows(samples, name="samples"), "real": as_rows(real, name="real")}
    (_, shape), (_, real_shape) = sets.values()
    if shape != real_shape:
        raise ArgumentError("samples", f"must have items of shape {real_shape} as real has, not {shape}")
    a, b = (_apply(features, rows, shape) for rows, _ in sets.values())
    return a, b


def _apply(features: Features | None, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if features is None:
        return rows.astype(np.float64)
    out = np.asarray(features(rows.reshape(-1, *shape)), np.float64)
    if out.ndim != 2 or len(out) != len(rows) or not np.isfinite(out).all():
        raise ArgumentError("features", f"must give finite rows [{len(rows)}, F], but gave shape {out.shape}")
    return out

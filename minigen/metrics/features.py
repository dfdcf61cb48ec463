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
    """Both sets as ``[n, F]``, uint8 or floating. Raises TypeError or ValueError, naming the argument, for bad ones."""
    sets = {"samples": as_rows(samples, name="samples"), "real": as_rows(real, name="real")}
    (_, shape), (_, real_shape) = sets.values()
    if shape != real_shape:
        raise ArgumentError("samples", f"must have items of shape {real_shape} as real has, not {shape}")
    a, b = (apply(features, rows.reshape(-1, *shape)) for rows, _ in sets.values())
    return a, b


def apply(features: Features | None, items: np.ndarray) -> np.ndarray:
    """``features`` of ``items[n, ...]``, or their numbers as they are: ``[n, F]``, uint8 or floating."""
    if features is None:
        return items.reshape(len(items), -1)
    if not callable(features):
        raise ArgumentTypeError("features", f"must be a function of items or None, not {features!r}")
    out = np.asarray(features(items))
    if out.dtype not in (np.float32, np.float64):
        out = out.astype(np.float64)
    if out.ndim != 2 or len(out) != len(items) or not np.isfinite(out).all():
        raise ArgumentError("features", f"must give finite rows [{len(items)}, F], but gave shape {out.shape}")
    return out


def moments(rows: np.ndarray, block: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """Mean ``float64[F]`` and covariance ``float64[F, F]``, with one less than their number, of ``rows[n, F]``."""
    mean = rows.mean(axis=0, dtype=np.float64)
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for a in range(0, len(rows), block):
        part = rows[a : a + block] - mean
        total += part.T @ part
    return mean, total / (len(rows) - 1)

"""The variances of a VAE's Gaussian columns: where learned ones start, and what they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.backend import Array
from minigen.estimators import scaling
from minigen.models.likelihood import LEARNED
from minigen.placement import Placement
from minigen.reference import gaussian_loss, mixed_loss

LEAST_OF_MEAN = 0.01  # of the mean variance: where a column's learned variance starts at least


def first_logvar(variance: str, rows: Array, scale: float, ends: np.ndarray | None, ops: Placement) -> np.ndarray:
    """The log variances of ``rows[N, D]`` times ``scale``, which are right for a decoder that knows only means.

    ``float64[D]`` for ``variance="learned"``, of which those of labels are 0, else ``float64[1]``. ``ends`` of the
    blocks of a mixed likelihood.
    """
    variances = (scaling.measure(rows, ops).std * scale) ** 2
    numbers = np.arange(len(variances)) if ends is None else mixed_loss.numbers(ends)
    start, mean = np.ones(len(variances)), variances[numbers].mean() if len(numbers) else 1.0
    # A column that hardly varies would drown the others at first.
    start[numbers] = np.maximum(variances[numbers], LEAST_OF_MEAN * mean)
    start = start if variance == "learned" else np.array([mean])
    return gaussian_loss.bounded(np.log(np.maximum(start, np.finfo(np.float64).tiny)))


def values(variance: float | str, logvar: Any, ends: np.ndarray | None) -> Any:
    """The variances in use: a number, or ``float64[D]`` for ``variance="learned"``, NaN in the columns of labels.

    ``logvar`` holds the logarithms of those that are learned.
    """
    if variance not in LEARNED:
        return np.float64(variance)
    variances = np.exp(gaussian_loss.bounded(np.asarray(logvar, np.float64)))
    if variance != "learned":
        return variances[0]
    if ends is not None:
        for block in mixed_loss.labels(ends):
            variances[block] = np.nan
    return variances

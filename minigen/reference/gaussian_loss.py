"""gaussian_loss: a VAE's Gaussian reconstruction term whose variances are parameters that are learned.

The decoder gives the means ``m[B,D]`` of ``x[B,D]``. The variance ``v = exp(logvar)`` is no output of the decoder but
a parameter, ``logvar[D]`` for one of each column or ``logvar[1]`` for one of all (Rybkin, Daniilidis and Levine 2021,
who call it sigma-VAE). Kingma and Welling 2014, appendix C.2, with ``B`` rows::

    -log p(x|m) = (x - m)^2 / (2 v) + (log(2 pi) + logvar) / 2          summed over the columns; loss = mean of rows
    dm          = (m - x) / (v B)

By ``logvar_d``, since ``d(1/v)/dlogvar = -1/v``, and with the weights ``w_r`` of the rows (all 1 for the mean; those
of importance sampling add up to B)::

    dlogvar_d = sum_r w_r / B (1 - (x - m)^2 / v) / 2
              = (1 - sum_r dm_rd (m_rd - x_rd)) / 2                     as dm_rd is w_r (m_rd - x_rd) / (v_d B)

The second form needs nothing but the gradient that goes into the decoder anyway, weighted or not. One variance of all
columns has the sum over d as its gradient.

``logvar`` is taken as bounded to [-14, 80]. Below: where a column is constant, or the decoder knows it exactly, the
likelihood has no maximum, ``logvar`` would sink for ever, ``1 / v`` overflow and ``0 / 0`` follow. At -14 a standard
deviation is 9.1e-4: a little less than the rounding of 8-bit pixels in [0, 1], ``1 / 255 / sqrt(12)`` = 1.1e-3, and
a thousandth of a standardised column's. Above: ``e^80`` and its reciprocal are still normal float32 numbers. Outside
of the bounds the derivative is 0. What is stored there is the derivative at the bound where a step down it leads back
inside, and 0 where it leads further out, so that a ``logvar`` that was carried out can come back.
"""

from __future__ import annotations

import math

import numpy as np

from .underflow import small_is_zero

LOGVAR_LOW, LOGVAR_HIGH = -14.0, 80.0
"""Between these lies the log variance that is computed with."""


def bounded(logvar: np.ndarray) -> np.ndarray:
    """``logvar`` between its bounds. NaN stays NaN."""
    return np.clip(logvar, LOGVAR_LOW, LOGVAR_HIGH)


@small_is_zero
def forward(mean: np.ndarray, x: np.ndarray, logvar: np.ndarray) -> tuple[np.ndarray, np.floating, np.ndarray]:
    """``rows[B]``, their mean, and ``dmean[B,D]``, from ``mean[B,D]``, ``x[B,D]`` and ``logvar[D]`` or ``[1]``.

    Raises ValueError for ``B = 0``.
    """
    if len(x) == 0:
        raise ValueError("x has no rows, the mean loss of nothing is not defined")
    logvar = bounded(logvar)
    precision = np.exp(-logvar)
    rows = ((x - mean) ** 2 * precision + (logvar + math.log(2 * math.pi))).sum(axis=1) / 2
    return rows, rows.mean(), (mean - x) * precision / len(x)


@small_is_zero
def logvar_gradient(dmean: np.ndarray, mean: np.ndarray, x: np.ndarray, logvar: np.ndarray) -> np.ndarray:
    """``dlogvar`` of the shape of ``logvar``, ``[D]`` or ``[1]``, from ``dmean[B,D]`` as :func:`forward` gives it, or
    with its rows weighted."""
    columns = (1 - (dmean * (mean - x)).sum(axis=0)) / 2
    gradient = columns if logvar.shape == columns.shape else columns.sum(keepdims=True)
    outwards = ((logvar < LOGVAR_LOW) & (gradient > 0)) | ((logvar > LOGVAR_HIGH) & (gradient < 0))
    return np.where(outwards, 0, gradient)

"""vae_loss: the reconstruction term ``-log p(x|z)`` of a VAE's negative ELBO, in nats, a value a row.

Kingma and Welling 2014, equation 10 (second term) and appendix C: the decoder gives each of the ``D`` columns of
``x[B,D]`` its own distribution. The loss is the mean over the ``B`` rows, so each gradient carries ``1 / B``.

Bernoulli (appendix C.1, equation 11), the decoder's output being logits ``l``, ``p = sigmoid(l)``. With
``log p = -softplus(-l) = l - softplus(l)`` and ``log(1 - p) = -softplus(l)``::

    -log p(x|l) = -x log p - (1 - x) log(1 - p) = softplus(l) - x l        summed over the columns
    d/dl        = sigmoid(l) - x                                           since softplus' = sigmoid

``softplus(l) - x l`` is computed as ``max(l, 0) - x l + log(1 + e^-|l|)``, the small term last: no overflow at
``|l| = 1e4``, and no digits lost where the prediction is right.
For grey values ``x`` in [0, 1] it is the cross entropy, the usual loss on MNIST (not normalised as a density).

Gaussian (appendix C.2, with a fixed variance v)::

    -log p(x|mean) = (x - mean)^2 / (2 v) + log(2 pi v) / 2                summed over the columns
    d/dmean        = (mean - x) / v
"""

from __future__ import annotations

import math

import numpy as np

from .. import checks
from .activations import sigmoid
from .underflow import small_is_zero


@small_is_zero
def bernoulli(logits: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.floating, np.ndarray]:
    """``rows[B]``, their mean, and ``dlogits[B,D]``, from ``logits[B,D]`` and ``x[B,D]`` in [0, 1].

    Raises ValueError for ``B = 0``.
    """
    check_rows(x)
    rows = (np.maximum(logits, 0) - x * logits + np.log1p(np.exp(-np.abs(logits)))).sum(axis=1)
    dlogits = (sigmoid(logits) - x) / len(x)
    return rows, rows.mean(), dlogits


@small_is_zero
def gaussian(mean: np.ndarray, x: np.ndarray, variance: float = 1.0) -> tuple[np.ndarray, np.floating, np.ndarray]:
    """``rows[B]``, their mean, and ``dmean[B,D]``, from ``mean[B,D]`` and ``x[B,D]``; one fixed ``variance`` > 0.

    Raises ValueError for a variance that is not positive and finite, and for ``B = 0``.
    """
    check_rows(x)
    checks.number("variance", variance, 0, exclude_low=True)
    rows = ((x - mean) ** 2 / (2 * variance) + math.log(2 * math.pi * variance) / 2).sum(axis=1)
    dmean = (mean - x) / (variance * len(x))
    return rows, rows.mean(), dmean


def check_rows(x: np.ndarray) -> None:
    """Raise ValueError if ``x`` has no rows."""
    if len(x) == 0:
        raise ValueError("x has no rows, the mean loss of nothing is not defined")

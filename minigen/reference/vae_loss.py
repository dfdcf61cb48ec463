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
from collections.abc import Callable

import numpy as np

from minigen import checks
from minigen.reference.activations import sigmoid
from minigen.reference.underflow import small_is_zero


def bernoulli(logits: np.ndarray, x: np.ndarray, variance: float) -> tuple[np.ndarray, np.ndarray]:
    """``-log p(x|l)`` of each column ``[B,D]`` for ``x`` in [0, 1], and its derivative over B; it has no variance."""
    return np.maximum(logits, 0) - x * logits + np.log1p(np.exp(-np.abs(logits))), (sigmoid(logits) - x) / len(x)


def gaussian(mean: np.ndarray, x: np.ndarray, variance: float) -> tuple[np.ndarray, np.ndarray]:
    """``-log p(x|mean)`` of each column ``[B,D]`` with one fixed ``variance``, and its derivative over B."""
    losses = (x - mean) ** 2 / (2 * variance) + math.log(2 * math.pi * variance) / 2
    return losses, (mean - x) / (variance * len(x))


TERMS: dict[str, Callable[[np.ndarray, np.ndarray, float], tuple[np.ndarray, np.ndarray]]] = {
    "bernoulli": bernoulli,
    "gaussian": gaussian,
}
LIKELIHOODS = tuple(TERMS)


@small_is_zero
def forward(
    output: np.ndarray, x: np.ndarray, likelihood: str = "bernoulli", variance: float = 1.0
) -> tuple[np.ndarray, np.floating, np.ndarray]:
    """``rows[B]``, their mean, and ``doutput[B,D]``, from the decoder's ``output[B,D]`` and the data ``x[B,D]``.

    Raises ValueError for an unknown ``likelihood``, a ``variance`` that is not positive and finite, and for ``B = 0``.
    """
    terms = TERMS[checks.choice("likelihood", likelihood, LIKELIHOODS)]
    checks.number("variance", variance, 0, exclude_low=True)
    if len(x) == 0:
        raise ValueError("x has no rows, the mean loss of nothing is not defined")
    losses, doutput = terms(output, x, variance)
    rows = losses.sum(axis=1)
    return rows, rows.mean(), doutput

"""vae_loss: the reconstruction term ``-log p(x|z)`` of a VAE's negative ELBO, in nats, a value a row.

Kingma and Welling 2014, equation 10 (second term) and appendix C: the decoder gives each of the ``D`` columns of
``x[B,D]`` its own distribution. The loss is the mean over the ``B`` rows, so each gradient carries ``1 / B``.

Bernoulli (appendix C.1, equation 11), the decoder's output being logits ``l``, ``p = sigmoid(l)``. With
``log p = -softplus(-l) = l - softplus(l)`` and ``log(1 - p) = -softplus(l)``::

    -log p(x|l) = -x log p - (1 - x) log(1 - p) = softplus(l) - x l        summed over the columns
    d/dl        = sigmoid(l) - x                                           since softplus' = sigmoid

``softplus(l) - x l`` is computed as ``max(l, 0) - x l + log(1 + e^-|l|)``, the small term last: no overflow at
``|l| = 1e4``, and no digits lost where the prediction is right. Nor does the gradient lose them there: for ``l >= 0``
it is ``(1 - x) - sigmoid(-l)``, which at ``l = 17, x = 1`` is -4.1e-8, where in float32 ``sigmoid(l) - x`` is 0.
For grey values ``x`` in [0, 1] it is the cross entropy, the usual loss on MNIST (not normalised as a density).

Continuous Bernoulli (Loaiza-Ganem and Cunningham 2019, equations 6 to 9): the density on [0, 1] that is proportional to
``p^x (1 - p)^(1-x)``, with ``p = sigmoid(l)`` again. As ``p^x (1 - p)^(1-x) = e^(x l) / (1 + e^l)``, the density is
proportional to ``e^(x l)``, and what that integrates to over [0, 1] normalises it::

    A(l)        = log int_0^1 e^(x l) dx = log((e^l - 1) / l)
    -log p(x|l) = A(l) - x l                                               summed over the columns
    d/dl        = A'(l) - x = E[x] - x,   E[x] = 1 / (1 - e^-l) - 1 / l    (their equation 8; not sigmoid(l))

That is their ``log C`` in logits: ``C(p) = 2 atanh(1 - 2 p) / (1 - 2 p) = l / tanh(l / 2)``, as ``1 - 2 p =
-tanh(l / 2)``. With ``a = |l|`` and since ``A(l) = l + A(-l)`` and ``E[x]`` at ``l`` is 1 less ``E[x]`` at ``-l``::

    A(l) = max(l, 0) + log((1 - e^-a) / a)
    E[x] = t for l < 0, 1 - t for l >= 0,   t = 1 / a - e^-a / (1 - e^-a)

so that nothing overflows, and the gradient ``(1 - x) - t`` keeps its digits where ``x`` is near 1. Near ``l = 0``
(``p = 1/2``) both have removable singularities. Below ``a = 1`` we take the power series, whose coefficients have the
Bernoulli numbers ``B_2n`` (Abramowitz and Stegun 1964, 23.1.1: ``s / (e^s - 1) = 1 - s/2 + sum B_2n s^2n / (2n)!``)::

    t    = 1/2 - sum_n B_2n a^(2n-1) / (2n)!                               = 1/2 - a/12 + a^3/720 - ...
    A(l) = l/2 + sum_n B_2n a^2n / (2n (2n)!)                              = l/2 + a^2/24 - a^4/2880 + ...

It converges for ``a < 2 pi``: nine terms are right to 3e-16 at 1, four to float32's rounding.

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
    wrong = sigmoid(-np.abs(logits))
    slope = np.where(logits < 0, wrong - x, (1 - x) - wrong)
    return np.maximum(logits, 0) - x * logits + np.log1p(np.exp(-np.abs(logits))), slope / len(x)


def continuous_bernoulli(logits: np.ndarray, x: np.ndarray, variance: float) -> tuple[np.ndarray, np.ndarray]:
    """``-log p(x|l)`` of each column ``[B,D]`` for ``x`` in [0, 1], and its derivative over B; it has no variance."""
    a = np.abs(logits)
    near, far = np.minimum(a, 1), np.maximum(a, 1)
    series = sum(B * near ** (2 * n) / (2 * n * math.factorial(2 * n)) for n, B in enumerate(BERNOULLI_NUMBERS, 1))
    plain = np.maximum(logits, 0) - x * logits + np.log(-np.expm1(-far) / far)
    smaller = _mean_below_half(a)
    slope = np.where(logits < 0, smaller - x, (1 - x) - smaller)
    return np.where(a < 1, (0.5 - x) * logits + series, plain), slope / len(x)


def continuous_bernoulli_mean(logits: np.ndarray) -> np.ndarray:
    """``E[x]`` of each column."""
    smaller = _mean_below_half(np.abs(logits))
    return np.where(logits < 0, smaller, 1 - smaller)


def _mean_below_half(a: np.ndarray) -> np.ndarray:
    """``E[x]`` at the logit ``-a``, for ``a >= 0``."""
    near, far = np.minimum(a, 1), np.maximum(a, 1)
    series = 0.5 - sum(B * near ** (2 * n - 1) / math.factorial(2 * n) for n, B in enumerate(BERNOULLI_NUMBERS, 1))
    return np.where(a < 1, series, 1 / far - np.exp(-far) / -np.expm1(-far))


def gaussian(mean: np.ndarray, x: np.ndarray, variance: float) -> tuple[np.ndarray, np.ndarray]:
    """``-log p(x|mean)`` of each column ``[B,D]`` with one fixed ``variance``, and its derivative over B."""
    losses = (x - mean) ** 2 / (2 * variance) + math.log(2 * math.pi * variance) / 2
    return losses, (mean - x) / (variance * len(x))


BERNOULLI_NUMBERS = tuple(
    p / q for p, q in ((1, 6), (-1, 30), (1, 42), (-1, 30), (5, 66), (-691, 2730), (7, 6), (-3617, 510), (43867, 798))
)
"""``B_2``, ``B_4``, ... ``B_18``."""

TERMS: dict[str, Callable[[np.ndarray, np.ndarray, float], tuple[np.ndarray, np.ndarray]]] = {
    "bernoulli": bernoulli,
    "gaussian": gaussian,
    "continuous_bernoulli": continuous_bernoulli,
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

"""importance: several draws of the latent for each row, weighted by how well they explain it.

Burda, Grosse and Salakhutdinov 2016, the importance weighted autoencoder. With ``k`` draws ``z_i ~ q(z|x)`` of a row
and ``w_i = p(x, z_i) / q(z_i|x)``, their equation 8 is a bound of ``log p(x)`` that k = 1 makes the ELBO, and that
rises with k::

    L_k = E[log 1/k sum_i w_i],        loss = -mean over the rows of log 1/k sum_i w_i

A row's draws are its rows ``b, b + B, b + 2 B, ...`` among all ``R = k B``: a block of every row after the other.

Forward. ``z = mu + sigma eps``, ``sigma = exp(logvar / 2)``, ``logvar = min(h, 40)`` as in
:mod:`minigen.reference.latent`. As ``(z - mu) / sigma`` is ``eps`` and the two ``log 2 pi`` cancel, a draw has ::

    ratio  = log q(z|x) - log p(z) = 1/2 sum_j (z_j^2 - eps_j^2 - logvar_j)
    log w  = log p(x|z) - ratio    = -(nats + ratio)              nats: the reconstruction term of that draw

whose mean is the KL; here it is left as drawn, since the weights are not linear in it.

Gradient (their equations 13 and 14). With ``d log w / w = dw / w^2``, or of a log of a sum of exponentials::

    d loss / d log w_i = -w~_i / B,    w~_i = w_i / sum_i w_i = softmax over the row's draws of log w

So each draw's loss ``nats + ratio`` counts ``w~_i / B`` instead of ``1 / R``: ``weights = k w~``, whose mean is 1, over
the R that the mean over all draws has. The weights do not get a gradient of their own: they *are* the derivative. The
gradient of nats goes into the decoder with its rows scaled by the weights, comes out as ``dz``, and joins the ratio's,
which depends on mu and logvar through z, ``d ratio / dz = z``, and on logvar itself, -1/2::

    g        = dz + weights / R z
    dmu      = sum over the draws of g                            as dz/dmu = 1
    dlogvar  = sum over the draws of g eps sigma / 2 - weights / (2 R)
    dh       = dlogvar where h <= 40, else 0

The largest ``log w`` of a row is subtracted before ``exp``: no weight overflows, and one is not 0.
"""

from __future__ import annotations

import numpy as np

from .latent import LOGVAR_LIMIT, posterior, split
from .underflow import small_is_zero


def repeat(x: np.ndarray, rows: int) -> np.ndarray:
    """``x[B,D]`` over and over, ``[rows,D]``: row r is row ``r % B`` of ``x``."""
    return x[np.arange(rows) % len(x)]


@small_is_zero
def sample(heads: np.ndarray, eps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.floating]:
    """``z[R,L]``, ``rows[R]`` (log q(z|x) - log p(z), nats) and their mean, from ``heads[B,2L]`` and ``eps[R,L]``.

    Raises ValueError for ``B = 0`` or ``R = 0``.
    """
    if len(heads) == 0 or len(eps) == 0:
        raise ValueError("heads has no rows, the mean KL of nothing is not defined")
    mu, logvar = posterior(repeat(heads, len(eps)))
    z = mu + np.exp(logvar / 2) * eps
    rows = (z * z - eps * eps - logvar).sum(axis=1) / 2
    return z, rows, rows.mean()


@small_is_zero
def weights(nats: np.ndarray, ratios: np.ndarray, draws: int) -> tuple[np.ndarray, np.floating]:
    """``weights[R]``, of mean 1, and the loss, from ``nats[R]`` and ``ratios[R]`` with ``draws`` draws a row.

    Raises ValueError for ``R = 0`` and where R is no multiple of ``draws``.
    """
    if len(nats) == 0 or len(nats) % draws:
        raise ValueError(f"nats must have a multiple of {draws} rows, at least one, not {len(nats)}")
    surprise = (nats + ratios).reshape(draws, -1)  # -log w
    least = surprise.min(axis=0)
    w = np.exp(least - surprise)
    total = w.sum(axis=0)
    return (draws * w / total).reshape(-1), (least - np.log(total / draws)).mean()


@small_is_zero
def backward(dz: np.ndarray, z: np.ndarray, heads: np.ndarray, eps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``dheads[B,2L]``, from ``dz[R,L]``, which comes from the decoder, and what the forward pass had."""
    _, logvar = posterior(repeat(heads, len(eps)))
    share = weights[:, None] / len(eps)
    g = dz + share * z
    draws = np.concatenate([g, (g * eps * np.exp(logvar / 2) - share) / 2], axis=1)
    dheads = np.zeros_like(heads)
    for first in range(0, len(eps), len(heads)):
        block = draws[first : first + len(heads)]
        dheads[: len(block)] += block
    dh = split(dheads)[1]
    dh[split(heads)[1] > LOGVAR_LIMIT] = 0
    return dheads

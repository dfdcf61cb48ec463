"""gumbel_softmax: a generator's output for a table of numbers and labels, and its derivative.

The columns of ``z[B,D]`` are cut into blocks; block g ends before column ``ends[g]``. A block of one column is a
number, ``y = act(z)``. A wider one is a label whose logits are ``z``.

A draw from the softmax of logits is the largest of ``z_k + g_k``, where the ``g_k`` are independent draws of Gumbel's
distribution, ``P(g < t) = e^(-e^(-t))`` (Gumbel 1954). For with ``w_k = e^z_k``, ``e_k = e^(-g_k)`` is exponentially
distributed, ``P(e > t) = e^-t``, and of the clocks ``e_k / w_k``, which ring at the rates ``w_k``, k is the first one
with probability ``w_k / sum_j w_j``. The largest has no derivative, so in training a softmax at a ``temperature`` T
takes its place (Jang, Gu and Poole 2017, equation 2; Maddison, Mnih and Teh 2017, equation 10)::

    y_k = e^((z_k + g_k) / T) / sum_j e^((z_j + g_j) / T)

which goes to the one-hot draw as T goes to 0, and of which the largest is the same draw at any T. With uniforms u it is

    g_k = -log(e_k),   e_k = -log(u_k + 2^-24), at least 2^-25

since u is one of 0, 2^-24, ..., 1 - 2^-24: so ``g`` lies between -2.81 and 17.33. Without ``u`` there is no noise and
the temperature is 1: ``y`` is the softmax of ``z``, the probabilities of the labels.

The noise is added and does not depend on ``z``, so the derivative is that of a softmax, computed from the output::

    dy_j / dz_k = y_j ((j = k) - y_k) / T
    dz_k = sum_j dy_j y_j ((j = k) - y_k) / T = y_k (dy_k - sum_j dy_j y_j) / T

A penalty on the discriminator's gradient has no second derivative of this: it is a function of the discriminator's
weights, and takes rows of the generator as they are.
"""

from __future__ import annotations

import numpy as np

from . import activations
from .mixed_loss import labels, numbers
from .underflow import small_is_zero


@small_is_zero
def forward(z: np.ndarray, u: np.ndarray | None, ends: np.ndarray, activation: str, temperature: float) -> np.ndarray:
    """``y[B,D]`` from ``z[B,D]``, uniforms ``u[B,D]`` in [0, 1) or None, and the blocks' ``ends[G]``."""
    y, columns = np.empty_like(z), numbers(ends)
    y[:, columns] = activations.forward(z[:, columns], activation)
    for block in labels(ends):
        logits = z[:, block] if u is None else (z[:, block] + gumbel(u[:, block])) / z.dtype.type(temperature)
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        y[:, block] = e / e.sum(axis=1, keepdims=True)
    return y


def gumbel(u: np.ndarray) -> np.ndarray:
    """Draws of Gumbel's distribution from uniforms that are multiples of 2^-24 in [0, 1)."""
    one = u.dtype.type
    return -np.log(np.maximum(-np.log(u + one(2.0**-24)), one(2.0**-25)))


@small_is_zero
def backward(dy: np.ndarray, y: np.ndarray, ends: np.ndarray, activation: str, temperature: float) -> np.ndarray:
    """``dz[B,D]`` from ``dy[B,D]`` and the output ``y[B,D]`` of :func:`forward` with noise."""
    dz, columns = np.empty_like(dy), numbers(ends)
    dz[:, columns] = activations.backward(dy[:, columns], y[:, columns], activation)
    for block in labels(ends):
        of_block, p = dy[:, block], y[:, block]
        dz[:, block] = p * (of_block - (of_block * p).sum(axis=1, keepdims=True)) / dy.dtype.type(temperature)
    return dz

"""normalization: numbers brought to mean 0 and variance 1, then scaled and shifted by learnt ``gamma`` and ``beta``.

Batch normalization (Ioffe and Szegedy 2015, algorithm 1) takes mean and variance of each column over the rows of a
batch, layer normalization (Ba et al. 2016, equation 4) of each row over its columns. Of the ``n`` numbers ``x_i`` that
share their statistics::

    m = sum_i x_i / n        v = sum_i (x_i - m)^2 / n        s = 1 / sqrt(v + eps)
    h_i = (x_i - m) s        z_i = gamma h_i + beta           y_i = act(z_i)

Backward, from ``dz`` (Ioffe and Szegedy, section 3). ``gamma`` and ``beta`` reach their column's ``z`` in each row::

    dgamma = sum over rows of dz h            dbeta = sum over rows of dz

``x_i`` reaches all ``z`` that share its statistics. Let ``g = dz gamma`` be the gradient of ``h``. The derivatives of
the statistics are ``dm/dx_i = 1/n`` and ``ds/dx_i = -s^3 (x_i - m) / n = -s^2 h_i / n``, where the way over ``m`` in
``v`` contributes nothing, because the ``x_j - m`` sum to 0. So ``dh_j/dx_i = s ([i = j] - 1/n - h_i h_j / n)`` and::

    dx_i = s (g_i - mean_j g_j - h_i mean_j (g_j h_j))

This projects ``g`` onto what is orthogonal to the vectors ``1`` and ``h``, up to ``eps``: moving all ``x`` together or
stretching them changes no output.

The gradient of a gradient penalty (:mod:`minigen.reference.penalty`) asks for more of layer normalization. When ``x``
moves along ``t``, ``h`` moves by the same symmetric matrix, ``h' = s (t - mean t - h mean(h t))``, ``z' = gamma h'``.
For fixed ``dz`` the derivatives of ``<dz, z'>`` are, by ``gamma``, the sum over rows of ``dz h'``, by ``beta`` nothing,
and by ``x``, with ``g`` and ``t`` less their means, ``a = mean(h g)``, ``b = mean(h t)`` and ``c = mean(g t)``::

    <g, h'> = n s (c - a b)        da/dx_i = s (g_i - a h_i) / n        db/dx_i = s (t_i - b h_i) / n
    d<g, h'>/dx_i = -s^2 (b g_i + a t_i + (c - 3 a b) h_i)

For data that are only judged or generated, batch normalization takes running statistics, ``r = (1 - momentum) r +
momentum (of the batch)`` after each batch of training, of the variance with ``n - 1`` in place of ``n`` (section 3.1).
They are neither parameters nor part of the gradient. One row alone has variance 0: its ``h`` is 0.

Shapes: ``x[G,R,O]`` are ``G`` batches of ``R`` rows, each with statistics of its own, ``mean`` and ``inv_std[G,O]``, by
which the running ones are moved one after the other; of layer normalization ``x[B,O]``, ``mean`` and ``inv_std[B]``.
"""

from __future__ import annotations

import numpy as np

from minigen.reference import activations
from minigen.reference.underflow import small_is_zero


def _affine(h: np.ndarray, gamma: np.ndarray, beta: np.ndarray, activation: str) -> np.ndarray:
    return activations.forward(h * gamma + beta, activation)


def _through(g: np.ndarray, h: np.ndarray, inv_std: np.ndarray, axis: int) -> np.ndarray:
    """The gradient of ``x`` from ``g``, that of ``h``; statistics are over ``axis``."""
    along = (g * h).mean(axis=axis, keepdims=True)
    return inv_std * (g - g.mean(axis=axis, keepdims=True) - h * along)


@small_is_zero
def batch_forward(
    x: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    running_mean: np.ndarray,
    running_var: np.ndarray,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str = "linear",
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``y[G,R,O]``, ``mean[G,O]``, ``inv_std[G,O]``, and the moved ``running_mean[O]`` and ``running_var[O]``."""
    rows = x.shape[1]
    mean, var = x.mean(axis=1), x.var(axis=1)
    inv_std = 1 / np.sqrt(var + eps)
    y = _affine((x - mean[:, None]) * inv_std[:, None], gamma, beta, activation)
    for m, v in zip(mean, var * (rows / max(rows - 1, 1)), strict=True):
        running_mean = (1 - momentum) * running_mean + momentum * m
        running_var = (1 - momentum) * running_var + momentum * v
    return y, mean, inv_std, running_mean, running_var


@small_is_zero
def batch_infer(
    x: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    running_mean: np.ndarray,
    running_var: np.ndarray,
    eps: float = 1e-5,
    activation: str = "linear",
) -> np.ndarray:
    """``y[B,O]`` by the running statistics."""
    return _affine((x - running_mean) / np.sqrt(running_var + eps), gamma, beta, activation)


@small_is_zero
def batch_dgrad(dz: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, inv_std: np.ndarray) -> np.ndarray:
    """``dx[G,R,O]``."""
    s = inv_std[:, None]
    return _through(dz * gamma, (x - mean[:, None]) * s, s, axis=1)


@small_is_zero
def batch_wgrad(dz: np.ndarray, x: np.ndarray, mean: np.ndarray, inv_std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``dgamma[O]`` and ``dbeta[O]``."""
    h = (x - mean[:, None]) * inv_std[:, None]
    return (dz * h).sum(axis=(0, 1)), dz.sum(axis=(0, 1))


@small_is_zero
def layer_forward(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float = 1e-5, activation: str = "linear"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``y[B,O]``, ``mean[B]`` and ``inv_std[B]``."""
    mean, inv_std = x.mean(axis=1), 1 / np.sqrt(x.var(axis=1) + eps)
    return _affine((x - mean[:, None]) * inv_std[:, None], gamma, beta, activation), mean, inv_std


@small_is_zero
def layer_dgrad(dz: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, inv_std: np.ndarray) -> np.ndarray:
    """``dx[B,O]``."""
    s = inv_std[:, None]
    return _through(dz * gamma, (x - mean[:, None]) * s, s, axis=1)


@small_is_zero
def layer_tangent(
    x_tangent: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> np.ndarray:
    """``z_tangent[B,O]``, how ``z`` moves when ``x`` moves along ``x_tangent[B,O]``."""
    s = inv_std[:, None]
    return gamma * _through(x_tangent, (x - mean[:, None]) * s, s, axis=1)


@small_is_zero
def layer_tangent_wgrad(
    dz: np.ndarray, x_tangent: np.ndarray, x: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> np.ndarray:
    """``dgamma[O]``: the gradient of ``<dz, z_tangent>``."""
    s = inv_std[:, None]
    return (dz * _through(x_tangent, (x - mean[:, None]) * s, s, axis=1)).sum(axis=0)


@small_is_zero
def layer_curvature(
    dz: np.ndarray, x_tangent: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, inv_std: np.ndarray
) -> np.ndarray:
    """``[B,O]``, the gradient of ``<dz, z_tangent>`` by ``x``."""
    s = inv_std[:, None]
    h, g, t = (x - mean[:, None]) * s, dz * gamma, x_tangent
    g, t = g - g.mean(axis=1, keepdims=True), t - t.mean(axis=1, keepdims=True)
    a, b, c = ((p * q).mean(axis=1, keepdims=True) for p, q in ((h, g), (h, t), (g, t)))
    return -(s**2) * (b * g + a * t + (c - 3 * a * b) * h)


@small_is_zero
def layer_wgrad(dz: np.ndarray, x: np.ndarray, mean: np.ndarray, inv_std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``dgamma[O]`` and ``dbeta[O]``."""
    h = (x - mean[:, None]) * inv_std[:, None]
    return (dz * h).sum(axis=0), dz.sum(axis=0)

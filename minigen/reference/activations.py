"""activations: elementwise ``y = act(z)``, any shape, and the derivative taken from the stored ``y``.

Backward is the chain rule for a function of one number: ``dz = dy * act'(z)``. Each derivative below is a function of
the output alone, so a layer needs to keep only ``y``:

=============  ======================  =========================================================================
name           y                       act'(z) from y
=============  ======================  =========================================================================
linear         z                       1
relu           max(z, 0)               1 where z > 0, that is where y > 0; else 0 (the subgradient 0 at z = 0)
leaky_relu     z where z > 0, else az  1 where y > 0, else a: y has the sign of z because a = 0.2 > 0
elu            z where z > 0, else     1 where y > 0, else e^z = y + 1: y has the sign of z
               e^z - 1
tanh           tanh z                  (sinh/cosh)' = (cosh^2 - sinh^2) / cosh^2 = 1 - y^2 = (1 - y) (1 + y)
sigmoid        1 / (1 + e^-z)          e^-z / (1 + e^-z)^2 = y (1 - y)
softplus       log(1 + e^z)            e^z / (1 + e^z) = 1 - 1 / (1 + e^z) = 1 - e^-y
=============  ======================  =========================================================================

What the output has lost in rounding, its derivative has lost too: in float32 a sigmoid's ``y (1 - y)`` is 0.9 % off at
z = 12 and 0 at z = 17, where ``y`` rounds to 1. So a loss of a probability is computed from the logit, not through a
sigmoid's derivative (:mod:`minigen.reference.gan_loss`, :mod:`minigen.reference.vae_loss`).

:func:`bend` is ``act''(z) / act'(z)``, what a second derivative needs (see ``penalty``): 0 for the first three, which
are made of straight pieces, and of the others, with ``act'`` from the table::

    elu       act'' = act' where z <= 0, else 0           bend = 1 where y <= 0, else 0
    tanh      act'' = -2 y act'                           bend = -2 y
    sigmoid   act'' = act' (1 - y) - y act'               bend = 1 - 2 y
    softplus  act'' = e^-y act'                           bend = e^-y

No exponential here sees a positive argument, so nothing overflows however large ``z`` is:
``softplus(z) = max(z, 0) + log(1 + e^-|z|)``, and ``sigmoid`` is written with ``e^-|z|`` in both halves. NaN stays NaN,
forward and in a derivative; only ``linear``, whose derivative does not depend on ``y``, does not see a NaN there.

Sources: relu Nair and Hinton 2010; leaky_relu Maas et al. 2013, with the slope of Radford et al. 2016;
elu Clevert et al. 2016, with their alpha of 1; softplus Dugas et al. 2001.
"""

from __future__ import annotations

import numpy as np

from minigen import checks
from minigen.reference.underflow import small_is_zero

DENSE_ACTIVATIONS = ("linear", "relu", "leaky_relu", "elu", "tanh", "sigmoid", "softplus")
"""Those that a dense layer applies itself, since it keeps its output alone."""
CURVED = ("elu", "tanh", "sigmoid", "softplus")
"""Those whose second derivative is not 0 between kinks."""
LEAKY_SLOPE = 0.2
"""Slope of ``leaky_relu`` below zero (Radford et al. 2016, section 4)."""


def check(activation: str) -> None:
    """Raise ValueError, listing the known names, unless ``activation`` is one of them."""
    checks.choice("activation", activation, DENSE_ACTIVATIONS)


@small_is_zero
def sigmoid(z: np.ndarray) -> np.ndarray:
    """``1 / (1 + e^-z)``, elementwise, for z of either sign without overflow."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


@small_is_zero
def softplus(z: np.ndarray) -> np.ndarray:
    """``log(1 + e^z)``, elementwise, without overflow."""
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


@small_is_zero
def forward(z: np.ndarray, activation: str) -> np.ndarray:
    """``y = act(z)``, any shape. Raises ValueError for an unknown activation."""
    check(activation)
    if activation == "relu":
        return np.maximum(z, 0)
    if activation == "leaky_relu":
        return np.where(z > 0, z, LEAKY_SLOPE * z)
    if activation == "elu":
        return np.where(z > 0, z, np.expm1(np.minimum(z, 0)))
    if activation == "tanh":
        return np.tanh(z)
    if activation == "sigmoid":
        return sigmoid(z)
    if activation == "softplus":
        return softplus(z)
    return z.copy()


def _by_sign(y: np.ndarray, low: float, high: float) -> np.ndarray:
    """``low`` where y <= 0, ``high`` where y > 0, and a NaN where y is one."""
    return np.where(y > 0, y.dtype.type(high), np.where(y <= 0, y.dtype.type(low), y))


@small_is_zero
def derivative(y: np.ndarray, activation: str) -> np.ndarray:
    """``act'(z)`` at the ``z`` whose output is ``y``, same shape. Raises ValueError for an unknown activation."""
    check(activation)
    if activation == "relu":
        return _by_sign(y, 0, 1)
    if activation == "leaky_relu":
        return _by_sign(y, LEAKY_SLOPE, 1)
    if activation == "elu":
        return np.where(y > 0, y.dtype.type(1), y + 1)
    if activation == "tanh":
        return (1 - y) * (1 + y)
    if activation == "sigmoid":
        return y * (1 - y)
    if activation == "softplus":
        return -np.expm1(-y)
    return np.ones_like(y)


@small_is_zero
def backward(dy: np.ndarray, y: np.ndarray, activation: str) -> np.ndarray:
    """``dz = dy * act'(z)`` from the stored output ``y``, all of one shape. Raises as :func:`derivative` does."""
    return dy * derivative(y, activation)


@small_is_zero
def bend(y: np.ndarray, activation: str) -> np.ndarray:
    """``act''(z) / act'(z)`` at the ``z`` whose output is ``y``, same shape. Raises ValueError for an unknown one."""
    check(activation)
    if activation in ("relu", "leaky_relu"):
        return _by_sign(y, 0, 0)
    if activation == "elu":
        return _by_sign(y, 1, 0)
    if activation == "tanh":
        return -2 * y
    if activation == "sigmoid":
        return 1 - 2 * y
    if activation == "softplus":
        return np.exp(-y)
    return np.zeros_like(y)


@small_is_zero
def curvature(dz: np.ndarray, z_tangent: np.ndarray, y: np.ndarray, activation: str) -> np.ndarray:
    """``dz * z_tangent * act''(z) / act'(z)`` from the stored ``y``, all of one shape: ``e_l`` in ``penalty``."""
    return dz * z_tangent * bend(y, activation)

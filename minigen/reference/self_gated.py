"""self_gated: elementwise ``y = z s(p(z))`` with the logistic ``s``, and its derivative, which needs ``z``.

====  ==========================================  =============================================================
name  p(z)                                        source
====  ==========================================  =============================================================
silu  z                                           Elfwing et al. 2018; as swish, Ramachandran et al. 2017
gelu  2 sqrt(2 / pi) (z + 0.044715 z^3)           Hendrycks and Gimpel 2016, section 2, their tanh form:
                                                  ``z (1 + tanh(p / 2)) / 2``, as ``s(p) = (1 + tanh(p / 2)) / 2``
====  ==========================================  =============================================================

``gelu`` stands for ``z Phi(z)`` with the normal distribution's ``Phi``; this form is at most 5e-4 away from it. It is
PyTorch's ``gelu(approximate="tanh")``. With ``z s(p)`` in place of ``z (1 + tanh) / 2`` nothing cancels below zero.

Backward. With ``s' = s (1 - s)`` the product and the chain rule give::

    act'(z)  = s + z s' p'                         p' = 1,  or  2 sqrt(2 / pi) (1 + 3 * 0.044715 z^2)
    act''(z) = 2 s' p' + z (s' (1 - 2 s) p'^2 + s' p'')    p'' = 0,  or  2 sqrt(2 / pi) * 6 * 0.044715 z

These functions fall below zero and rise again, so two ``z`` can have one ``y``: unlike in
:mod:`minigen.reference.activations` the derivative does not follow from the output. They are therefore not part of a
dense layer, which keeps only that, but a layer of their own behind a linear one, whose output is ``z``.

The cube is that of a ``z`` at most 100 from 0: beyond, ``s`` is 0 or 1 in any dtype. NaN stays NaN.
"""

from __future__ import annotations

import math

import numpy as np

from minigen import checks
from minigen.reference.activations import sigmoid
from minigen.reference.underflow import small_is_zero

SELF_GATED = ("gelu", "silu")
SCALE, CUBE = 2 * math.sqrt(2 / math.pi), 0.044715


def _argument(z: np.ndarray, activation: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``p(z)``, ``p'(z)`` and ``p''(z)``."""
    checks.choice("activation", activation, SELF_GATED)
    if activation == "silu":
        return z, np.ones_like(z), np.zeros_like(z)
    near = np.clip(z, -100, 100)
    square = CUBE * near * near
    return SCALE * (near + near * square), SCALE * (1 + 3 * square), (6 * SCALE * CUBE) * near


@small_is_zero
def forward(z: np.ndarray, activation: str) -> np.ndarray:
    """``y = act(z)``, any shape. Raises ValueError for an unknown activation."""
    return z * sigmoid(_argument(z, activation)[0])


@small_is_zero
def derivative(z: np.ndarray, activation: str) -> np.ndarray:
    """``act'(z)``, same shape. Raises as :func:`forward` does."""
    p, slope, _ = _argument(z, activation)
    gate = sigmoid(p)
    return gate + z * (gate * (1 - gate)) * slope


@small_is_zero
def second_derivative(z: np.ndarray, activation: str) -> np.ndarray:
    """``act''(z)``, same shape. Raises as :func:`forward` does."""
    p, slope, bend = _argument(z, activation)
    gate = sigmoid(p)
    steep = gate * (1 - gate)
    return 2 * steep * slope + z * (steep * (1 - 2 * gate) * slope**2 + steep * bend)


@small_is_zero
def backward(dy: np.ndarray, z: np.ndarray, activation: str) -> np.ndarray:
    """``dz = dy * act'(z)``, all of one shape. Raises as :func:`forward` does."""
    return dy * derivative(z, activation)


@small_is_zero
def curvature(dy: np.ndarray, z_tangent: np.ndarray, z: np.ndarray, activation: str) -> np.ndarray:
    """``dy * z_tangent * act''(z)``: the gradient by ``z`` of ``<dy, act'(z) z_tangent>``, where ``act'(z) z_tangent``
    is how ``y`` moves (see :mod:`minigen.reference.penalty`)."""
    return dy * z_tangent * second_derivative(z, activation)

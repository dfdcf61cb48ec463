"""dense: one fully connected layer, ``y = act(x W + b)``.

Shapes: ``x[B,I]``, ``W[I,O]``, ``b[O]``, ``z`` and ``y[B,O]``; the gradient of the loss ``L`` has the shape of
what it is taken by, and is written ``dz = dL/dz``, ``dW = dL/dW`` and so on.

Forward::

    z[r,o] = sum_i x[r,i] W[i,o] + b[o]
    y      = act(z)

Backward. ``z[r,o]`` is linear in each entry of ``x``, ``W`` and ``b``: its derivative by ``W[i,o]`` is ``x[r,i]``, by
``b[o]`` 1, by ``x[r,i]`` ``W[i,o]``. The chain rule sums over the ``z`` that an entry reaches: ``W[i,o]`` and ``b[o]``
column ``o`` of every row, ``x[r,i]`` every column of row ``r``::

    dL/dW[i,o] = sum_r x[r,i] dz[r,o]      dW = x^T dz
    dL/db[o]   = sum_r dz[r,o]             db = sum over rows of dz
    dL/dx[r,i] = sum_o dz[r,o] W[i,o]      dx = dz W^T

If ``x`` is itself the output of a layer, ``x = act_before(z_before)``, then that layer wants
``dz_before = dL/dx * act_before'(z_before)``. The derivative belongs at ``z_before``, but its value can be computed
from the stored ``x`` (see ``activations``), so :func:`dgrad` multiplies it in and no pre-activation is ever stored. The
buffer is called ``dx`` in both cases; it holds ``dL/dx`` for ``"linear"`` and ``dz_before`` for any other activation.

Source: Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", Nature 323 (1986),
equations 1 to 7, written for a batch.
"""

from __future__ import annotations

import numpy as np

from . import activations
from .underflow import small_is_zero


@small_is_zero
def forward(x: np.ndarray, W: np.ndarray, b: np.ndarray | None, activation: str = "linear") -> np.ndarray:
    """``y[B,O] = act(x[B,I] W[I,O] + b[O])``, ``b`` None for none. Raises ValueError for an unknown activation."""
    return activations.forward(x @ W if b is None else x @ W + b, activation)


@small_is_zero
def dgrad(dz: np.ndarray, W: np.ndarray, x: np.ndarray | None = None, activation: str = "linear") -> np.ndarray:
    """``dx[B,I] = (dz[B,O] W^T) * act'(z_before)``, the factor computed from the stored ``x[B,I] = act(z_before)``.

    ``activation`` is that of the layer before, whose output ``x`` is: the result is that layer's ``dz``. Raises
    ValueError for an unknown activation, or for one other than ``"linear"`` when ``x`` is missing.
    """
    activations.check(activation)
    dx = dz @ W.T
    if activation == "linear":
        return dx
    if x is None:
        raise ValueError(f"x: the output of the layer before is needed for activation {activation!r}, got None")
    return activations.backward(dx, x, activation)


@small_is_zero
def wgrad(x: np.ndarray, dz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``dW[I,O] = x[B,I]^T dz[B,O]`` and ``db[O]``, the sum of ``dz`` over the rows."""
    return x.T @ dz, dz.sum(axis=0)

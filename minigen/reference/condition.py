"""condition: what a label, or numbers beside a row, add to a layer, and the projection discriminator.

A layer that sees the label of a row beside its input, as a one-hot vector, computes (Mirza and Osindero 2014)

    z_r = [x_r, onehot(label_r)] [W; E] + b = x_r W + b + E[label_r]

so a label adds a bias of its class, a row of ``E[N, O]``, and needs no product. Numbers ``c_r`` beside the row add
``c_r E``. With ``e_r`` for either, ``dz = dL/dz`` and ``y = act(z)``::

    dL/de_r = dz_r,    dE[n] = sum of dz_r over the rows of class n,    or dE = c^T dz

A projection discriminator (Miyato and Koyama 2018, equation 3 and figure 2) gives a row the logit, with ``x_r`` its
input of the last layer, the features of the row::

    y_r = x_r . w + b + x_r . e_r

and with ``s_r = dL/dy_r``, whatever e_r is made of::

    dL/dx_r = s_r w + s_r e_r,    dL/de_r = s_r x_r

The functions below are the terms that ``e`` adds; those of ``w`` and ``b`` are a dense layer's.
"""

from __future__ import annotations

import numpy as np

from . import activations
from .underflow import small_is_zero


@small_is_zero
def activation_of_sum(a: np.ndarray, b: np.ndarray, activation: str) -> np.ndarray:
    """``act(a + b)``, any shape."""
    return activations.forward(a + b, activation)


@small_is_zero
def class_sums(x: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """``[classes, O]``: for each class the sum of the rows of ``x[B,O]`` whose entry of ``labels[B]`` it is.

    Raises ValueError for a label outside [0, classes).
    """
    if len(labels) and not (0 <= labels.min() and labels.max() < classes):
        raise ValueError(f"labels must be in [0, {classes}), got {labels.min()} to {labels.max()}")
    sums = np.zeros((classes, x.shape[1]), x.dtype)
    np.add.at(sums, labels, x)
    return sums


@small_is_zero
def projection_forward(x: np.ndarray, e: np.ndarray) -> np.ndarray:
    """``x_r . e_r`` of each row of ``x[B,I]`` and ``e[B,I]``: ``[B,1]``."""
    return (x * e).sum(axis=1, keepdims=True)


@small_is_zero
def projection_dgrad(dz: np.ndarray, e: np.ndarray, x: np.ndarray | None, activation: str) -> np.ndarray:
    """``dz_r e_r``, times the derivative of the ``activation`` whose output ``x[B,I]`` is, unless ``x`` is None."""
    de = dz * e
    return de if x is None else activations.backward(de, x, activation)


@small_is_zero
def projection_wgrad(x: np.ndarray, dz: np.ndarray) -> np.ndarray:
    """``dL/de[B,I] = dz_r x_r`` for ``x[B,I]`` and ``dz[B,1]``."""
    return dz * x

"""maxout: of ``K`` linear pieces the largest, ``y[r,o] = max_k x[r,k,o]`` (Goodfellow et al. 2013, section 2).

``x[B,K,O]`` is the output of a linear layer of ``K O`` columns, piece after piece. Backward: where one piece is the
largest, ``y`` is that piece, so its derivative by it is 1 and by the others 0::

    dx[r,k,o] = dy[r,o] where k is the first of the largest pieces of (r, o), else 0

Which piece that is follows from ``x`` and is not stored. A NaN is larger than any number, so that it is not lost.
"""

from __future__ import annotations

import numpy as np


def forward(x: np.ndarray) -> np.ndarray:
    """``y[B,O]`` from ``x[B,K,O]``."""
    return x.max(axis=1)


def backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``dx[B,K,O]`` from ``dy[B,O]``."""
    first = x.argmax(axis=1)[:, None]  # NumPy's is the first, and that of a NaN if there is one
    return np.where(np.arange(x.shape[1])[:, None] == first, dy[:, None], np.zeros((), dy.dtype))


def tangent(x_tangent: np.ndarray, x: np.ndarray) -> np.ndarray:
    """``y_tangent[B,O]``, how ``y`` moves with ``x``: as its piece does."""
    return np.take_along_axis(x_tangent, x.argmax(axis=1)[:, None], axis=1)[:, 0]

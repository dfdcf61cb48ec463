"""clip_norm: a gradient that is longer than ``most`` is shortened to it, in its own direction (Pascanu et al. 2013,
algorithm 1).

All parameters of a network are one vector::

    norm = sqrt(sum g^2)
    g    = g most / norm    where norm > most

A gradient with a NaN or an infinity in it stays as it is, so that it is found.
"""

from __future__ import annotations

import numpy as np

from .underflow import small_is_zero


@small_is_zero
def clip_norm(g: np.ndarray, most: float) -> tuple[np.ndarray, float]:
    """The new ``g[n]``, and the norm that it had. The sum is float64: no float32 overflows in it."""
    norm = float(np.sqrt(np.square(g, dtype=np.float64).sum()))
    return (g * (most / norm)).astype(g.dtype) if most < norm < np.inf else g, norm

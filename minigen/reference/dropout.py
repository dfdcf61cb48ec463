"""dropout: each number is dropped with probability ``rate`` while a model is trained (Srivastava et al. 2014).

    y = x m / (1 - rate)        m = 1 where u >= rate, else 0, with a uniform u in [0, 1) for each element

Kept numbers are divided by the probability of being kept, so that the expectation of ``y`` is ``x`` and nothing changes
when the layer is left out after training ("inverted"; their section 10 scales then instead). The uniforms are
Philox's (:mod:`minigen.reference.random`), a pure function of seed, stream, step and element: the mask is not stored.

Backward: ``y`` is linear in ``x``, so ``dx = dy m / (1 - rate)`` is the same function of ``dy``.
"""

from __future__ import annotations

import math

import numpy as np

from minigen.reference import random


def forward(x: np.ndarray, seed: int, stream: int, step: int, first: int, rate: float) -> np.ndarray:
    """``y``, the elements of ``x`` (any shape, C order) being those from ``first`` on of a larger buffer."""
    words = random.blocks(-(-(first + x.size) // 4), seed, stream, step).reshape(-1)[first : first + x.size]
    kept = (words >> np.uint32(8)) >= np.uint32(math.ceil(rate * 2**24))  # u = (word >> 8) 2^-24, to the last bit
    return x * (kept.reshape(x.shape) * x.dtype.type(1 / (1 - rate)))

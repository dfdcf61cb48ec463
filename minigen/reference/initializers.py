"""initializers: first values of the weights ``W[fan_in, fan_out]`` of a dense layer (biases start at 0).

Keep the variance of the signals from layer to layer. In ``z = sum_i x_i W_i`` over ``fan_in`` independent terms of mean
0, ``Var z = fan_in Var W E[x^2]``; backward, ``dx = sum_o dz_o W_o`` gives ``Var dx = fan_out Var W Var dz``.

Glorot and Bengio 2010, for activations that are about linear near 0: forward wants ``Var W = 1 / fan_in``, backward
``1 / fan_out``; the compromise is ``Var W = 2 / (fan_in + fan_out)`` (equation 12).

He et al. 2015, for relu: half of the outputs are 0, so ``E[x^2] = Var z_before / 2``, and ``Var W = 2 / fan_in``
(equation 10).

A uniform on [-a, a) has the variance ``a^2 / 3``, hence ``a = sqrt(3 Var W)`` (Glorot and Bengio, equation 16). The
normals are not truncated.

Drawn from Philox on the stream INIT with ``tensor``, the number of the weight tensor, as the step: each tensor of a
model has its own numbers, whatever the order in which they are drawn, and every device starts from the same weights.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import checks
from . import random


def glorot_uniform(fan_in: int, fan_out: int, seed: int, tensor: int = 0, dtype: Any = np.float32) -> np.ndarray:
    """``W[fan_in, fan_out]``, uniform with variance 2 / (fan_in + fan_out). Raises ValueError for a fan below 1."""
    return uniform(fan_in, fan_out, 2 / check(fan_in, fan_out), seed, tensor, dtype)


def glorot_normal(fan_in: int, fan_out: int, seed: int, tensor: int = 0, dtype: Any = np.float32) -> np.ndarray:
    """``W[fan_in, fan_out]``, normal with variance 2 / (fan_in + fan_out). Raises ValueError for a fan below 1."""
    return normal(fan_in, fan_out, 2 / check(fan_in, fan_out), seed, tensor, dtype)


def he_uniform(fan_in: int, fan_out: int, seed: int, tensor: int = 0, dtype: Any = np.float32) -> np.ndarray:
    """``W[fan_in, fan_out]``, uniform with variance 2 / fan_in. Raises ValueError for a fan below 1."""
    check(fan_in, fan_out)
    return uniform(fan_in, fan_out, 2 / fan_in, seed, tensor, dtype)


def he_normal(fan_in: int, fan_out: int, seed: int, tensor: int = 0, dtype: Any = np.float32) -> np.ndarray:
    """``W[fan_in, fan_out]``, normal with variance 2 / fan_in. Raises ValueError for a fan below 1."""
    check(fan_in, fan_out)
    return normal(fan_in, fan_out, 2 / fan_in, seed, tensor, dtype)


def uniform(fan_in: int, fan_out: int, variance: float, seed: int, tensor: int, dtype: Any) -> np.ndarray:
    """``W[fan_in, fan_out]``, uniform on [-a, a), ``a = sqrt(3 variance)``."""
    u = random.uniform((fan_in, fan_out), seed, random.INIT, tensor, dtype)
    return (2 * u - 1) * math.sqrt(3 * variance)


def normal(fan_in: int, fan_out: int, variance: float, seed: int, tensor: int, dtype: Any) -> np.ndarray:
    """``W[fan_in, fan_out]``, normal with mean 0 and the given variance."""
    return random.normal((fan_in, fan_out), seed, random.INIT, tensor, dtype) * math.sqrt(variance)


def check(fan_in: int, fan_out: int) -> int:
    """``fan_in + fan_out``. Raises ValueError, naming the argument, unless both are at least 1."""
    return checks.integer("fan_in", fan_in, 1) + checks.integer("fan_out", fan_out, 1)

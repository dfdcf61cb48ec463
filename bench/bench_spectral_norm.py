"""Spectral norm. Bytes a weight: 8 forward, though the three passes over W read it again, 12 backward."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bench.conftest import normal

SHAPES = [(784, 128), (1024, 1024), (4096, 4096)]
"""The first layer of the article's discriminator, one of the wide one's, and more than a cache holds."""


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(library: Any, measure: Any, shape: tuple[int, int]) -> None:
    W, u, moved = library.array(normal(*shape)), library.array(normal(shape[1])), 8 * math.prod(shape)
    if library.kind == "minigen":
        v, sigma, normalized = (library.array(np.zeros(size, np.float32)) for size in (shape[0], 1, shape))
        measure(lambda: library.ops.spectral_norm(W, u, v, sigma, normalized), bytes=moved)
        return
    norm = (library.xp if library.kind == "arrays" else library.torch).linalg.norm

    def formula() -> Any:
        v = W @ u
        v = v / norm(v)
        along = v @ W
        sigma = norm(along)
        u[:] = along / sigma
        return v, sigma, W / sigma

    measure(formula, bytes=moved)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward(library: Any, measure: Any, shape: tuple[int, int]) -> None:
    dnormalized, normalized = library.array(normal(*shape)), library.array(normal(*shape))
    u, v = library.array(normal(shape[1])), library.array(normal(shape[0]))
    sigma, moved = library.array(np.ones(1, np.float32)), 12 * math.prod(shape)
    if library.kind == "minigen":
        dW = library.array(normal(*shape))
        measure(lambda: library.ops.spectral_norm_backward(dnormalized, normalized, u, v, sigma, dW), bytes=moved)
        return
    xp = library.xp if library.kind == "arrays" else library.torch
    measure(lambda: (dnormalized - (dnormalized * normalized).sum() * xp.outer(v, u)) / sigma, bytes=moved)

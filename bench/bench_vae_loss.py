"""Reconstruction losses with their gradients: logits and pixels read, the gradient written, 12 bytes an element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bench.conftest import normal

SHAPES = [(128, 784), (1024, 784), (4096, 784)]


def inputs(library: Any, shape: tuple[int, int]) -> tuple[Any, Any]:
    """Logits or means, and pixels in [0, 1]."""
    return library.array(normal(*shape)), library.array(np.random.default_rng(1).random(shape, dtype=np.float32))


def outputs(library: Any, shape: tuple[int, int]) -> tuple[Any, Any, Any]:
    """Gradient, one value a row, loss."""
    return tuple(library.array(np.zeros(size, np.float32)) for size in (shape, shape[0], 1))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bernoulli(library: Any, measure: Any, shape: tuple[int, int]) -> None:
    logits, x = inputs(library, shape)
    moved = 12 * math.prod(shape)
    if library.kind == "minigen":
        dlogits, rows, loss = outputs(library, shape)
        measure(lambda: library.ops.vae_loss(logits, x, dlogits, rows, loss, "bernoulli"), bytes=moved)
    elif library.kind == "arrays":
        xp = library.xp

        def formula() -> Any:
            rows = (xp.logaddexp(0, logits) - x * logits).sum(axis=1)
            return rows.mean(), (1 / (1 + xp.exp(-logits)) - x) / len(x)

        measure(formula, bytes=moved)
    else:
        loss = library.torch.nn.functional.binary_cross_entropy_with_logits
        logits = logits.requires_grad_()
        measure(lambda: library.torch.autograd.grad(loss(logits, x, reduction="sum") / len(x), logits), bytes=moved)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gaussian(library: Any, measure: Any, shape: tuple[int, int]) -> None:
    mean, x = inputs(library, shape)
    moved = 12 * math.prod(shape)
    constant = shape[1] * math.log(2 * math.pi) / 2
    if library.kind == "minigen":
        dmean, rows, loss = outputs(library, shape)
        measure(lambda: library.ops.vae_loss(mean, x, dmean, rows, loss, "gaussian"), bytes=moved)
    elif library.kind == "arrays":

        def formula() -> Any:
            difference = mean - x
            return (difference**2 / 2).sum(axis=1).mean() + constant, difference / len(x)

        measure(formula, bytes=moved)
    else:
        mean = mean.requires_grad_()

        def loss_and_gradient() -> Any:
            loss = ((mean - x) ** 2).sum() / (2 * len(x)) + constant
            return library.torch.autograd.grad(loss, mean)

        measure(loss_and_gradient, bytes=moved)

"""A Gaussian with learned variances: means and pixels read, the gradient written, 12 bytes an element; for the gradient
of the log variances three buffers read, 12 again."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bench.conftest import normal

SHAPES = [(128, 784), (4096, 784)]
VARIANCES = ("one", "each")
"""Of all columns one, or each its own."""


def inputs(library: Any, shape: tuple[int, int], variances: str) -> tuple[Any, Any, Any]:
    """Means, pixels and log variances."""
    mean, logvar = normal(*shape), normal(1 if variances == "one" else shape[1])
    x = np.random.default_rng(1).random(shape, dtype=np.float32)
    return library.array(mean), library.array(x), library.array(logvar)


@pytest.mark.parametrize("variances", VARIANCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_loss(library: Any, measure: Any, shape: tuple[int, int], variances: str) -> None:
    mean, x, logvar = inputs(library, shape, variances)
    moved = 12 * math.prod(shape)
    if library.kind == "minigen":
        dmean, rows, loss = (library.array(np.zeros(size, np.float32)) for size in (shape, shape[0], 1))
        measure(lambda: library.ops.gaussian_loss(mean, x, logvar, dmean, rows, loss), bytes=moved)
        return
    xp = library.xp if library.kind == "arrays" else library.torch

    def formula() -> Any:
        difference, bounded = mean - x, xp.clip(logvar, -14, 80)
        scaled = difference * xp.exp(-bounded)
        rows = (difference * scaled + (bounded + math.log(2 * math.pi))).sum(1) / 2
        return rows, rows.mean(), scaled / len(x)

    measure(formula, bytes=moved)


@pytest.mark.parametrize("variances", VARIANCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logvar_gradient(library: Any, measure: Any, shape: tuple[int, int], variances: str) -> None:
    mean, x, logvar = inputs(library, shape, variances)
    dmean, moved = library.array(normal(*shape)), 12 * math.prod(shape)
    if library.kind == "minigen":
        dlogvar = library.array(normal(*logvar.shape))
        measure(lambda: library.ops.gaussian_logvar_gradient(dmean, mean, x, logvar, dlogvar), bytes=moved)
    elif variances == "one":
        measure(lambda: (shape[1] - (dmean * (mean - x)).sum()) / 2, bytes=moved)
    else:
        measure(lambda: (1 - (dmean * (mean - x)).sum(0)) / 2, bytes=moved)

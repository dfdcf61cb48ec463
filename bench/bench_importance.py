"""Several draws of the latent. With k draws of each row, bytes a number that is drawn: 8 + 8 / k in the sample and
12 + 16 / k in its backward; 12 a weight; of rows that are repeated 4 + 4 / k an element, of scaled ones 8."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.conftest import normal

LATENT, COLUMNS = 20, 784
CASES = [(128, 5), (128, 50), (4096, 50)]
"""Rows of data, draws of each."""
WIDE = CASES[:2]
"""Where each draw has a row of pixels."""


def zeros(library: Any, *shapes: Any) -> tuple[Any, ...]:
    return tuple(library.array(np.zeros(shape, np.float32)) for shape in shapes)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sample(library: Any, measure: Any, case: tuple[int, int]) -> None:
    rows, draws = case
    heads, eps = library.array(normal(rows, 2 * LATENT)), library.array(normal(rows * draws, LATENT))
    moved = 8 * rows * (draws + 1) * LATENT
    if library.kind == "minigen":
        z, ratios, loss = zeros(library, (rows * draws, LATENT), rows * draws, 1)
        measure(lambda: library.ops.importance_sample(heads, eps, z, ratios, loss), bytes=moved)
        return
    xp = library.xp if library.kind == "arrays" else library.torch
    eps = eps.reshape(draws, rows, LATENT)

    def formula() -> Any:
        mu, logvar = heads[:, :LATENT], heads[:, LATENT:]
        z = mu + xp.exp(logvar / 2) * eps
        ratios = (z * z - eps * eps - logvar).sum(2) / 2
        return z, ratios, ratios.mean()

    measure(formula, bytes=moved)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_weights(library: Any, measure: Any, case: tuple[int, int]) -> None:
    rows, draws = case
    nats, ratios = library.array(normal(rows * draws)), library.array(normal(rows * draws))
    moved = 12 * rows * draws
    if library.kind == "minigen":
        weights, loss = zeros(library, rows * draws, 1)
        measure(lambda: library.ops.importance_weights(nats, ratios, weights, loss, draws), bytes=moved)
    elif library.kind == "arrays":
        xp = library.xp

        def formula() -> Any:
            surprise = (nats + ratios).reshape(draws, rows)
            least = surprise.min(axis=0)
            w = xp.exp(least - surprise)
            total = w.sum(axis=0)
            return draws * w / total, (least - xp.log(total / draws)).mean()

        measure(formula, bytes=moved)
    else:
        torch, constant = library.torch, float(np.log(draws))

        def softmax() -> Any:
            log_w = -(nats + ratios).reshape(draws, rows)
            return draws * torch.softmax(log_w, 0), constant - torch.logsumexp(log_w, 0).mean()

        measure(softmax, bytes=moved)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_backward(library: Any, measure: Any, case: tuple[int, int]) -> None:
    rows, draws = case
    dz, z, eps = (library.array(normal(rows * draws, LATENT)) for _ in range(3))
    heads, weights = library.array(normal(rows, 2 * LATENT)), library.array(np.abs(normal(rows * draws)))
    moved = rows * (12 * draws + 16) * LATENT
    if library.kind == "minigen":
        (dheads,) = zeros(library, (rows, 2 * LATENT))
        measure(lambda: library.ops.importance_backward(dz, z, heads, eps, weights, dheads), bytes=moved)
        return
    xp = library.xp if library.kind == "arrays" else library.torch
    dz, z, eps = (buffer.reshape(draws, rows, LATENT) for buffer in (dz, z, eps))
    weights = weights.reshape(draws, rows, 1)

    def formula() -> Any:
        share = weights / (rows * draws)
        g = dz + share * z
        return g.sum(0), ((g * eps * xp.exp(heads[:, LATENT:] / 2) - share) / 2).sum(0)

    measure(formula, bytes=moved)


@pytest.mark.parametrize("case", WIDE, ids=str)
@pytest.mark.rows(lambda library, **case: not library.startswith("torch-compile"))  # one call, nothing to fuse
def test_repeat_rows(library: Any, measure: Any, case: tuple[int, int]) -> None:
    rows, draws = case
    x, moved = library.array(normal(rows, COLUMNS)), 4 * rows * (draws + 1) * COLUMNS
    if library.kind == "minigen":
        (y,) = zeros(library, (rows * draws, COLUMNS))
        measure(lambda: library.ops.repeat_rows(x, y), bytes=moved)
    else:
        tile = library.xp.tile if library.kind == "arrays" else library.torch.tile
        measure(lambda: tile(x, (draws, 1)), bytes=moved)


@pytest.mark.parametrize("case", WIDE, ids=str)
@pytest.mark.rows(lambda library, **case: not library.startswith("torch-compile"))  # one call, nothing to fuse
def test_scale_rows(library: Any, measure: Any, case: tuple[int, int]) -> None:
    """By 1 or -1, so that the numbers stay as large however often it is repeated."""
    rows, draws = case
    g, weights = library.array(normal(rows * draws, COLUMNS)), library.array(np.sign(normal(rows * draws)))
    moved = 8 * rows * draws * COLUMNS
    if library.kind == "minigen":
        measure(lambda: library.ops.scale_rows(g, weights), bytes=moved)
    elif library.kind == "arrays":
        measure(lambda: library.xp.multiply(g, weights[:, None], out=g), bytes=moved)
    else:
        measure(lambda: g.mul_(weights[:, None]), bytes=moved)

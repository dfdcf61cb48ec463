"""Reparameterisation and KL, forward and backward. Bytes a latent variable: 16 forward, 24 backward, 8 where free bits
weigh its KL."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.conftest import normal

SHAPES = [(128, 20), (4096, 20), (4096, 256)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(library: Any, measure: Any, shape: tuple[int, int]) -> None:
    rows, latent = shape
    heads, eps = library.array(normal(rows, 2 * latent)), library.array(normal(rows, latent))
    moved = 16 * rows * latent
    if library.kind == "minigen":
        z, kl, loss = (library.array(np.zeros(size, np.float32)) for size in (shape, rows, 1))
        measure(lambda: library.ops.latent_forward(heads, eps, z, kl, loss), bytes=moved)
        return
    xp = library.xp if library.kind == "arrays" else library.torch

    def formula() -> Any:
        mu, logvar = heads[:, :latent], heads[:, latent:]
        return mu + xp.exp(logvar / 2) * eps, 0.5 * (mu**2 + xp.exp(logvar) - 1 - logvar).sum(1).mean()

    measure(formula, bytes=moved)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward(library: Any, measure: Any, shape: tuple[int, int]) -> None:
    rows, latent = shape
    heads = library.array(normal(rows, 2 * latent))
    eps, dz = library.array(normal(*shape)), library.array(normal(*shape))
    moved = 24 * rows * latent
    if library.kind == "minigen":
        dheads, weights = library.array(normal(rows, 2 * latent)), library.array(normal(latent))
        measure(lambda: library.ops.latent_backward(dz, heads, eps, weights, dheads), bytes=moved)
        return
    xp = library.xp if library.kind == "arrays" else library.torch

    def formula() -> Any:
        mu, logvar = heads[:, :latent], heads[:, latent:]
        std = xp.exp(logvar / 2)
        return dz + mu / rows, dz * eps * std / 2 + (std * std - 1) / (2 * rows)

    measure(formula, bytes=moved)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kl_weights(library: Any, measure: Any, shape: tuple[int, int]) -> None:
    rows, latent = shape
    heads, beta, free_bits = library.array(normal(rows, 2 * latent)), library.array(np.ones(1, np.float32)), 0.5
    moved = 8 * rows * latent
    if library.kind == "minigen":
        weights, penalty = (library.array(np.zeros(size, np.float32)) for size in (latent, 1))
        measure(lambda: library.ops.kl_weights(heads, beta, weights, penalty, free_bits), bytes=moved)
        return
    xp = library.xp if library.kind == "arrays" else library.torch

    def formula() -> Any:
        mu, logvar = heads[:, :latent], heads[:, latent:]
        kl = (mu * mu + xp.exp(logvar) - 1 - logvar).mean(0) / 2
        above = kl > free_bits
        return beta * above, (beta * xp.where(above, kl, free_bits)).sum()

    measure(formula, bytes=moved)

"""What a gradient penalty takes: the penalty and its gradient read g and write v, 8 bytes an element; rows between real
and generated ones move 12, the curvature of an activation 16."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bench.conftest import normal

PIXELS = [(128, 784), (4096, 784)]
HIDDEN = [(128, 128), (4096, 1024)]
WEIGHT = 10.0
BENDS = {
    "elu": lambda xp, y: y <= 0,
    "tanh": lambda xp, y: -2 * y,
    "sigmoid": lambda xp, y: 1 - 2 * y,
    "softplus": lambda xp, y: xp.exp(-y),
}
"""``act'' / act'`` of the curved activations, from the output."""


@pytest.mark.parametrize("kind", ["r1", "two_sided"])
@pytest.mark.parametrize("shape", PIXELS, ids=str)
def test_gradient_penalty(library: Any, measure: Any, shape: tuple[int, int], kind: str) -> None:
    g, moved = library.array(normal(*shape)), 8 * math.prod(shape)
    if library.kind == "minigen":
        v, rows, loss = (library.array(np.zeros(size, np.float32)) for size in (shape, shape[0], 1))
        measure(lambda: library.ops.gradient_penalty(g, v, rows, loss, kind, WEIGHT), bytes=moved)
        return
    xp = library.xp if library.kind == "arrays" else library.torch

    def r1() -> Any:
        rows = WEIGHT / 2 * (g * g).sum(1)
        return g * (WEIGHT / len(g)), rows, rows.mean()

    def two_sided() -> Any:
        norms = xp.sqrt((g * g).sum(1))
        rows = WEIGHT * (norms - 1) ** 2
        return g * (2 * WEIGHT / len(g) * (norms - 1) / norms)[:, None], rows, rows.mean()

    measure(r1 if kind == "r1" else two_sided, bytes=moved)


@pytest.mark.parametrize("shape", PIXELS, ids=str)
def test_interpolate(library: Any, measure: Any, shape: tuple[int, int]) -> None:
    real, fake = library.array(normal(*shape)), library.array(normal(*shape))
    u = library.array(np.random.default_rng(1).random(shape[0], dtype=np.float32))
    moved = 12 * math.prod(shape)
    if library.kind == "minigen":
        out = library.array(normal(*shape))
        measure(lambda: library.ops.interpolate(real, fake, u, out), bytes=moved)
    elif library.kind == "arrays":
        measure(lambda: u[:, None] * real + (1 - u)[:, None] * fake, bytes=moved)
    else:
        measure(lambda: library.torch.lerp(fake, real, u[:, None]), bytes=moved)


@pytest.mark.parametrize("activation", BENDS)
@pytest.mark.parametrize("shape", HIDDEN, ids=str)
def test_activation_curvature(library: Any, measure: Any, shape: tuple[int, int], activation: str) -> None:
    dz, z_tangent, y = (library.array(normal(*shape)) for _ in range(3))
    moved = 16 * math.prod(shape)
    if library.kind == "minigen":
        e = library.array(normal(*shape))
        measure(lambda: library.ops.activation_curvature(dz, z_tangent, y, e, activation), bytes=moved)
        return
    xp, bend = library.xp if library.kind == "arrays" else library.torch, BENDS[activation]
    measure(lambda: dz * z_tangent * bend(xp, y), bytes=moved)

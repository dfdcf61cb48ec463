"""Self-gated activations: 8 bytes an element forward, 12 backward, 16 in what a gradient penalty asks of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bench.conftest import normal

SHAPES = [(128, 128), (4096, 1024)]
ACTIVATIONS = ("gelu", "silu")
SCALE, CUBE = 2 * math.sqrt(2 / math.pi), 0.044715


def gate(xp: Any, z: Any, activation: str) -> tuple[Any, Any, Any]:
    """``s(p(z))``, ``p'(z)`` and ``p''(z)``: the activation is ``z s(p(z))``."""
    if activation == "silu":
        return 1 / (1 + xp.exp(-z)), 1, 0
    square = CUBE * z * z
    return 1 / (1 + xp.exp(-SCALE * (z + z * square))), SCALE * (1 + 3 * square), 6 * SCALE * CUBE * z


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(library: Any, measure: Any, shape: tuple[int, int], activation: str) -> None:
    z, moved = library.array(normal(*shape)), 8 * math.prod(shape)
    if library.kind == "minigen":
        y = library.array(normal(*shape))
        measure(lambda: library.ops.self_gated_forward(z, y, activation), bytes=moved)
    elif library.kind == "arrays":
        measure(lambda: z * gate(library.xp, z, activation)[0], bytes=moved)
    else:
        functional = library.torch.nn.functional
        calls = {"gelu": lambda: functional.gelu(z, approximate="tanh"), "silu": lambda: functional.silu(z)}
        measure(calls[activation], bytes=moved)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward(library: Any, measure: Any, shape: tuple[int, int], activation: str) -> None:
    dy, z, moved = library.array(normal(*shape)), library.array(normal(*shape)), 12 * math.prod(shape)
    if library.kind == "minigen":
        dz = library.array(normal(*shape))
        measure(lambda: library.ops.self_gated_backward(dy, z, dz, activation), bytes=moved)
    elif library.kind == "arrays":

        def formula() -> np.ndarray:
            s, slope, _ = gate(library.xp, z, activation)
            return dy * (s + z * (s * (1 - s)) * slope)

        measure(formula, bytes=moved)
    else:  # what autograd calls
        aten = library.torch.ops.aten
        gelu, silu = aten.gelu_backward, aten.silu_backward
        calls = {"gelu": lambda: gelu(dy, z, approximate="tanh"), "silu": lambda: silu(dy, z)}
        measure(calls[activation], bytes=moved)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_curvature(library: Any, measure: Any, shape: tuple[int, int], activation: str) -> None:
    dy, z_tangent, z = (library.array(normal(*shape)) for _ in range(3))
    moved = 16 * math.prod(shape)
    if library.kind == "minigen":
        dz = library.array(normal(*shape))
        measure(lambda: library.ops.self_gated_curvature(dy, z_tangent, z, dz, activation), bytes=moved)
        return
    xp = library.xp if library.kind == "arrays" else library.torch

    def formula() -> Any:
        s, slope, bend = gate(xp, z, activation)
        steep = s * (1 - s)
        return dy * z_tangent * (2 * steep * slope + z * (steep * (1 - 2 * s) * slope**2 + steep * bend))

    measure(formula, bytes=moved)

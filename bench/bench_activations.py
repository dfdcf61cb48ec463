"""Activations, forward and backward: 4 bytes read and 4 written an element, and 8 read in the backward."""

from __future__ import annotations

from typing import Any

import pytest

from bench.conftest import normal

SHAPES = [(128, 128), (128, 784), (1024, 1024), (4096, 784)]
COMPILED = [(128, 784), (4096, 784)]
"""Of these: a compiler takes seconds for each."""
ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid", "softplus")

FORWARD = {
    "relu": lambda xp, z: xp.maximum(z, 0),
    "leaky_relu": lambda xp, z: xp.where(z > 0, z, 0.2 * z),
    "tanh": lambda xp, z: xp.tanh(z),
    "sigmoid": lambda xp, z: 1 / (1 + xp.exp(-z)),
    "softplus": lambda xp, z: xp.logaddexp(0, z),
}
BACKWARD = {
    "relu": lambda xp, dy, y: dy * (y > 0),
    "leaky_relu": lambda xp, dy, y: xp.where(y > 0, dy, 0.2 * dy),
    "tanh": lambda xp, dy, y: dy * (1 - y * y),
    "sigmoid": lambda xp, dy, y: dy * y * (1 - y),
    "softplus": lambda xp, dy, y: dy * -xp.expm1(-y),
}


def torch_forward(functional: Any, activation: str) -> Any:
    if activation == "leaky_relu":
        return lambda z: functional.leaky_relu(z, 0.2)
    return getattr(functional, activation)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.rows(lambda library, shape, **case: not library.startswith("torch-compile") or shape in COMPILED)
def test_forward(library: Any, measure: Any, shape: tuple[int, int], activation: str) -> None:
    z = library.array(normal(*shape))
    if library.kind == "minigen":
        y = library.array(normal(*shape))
        measure(lambda: library.ops.activation_forward(z, y, activation), bytes=8 * z.size)
    elif library.kind == "arrays":
        measure(lambda: FORWARD[activation](library.xp, z), bytes=8 * z.size)
    else:
        function = torch_forward(library.torch.nn.functional, activation)
        measure(lambda: function(z), bytes=8 * z.numel())


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.rows(lambda library, **case: not library.startswith("torch-compile"))  # autograd's is a call of its own
def test_backward(library: Any, measure: Any, shape: tuple[int, int], activation: str) -> None:
    host = normal(*shape)
    if library.kind == "minigen":
        dy, y, dz = (library.array(host) for _ in range(3))
        measure(lambda: library.ops.activation_backward(dy, y, dz, activation), bytes=12 * host.size)
    elif library.kind == "arrays":
        dy, y = library.array(host), library.array(host)
        measure(lambda: BACKWARD[activation](library.xp, dy, y), bytes=12 * host.size)
    else:
        torch = library.torch
        z = library.array(host).requires_grad_()
        y, dy = torch_forward(torch.nn.functional, activation)(z), library.array(host)
        measure(lambda: torch.autograd.grad(y, z, dy, retain_graph=True), bytes=12 * host.size)

"""Batch and layer normalization. Bytes an element: 8 forward, 12 for the gradient of x, 8 for that of gamma and beta;
what a gradient penalty asks of layer normalization takes 12, the tangent and its gradient of gamma, and 16."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bench.conftest import normal

SHAPES = [(128, 128), (4096, 1024)]
KINDS = {"batch": 0, "layer": 1}
"""The axis over which the statistics are."""
EPS, MOMENTUM = 1e-5, 0.1


class Case:
    """Arrays of one library: ``x`` and ``dz``, the statistics as they follow from a forward pass, the parameters."""

    def __init__(self, library: Any, shape: tuple[int, int], kind: str) -> None:
        host, axis = normal(*shape), KINDS[kind]
        sizes: tuple[int, ...] = shape
        mean, inv_std = host.mean(axis=axis, keepdims=True), 1 / np.sqrt(host.var(axis=axis, keepdims=True) + EPS)
        if library.kind == "minigen":  # of layer normalization [B], of batch normalization [G,O] for [G,R,O]
            mean, inv_std = (a[:, 0] if kind == "layer" else a for a in (mean, inv_std))
            sizes = shape if kind == "layer" else (1, *shape)
        elif library.kind == "torch" and kind == "batch":
            mean, inv_std = mean[0], inv_std[0]
        self.x, self.dz, self.out = (library.array(a.reshape(sizes).copy()) for a in (host, host[::-1], host))
        self.mean, self.inv_std = library.array(mean.copy()), library.array(inv_std.copy())
        self.gamma, self.beta, self.dgamma, self.dbeta, self.running_mean, self.running_var = (
            library.array(np.ones(shape[1], np.float32)) for _ in range(6)
        )


def through(g: Any, h: Any, inv_std: Any, axis: int) -> Any:
    """The gradient of x from ``g``, that of the normalised ``h``."""
    return inv_std * (g - g.mean(axis=axis, keepdims=True) - h * (g * h).mean(axis=axis, keepdims=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(library: Any, measure: Any, shape: tuple[int, int], kind: str) -> None:
    c, moved = Case(library, shape, kind), 8 * math.prod(shape)
    axis, running = KINDS[kind], (c.running_mean, c.running_var)
    if library.kind == "minigen":
        given = c.x, c.gamma, c.beta, c.out, c.mean, c.inv_std
        batch, layer = library.ops.batch_norm_forward, library.ops.layer_norm_forward
        calls = {"batch": lambda: batch(*given, *running, MOMENTUM, EPS), "layer": lambda: layer(*given, EPS)}
        measure(calls[kind], bytes=moved)
    elif library.kind == "arrays":

        def formula() -> Any:
            mean, var = c.x.mean(axis=axis, keepdims=True), c.x.var(axis=axis, keepdims=True)
            if kind == "batch":
                c.running_mean[...] += MOMENTUM * (mean[0] - c.running_mean)
                c.running_var[...] += MOMENTUM * (var[0] * (shape[0] / (shape[0] - 1)) - c.running_var)
            return (c.x - mean) / library.xp.sqrt(var + EPS) * c.gamma + c.beta

        measure(formula, bytes=moved)
    else:
        functional = library.torch.nn.functional
        calls = {
            "batch": lambda: functional.batch_norm(c.x, *running, c.gamma, c.beta, True, MOMENTUM, EPS),
            "layer": lambda: functional.layer_norm(c.x, shape[1:], c.gamma, c.beta, EPS),
        }
        measure(calls[kind], bytes=moved)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_batch_infer(library: Any, measure: Any, shape: tuple[int, int]) -> None:
    x, y, moved = library.array(normal(*shape)), library.array(normal(*shape)), 8 * math.prod(shape)
    gamma, beta, mean, var = (library.array(np.ones(shape[1], np.float32)) for _ in range(4))
    if library.kind == "minigen":
        measure(lambda: library.ops.batch_norm_infer(x, gamma, beta, mean, var, y, EPS), bytes=moved)
    elif library.kind == "arrays":
        measure(lambda: (x - mean) * (gamma / library.xp.sqrt(var + EPS)) + beta, bytes=moved)
    else:
        function = library.torch.nn.functional.batch_norm
        measure(lambda: function(x, mean, var, gamma, beta, False, MOMENTUM, EPS), bytes=moved)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dgrad(library: Any, measure: Any, shape: tuple[int, int], kind: str) -> None:
    c, moved = Case(library, shape, kind), 12 * math.prod(shape)
    if library.kind == "minigen":
        operation = library.ops.batch_norm_dgrad if kind == "batch" else library.ops.layer_norm_dgrad
        measure(lambda: operation(c.dz, c.x, c.gamma, c.mean, c.inv_std, c.out), bytes=moved)
    elif library.kind == "arrays":
        axis = KINDS[kind]
        measure(lambda: through(c.dz * c.gamma, (c.x - c.mean) * c.inv_std, c.inv_std, axis), bytes=moved)
    else:
        measure(torch_backward(library, c, kind, [True, False, False]), bytes=moved)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_wgrad(library: Any, measure: Any, shape: tuple[int, int], kind: str) -> None:
    c, moved = Case(library, shape, kind), 8 * math.prod(shape)
    if library.kind == "minigen":
        operation = library.ops.batch_norm_wgrad if kind == "batch" else library.ops.layer_norm_wgrad
        measure(lambda: operation(c.dz, c.x, c.mean, c.inv_std, c.dgamma, c.dbeta), bytes=moved)
    elif library.kind == "arrays":
        measure(lambda: ((c.dz * ((c.x - c.mean) * c.inv_std)).sum(axis=0), c.dz.sum(axis=0)), bytes=moved)
    else:
        measure(torch_backward(library, c, kind, [False, True, True]), bytes=moved)


def torch_backward(library: Any, c: Case, kind: str, wanted: list[bool]) -> Any:
    """What autograd calls, for some of the gradients of x, gamma and beta."""
    aten = library.torch.ops.aten
    if kind == "batch":
        batch, running = aten.native_batch_norm_backward, (c.running_mean, c.running_var)
        return lambda: batch(c.dz, c.x, c.gamma, *running, c.mean, c.inv_std, True, EPS, wanted)
    layer, columns = aten.native_layer_norm_backward, list(c.gamma.shape)
    return lambda: layer(c.dz, c.x, columns, c.mean, c.inv_std, c.gamma, c.beta, wanted)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layer_tangent(library: Any, measure: Any, shape: tuple[int, int]) -> None:
    c, moved = Case(library, shape, "layer"), 12 * math.prod(shape)
    t = library.array(normal(*shape))
    if library.kind == "minigen":
        measure(lambda: library.ops.layer_norm_tangent(t, c.x, c.gamma, c.mean, c.inv_std, c.out), bytes=moved)
    else:
        measure(lambda: c.gamma * through(t, (c.x - c.mean) * c.inv_std, c.inv_std, 1), bytes=moved)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layer_tangent_wgrad(library: Any, measure: Any, shape: tuple[int, int]) -> None:
    c, moved = Case(library, shape, "layer"), 12 * math.prod(shape)
    t = library.array(normal(*shape))
    if library.kind == "minigen":
        operation = library.ops.layer_norm_tangent_wgrad
        measure(lambda: operation(c.dz, t, c.x, c.mean, c.inv_std, c.dgamma), bytes=moved)
    else:
        measure(lambda: c.dgamma + (c.dz * through(t, (c.x - c.mean) * c.inv_std, c.inv_std, 1)).sum(0), bytes=moved)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layer_curvature(library: Any, measure: Any, shape: tuple[int, int]) -> None:
    c, moved = Case(library, shape, "layer"), 16 * math.prod(shape)
    tangent = library.array(normal(*shape))
    if library.kind == "minigen":
        operation = library.ops.layer_norm_curvature
        measure(lambda: operation(c.dz, tangent, c.x, c.gamma, c.mean, c.inv_std, c.out), bytes=moved)
        return

    def formula() -> Any:
        h, g = (c.x - c.mean) * c.inv_std, c.dz * c.gamma
        g, t = (a - a.mean(axis=1, keepdims=True) for a in (g, tangent))
        of_g, of_t, both = ((p * q).mean(axis=1, keepdims=True) for p, q in ((h, g), (h, t), (g, t)))
        return -(c.inv_std**2) * (of_t * g + of_g * t + (both - 3 * of_g * of_t) * h)

    measure(formula, bytes=moved)

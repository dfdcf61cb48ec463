"""Maxout of K pieces, bytes an output: 4 K + 4 forward; 8 K + 4 backward; 4 K + 8 for how the output moves, which reads
one piece of the tangent."""

from __future__ import annotations

from typing import Any

import pytest

from bench.conftest import normal

SHAPES = [(128, 5, 128), (4096, 5, 1024)]
"""Rows, pieces, outputs."""


def moved(shape: tuple[int, int, int], pieces: int, outputs: int) -> int:
    """Bytes of the buffers: how many have all pieces, and how many one number an output."""
    rows, count, columns = shape
    return 4 * rows * columns * (pieces * count + outputs)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(library: Any, measure: Any, shape: tuple[int, int, int]) -> None:
    x = library.array(normal(*shape))
    volume = moved(shape, 1, 1)
    if library.kind == "minigen":
        y = library.array(normal(shape[0], shape[2]))
        measure(lambda: library.ops.maxout_forward(x, y), bytes=volume)
    else:
        xp = library.xp if library.kind == "arrays" else library.torch
        measure(lambda: xp.amax(x, 1), bytes=volume)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward(library: Any, measure: Any, shape: tuple[int, int, int]) -> None:
    dy, x = library.array(normal(shape[0], shape[2])), library.array(normal(*shape))
    volume = moved(shape, 2, 1)
    if library.kind == "minigen":
        dx = library.array(normal(*shape))
        measure(lambda: library.ops.maxout_backward(dy, x, dx), bytes=volume)
    elif library.kind == "arrays":
        piece = library.xp.arange(shape[1])[:, None]
        measure(lambda: dy[:, None] * (piece == x.argmax(axis=1)[:, None]), bytes=volume)
    else:  # max has its indices in less time than argmax

        def formula() -> Any:
            return library.torch.zeros_like(x).scatter_(1, x.max(dim=1, keepdim=True).indices, dy[:, None])

        measure(formula, bytes=volume)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tangent(library: Any, measure: Any, shape: tuple[int, int, int]) -> None:
    x_tangent, x = library.array(normal(*shape)), library.array(normal(*shape))
    volume = moved(shape, 1, 2)
    if library.kind == "minigen":
        y_tangent = library.array(normal(shape[0], shape[2]))
        measure(lambda: library.ops.maxout_tangent(x_tangent, x, y_tangent), bytes=volume)
    elif library.kind == "arrays":
        take = library.xp.take_along_axis
        measure(lambda: take(x_tangent, x.argmax(axis=1)[:, None], 1)[:, 0], bytes=volume)
    else:
        measure(lambda: x_tangent.gather(1, x.max(dim=1, keepdim=True).indices)[:, 0], bytes=volume)

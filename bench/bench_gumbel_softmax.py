"""A generator's numbers and labels: logits and uniforms read, the output written, 12 bytes an element; so backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.conftest import normal

BATCHES = [1000, 65536]
NUMBERS = 6
WIDTHS = (*[1] * NUMBERS, 2, 3, 5, 10, 30, 50)
TEMPERATURE = 0.2


def inputs(library: Any, batch: int) -> tuple[Any, Any, np.ndarray]:
    """Logits, uniforms above 0, and the ends of the blocks."""
    u = np.random.default_rng(1).integers(1, 2**24, (batch, sum(WIDTHS))).astype(np.float32) / np.float32(2**24)
    return library.array(normal(batch, sum(WIDTHS))), library.array(u), np.cumsum(WIDTHS).astype(np.int32)


def of_labels(ends: np.ndarray) -> list[slice]:
    return [slice(int(end) - width, int(end)) for end, width in zip(ends, WIDTHS, strict=True) if width > 1]


@pytest.mark.parametrize("batch", BATCHES)
def test_forward(library: Any, measure: Any, batch: int) -> None:
    z, u, ends = inputs(library, batch)
    moved = 12 * batch * sum(WIDTHS)
    if library.kind == "minigen":
        y, ends = library.array(normal(batch, sum(WIDTHS))), library.array(ends)
        measure(lambda: library.ops.gumbel_softmax_forward(z, u, ends, y, "tanh", TEMPERATURE), bytes=moved)
        return
    arrays = library.kind == "arrays"
    xp = library.xp if arrays else library.torch
    softmax = _softmax(xp) if arrays else lambda logits: library.torch.softmax(logits, 1)

    def formula() -> Any:
        y = xp.empty_like(z)
        y[:, :NUMBERS] = xp.tanh(z[:, :NUMBERS])
        for block in of_labels(ends):
            y[:, block] = softmax((z[:, block] - xp.log(-xp.log(u[:, block]))) / TEMPERATURE)
        return y

    measure(formula, bytes=moved)


def _softmax(xp: Any) -> Any:
    def softmax(logits: Any) -> Any:
        e = xp.exp(logits - logits.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    return softmax


@pytest.mark.parametrize("batch", BATCHES)
def test_backward(library: Any, measure: Any, batch: int) -> None:
    dy, y, ends = inputs(library, batch)
    moved = 12 * batch * sum(WIDTHS)
    if library.kind == "minigen":
        dz, ends = library.array(normal(batch, sum(WIDTHS))), library.array(ends)
        measure(lambda: library.ops.gumbel_softmax_backward(dy, y, ends, dz, "tanh", TEMPERATURE), bytes=moved)
        return
    xp = library.xp if library.kind == "arrays" else library.torch

    def formula() -> Any:
        dz = xp.empty_like(y)
        dz[:, :NUMBERS] = dy[:, :NUMBERS] * (1 - y[:, :NUMBERS] ** 2)
        for block in of_labels(ends):
            mean = (dy[:, block] * y[:, block]).sum(1)[:, None]
            dz[:, block] = y[:, block] * (dy[:, block] - mean) / TEMPERATURE
        return dz

    measure(formula, bytes=moved)

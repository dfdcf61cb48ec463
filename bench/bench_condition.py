"""Labels and conditions. Bytes a row: 12 for the labels of a batch (index and label read, label written). Bytes an
element: 12 for the activation of a sum, 4 for the sums of classes; of the projection 8 forward, 16 and 8 for the
gradients of both its inputs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bench.conftest import normal

ROWS, CLASSES = 60000, 10
BATCHES = [128, 65536]
SHAPES = [(128, 128), (4096, 1024)]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.rows(lambda library, **case: not library.startswith("torch-compile"))  # one call, nothing to fuse
def test_batch_labels(library: Any, measure: Any, batch: int) -> None:
    rng = np.random.default_rng(0)
    labels, rows = library.array(rng.integers(0, CLASSES, ROWS, np.int32)), rng.integers(0, ROWS, batch)
    if library.kind == "minigen":
        indices, out = library.array(rows.astype(np.int32)), library.array(np.zeros(batch, np.int32))
        measure(lambda: library.ops.batch_labels(labels, indices, out), bytes=12 * batch, precision="int32")
    else:
        indices = library.array(rows)
        measure(lambda: labels[indices], bytes=12 * batch, precision="int32")


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_activation_of_sum(library: Any, measure: Any, shape: tuple[int, int], activation: str) -> None:
    a, b, moved = library.array(normal(*shape)), library.array(normal(*shape)), 12 * math.prod(shape)
    if library.kind == "minigen":
        y = library.array(normal(*shape))
        measure(lambda: library.ops.activation_of_sum(a, b, y, activation), bytes=moved)
    elif library.kind == "arrays":
        xp = library.xp
        calls = {"relu": lambda: xp.maximum(a + b, 0), "tanh": lambda: xp.tanh(a + b)}
        measure(calls[activation], bytes=moved)
    else:
        function = getattr(library.torch, activation)
        measure(lambda: function(a + b), bytes=moved)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_class_sums(library: Any, measure: Any, shape: tuple[int, int]) -> None:
    x, sums = library.array(normal(*shape)), library.array(np.zeros((CLASSES, shape[1]), np.float32))
    labels = library.array(np.random.default_rng(1).integers(0, CLASSES, shape[0], np.int32))
    moved = 4 * math.prod(shape)
    if library.kind == "minigen":
        measure(lambda: library.ops.class_sums(x, labels, sums), bytes=moved)
    elif library.kind == "arrays":
        xp = library.xp
        classes = library.array(np.arange(CLASSES, dtype=np.int32)[:, None])
        measure(lambda: (classes == labels).astype(xp.float32) @ x, bytes=moved)  # faster than np.add.at
    else:
        measure(lambda: sums.zero_().index_add_(0, labels, x), bytes=moved)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_projection_forward(library: Any, measure: Any, shape: tuple[int, int]) -> None:
    x, e, y = (library.array(normal(*size)) for size in (shape, shape, (shape[0], 1)))
    moved = 8 * math.prod(shape)
    if library.kind == "minigen":
        measure(lambda: library.ops.projection_forward(x, e, y), bytes=moved)
    elif library.kind == "arrays":
        measure(lambda: y + (x * e).sum(axis=1, keepdims=True), bytes=moved)
    else:
        measure(lambda: y + (x * e).sum(dim=1, keepdim=True), bytes=moved)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_projection_dgrad(library: Any, measure: Any, shape: tuple[int, int]) -> None:
    """Through the ReLU of the layer before, added to what is there."""
    dz, e, dx, x = (library.array(normal(*size)) for size in ((shape[0], 1), shape, shape, shape))
    moved = 16 * math.prod(shape)
    if library.kind == "minigen":
        measure(lambda: library.ops.projection_dgrad(dz, e, dx, x, "relu"), bytes=moved)
    else:
        measure(lambda: dx + dz * e * (x > 0), bytes=moved)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_projection_wgrad(library: Any, measure: Any, shape: tuple[int, int]) -> None:
    x, dz, moved = library.array(normal(*shape)), library.array(normal(shape[0], 1)), 8 * math.prod(shape)
    if library.kind == "minigen":
        de = library.array(normal(*shape))
        measure(lambda: library.ops.projection_wgrad(x, dz, de), bytes=moved)
    else:
        measure(lambda: dz * x, bytes=moved)

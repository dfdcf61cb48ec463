"""The rows of :mod:`minigen.gradcheck` of conditional models: what a label, or numbers beside a row, add to a layer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minigen.backend import DENSE_ACTIVATIONS
from minigen.gradcheck_tools import Derivative, InOut, Operation, Out, normals, off_zero, sizes
from minigen.reference import activations, batch, condition


def condition_derivatives(rng: np.random.Generator) -> Iterator[Derivative]:
    """As :func:`minigen.gradcheck.derivatives`."""
    B, D, N = sizes(rng, 3, 1, 6)
    z, e, E, c = normals(rng, B, D), normals(rng, B, D), normals(rng, N, D), normals(rng, B, D)
    labels, s = rng.integers(0, N, B, np.int32), normals(rng, B, 1)
    yield "condition", "class sums", lambda E: (c * (z + E[labels])).sum(), E, condition.class_sums(c, labels, N)
    of_e = condition.projection_wgrad(z, s)
    yield "condition", "projection wgrad", lambda e: (s * condition.projection_forward(z, e)).sum(), e, of_e
    for name in DENSE_ACTIVATIONS:

        def logits(before: np.ndarray, name: str = name) -> np.floating:
            return (s * condition.projection_forward(activations.forward(before, name), e)).sum()

        before = off_zero(rng, B, D)
        y = activations.forward(before, name)
        yield "condition", f"projection dgrad {name}", logits, before, condition.projection_dgrad(s, e, y, name)


def condition_operations(rng: np.random.Generator) -> Iterator[Operation]:
    """As :func:`minigen.gradcheck.operations`."""
    B, D, N = sizes(rng, 3, 9, 70)
    classes, rows = rng.integers(0, N, 100, np.int32), rng.integers(0, 100, B, np.int32)
    labels = Out(B, dtype=np.int32)
    yield "batch", "labels", "batch_labels", (classes, rows, labels), [batch.labels(classes, rows)]
    a, b, x, e = (normals(rng, B, D) for _ in range(4))
    y, dz, dx = normals(rng, B, 1), normals(rng, B, 1), normals(rng, B, D)
    of_classes = rng.integers(0, N, B, np.int32)
    sums = condition.class_sums(x, of_classes, N)
    yield "condition", "class sums", "class_sums", (x, of_classes, Out(N, D)), [sums]
    logits = y + condition.projection_forward(x, e)
    yield "condition", "projection forward", "projection_forward", (x, e, InOut(y)), [logits]
    yield "condition", "projection wgrad", "projection_wgrad", (x, dz, Out(B, D)), [condition.projection_wgrad(x, dz)]
    for name in DENSE_ACTIVATIONS:
        summed = condition.activation_of_sum(a, b, name)
        yield "condition", f"sum {name}", "activation_of_sum", (a, b, Out(B, D), name), [summed]
        h = activations.forward(a, name).astype(np.float32).astype(np.float64)
        after = dx + condition.projection_dgrad(dz, e, h, name)
        yield "condition", f"projection dgrad {name}", "projection_dgrad", (dz, e, InOut(dx), h, name), [after]

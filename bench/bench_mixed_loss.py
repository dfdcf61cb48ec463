"""A table's numbers and labels: outputs and data read, the gradient written, 12 bytes an element; for the gradient of
the log variances three buffers read, 12 again."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bench.bench_categorical_loss import one_hot
from bench.conftest import normal

BATCHES = [500, 65536]
NUMBERS = 6
WIDTHS = (*[1] * NUMBERS, 2, 3, 5, 10, 30, 50)
"""Of the blocks of columns: as many numbers as UCI Adult has, and labels."""


def inputs(library: Any, batch: int) -> tuple[Any, Any, Any, np.ndarray]:
    """Outputs, rows of the table, log variances, and the ends of the blocks."""
    x = np.concatenate([normal(batch, NUMBERS), one_hot(batch)], axis=1)
    output, logvar = normal(batch, sum(WIDTHS)), normal(sum(WIDTHS))
    return library.array(output), library.array(x), library.array(logvar), np.cumsum(WIDTHS).astype(np.int32)


@pytest.mark.parametrize("batch", BATCHES)
def test_loss(library: Any, measure: Any, batch: int) -> None:
    output, x, logvar, ends = inputs(library, batch)
    moved = 12 * batch * sum(WIDTHS)
    if library.kind == "minigen":
        doutput, rows, loss = (library.array(normal(*shape)) for shape in ((batch, sum(WIDTHS)), (batch,), (1,)))
        ends = library.array(ends)
        measure(lambda: library.ops.mixed_loss(output, x, ends, logvar, doutput, rows, loss), bytes=moved)
    elif library.kind == "arrays":
        xp, of_labels = library.xp, [slice(int(b) - w, int(b)) for b, w in zip(ends, WIDTHS, strict=True) if w > 1]

        def formula() -> Any:
            bounded = xp.clip(logvar[:NUMBERS], -14, 80)
            doutput, difference = xp.empty_like(output), output[:, :NUMBERS] - x[:, :NUMBERS]
            scaled = difference * xp.exp(-bounded)
            rows = (difference * scaled + (bounded + math.log(2 * math.pi))).sum(axis=1) / 2
            doutput[:, :NUMBERS] = scaled / batch
            for block in of_labels:
                below = output[:, block] - output[:, block].max(axis=1, keepdims=True)
                e, labels = xp.exp(below), x[:, block]
                sums = e.sum(axis=1, keepdims=True)
                rows += xp.log(sums)[:, 0] - (labels * below).sum(axis=1)
                doutput[:, block] = (e / sums - labels) / batch
            return rows, rows.mean(), doutput

        measure(formula, bytes=moved)
    else:
        torch, output = library.torch, output.requires_grad_()

        def loss_and_gradient() -> Any:
            squares = (output - x)[:, :NUMBERS] ** 2 * torch.exp(-logvar[:NUMBERS])
            total = (squares + logvar[:NUMBERS] + math.log(2 * math.pi)).sum() / 2 / batch
            pairs = zip(output.split(WIDTHS, 1), x.split(WIDTHS, 1), strict=True)
            for logits, labels in list(pairs)[NUMBERS:]:
                total = total + torch.nn.functional.cross_entropy(logits, labels)
            return torch.autograd.grad(total, output)

        measure(loss_and_gradient, bytes=moved)


@pytest.mark.parametrize("batch", BATCHES)
def test_logvar_gradient(library: Any, measure: Any, batch: int) -> None:
    output, x, logvar, ends = inputs(library, batch)
    doutput, moved = library.array(normal(batch, sum(WIDTHS))), 12 * batch * NUMBERS
    if library.kind == "minigen":
        ends, dlogvar = library.array(ends), library.array(normal(sum(WIDTHS)))
        measure(lambda: library.ops.mixed_logvar_gradient(doutput, output, x, ends, logvar, dlogvar), bytes=moved)
    else:
        measure(lambda: (1 - (doutput * (output - x))[:, :NUMBERS].sum(0)) / 2, bytes=moved)

"""Cross-entropy of one-hot blocks: logits and labels read, the gradient written, 12 bytes an element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bench.conftest import normal

BATCHES = [128, 65536]
WIDTHS = (2, 3, 5, 10, 30, 50)
"""Of the blocks of columns, as a table with columns of labels has them."""


def one_hot(rows: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.concatenate([np.eye(width, dtype=np.float32)[rng.integers(0, width, rows)] for width in WIDTHS], axis=1)


@pytest.mark.parametrize("batch", BATCHES)
def test_loss(library: Any, measure: Any, batch: int) -> None:
    shape = batch, sum(WIDTHS)
    logits, x, moved = library.array(normal(*shape)), library.array(one_hot(batch)), 12 * math.prod(shape)
    ends = np.cumsum(WIDTHS).astype(np.int32)
    blocks = [slice(end - width, end) for end, width in zip(ends.tolist(), WIDTHS, strict=True)]
    if library.kind == "minigen":
        ends, (dlogits, rows, loss) = library.array(ends), (library.array(normal(*s)) for s in (shape, (batch,), (1,)))
        measure(lambda: library.ops.categorical_loss(logits, x, ends, dlogits, rows, loss), bytes=moved)
    elif library.kind == "arrays":
        xp = library.xp

        def formula() -> Any:
            rows, dlogits = xp.zeros(batch, xp.float32), xp.empty_like(logits)
            for block in blocks:
                below = logits[:, block] - logits[:, block].max(axis=1, keepdims=True)
                e, labels = xp.exp(below), x[:, block]
                sums = e.sum(axis=1, keepdims=True)
                rows += xp.log(sums)[:, 0] - (labels * below).sum(axis=1)
                dlogits[:, block] = (e / sums - labels) / batch
            return rows, rows.mean(), dlogits

        measure(formula, bytes=moved)
    else:
        cross_entropy, logits = library.torch.nn.functional.cross_entropy, logits.requires_grad_()

        def loss_and_gradient() -> Any:
            pairs = zip(logits.split(WIDTHS, 1), x.split(WIDTHS, 1), strict=True)
            return library.torch.autograd.grad(sum(cross_entropy(*pair) for pair in pairs), logits)

        measure(loss_and_gradient, bytes=moved)

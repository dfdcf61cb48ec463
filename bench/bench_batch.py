"""The next batch: its row numbers, and the rows gathered from uint8 and normalised (1 byte read, 4 written)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

ROWS, COLUMNS = 60000, 784
BATCHES = [128, 1024, 4096]
SCALE, SHIFT = 2 / 255, -1.0
INDICES, GATHERED = "int32 or int64", "uint8 to float32"
"""What the rows of the table say in place of a precision."""


@pytest.fixture(scope="module")
def data() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS), np.uint8)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.rows(lambda library, **case: not library.startswith("torch-compile"))  # one call, nothing to fuse
def test_indices(library: Any, measure: Any, batch: int) -> None:
    """minigen computes a permutation of each epoch; the others draw row numbers with replacement."""
    if library.kind == "minigen":
        indices = library.array(np.zeros(batch, np.int32))
        measure(
            lambda: library.ops.batch_indices(indices, ROWS, 0, 1, library.step, batch, ROWS // batch),
            bytes=4 * batch,
            precision=INDICES,
        )
    elif library.kind == "arrays":
        generator = library.xp.random.default_rng(0)
        measure(lambda: generator.integers(0, ROWS, batch), bytes=8 * batch, precision=INDICES)
    else:
        draw = library.torch.randint
        measure(lambda: draw(ROWS, (batch,), device=library.device), bytes=8 * batch, precision=INDICES)


@pytest.mark.parametrize("batch", BATCHES)
def test_gather(library: Any, measure: Any, data: np.ndarray, batch: int) -> None:
    rows = np.random.default_rng(1).integers(0, ROWS, batch)
    resident = library.array(data)
    volume = {"bytes": 5 * batch * COLUMNS, "precision": GATHERED}
    if library.kind == "minigen":
        indices, out = library.array(rows.astype(np.int32)), library.array(np.zeros((batch, COLUMNS), np.float32))
        measure(lambda: library.ops.batch_gather(resident, indices, out, SCALE, SHIFT), **volume)
    elif library.kind == "arrays":
        indices = library.array(rows)
        measure(lambda: resident[indices].astype(np.float32) * np.float32(SCALE) + np.float32(SHIFT), **volume)
    else:
        indices = library.array(rows)
        measure(lambda: resident[indices].float() * SCALE + SHIFT, **volume)

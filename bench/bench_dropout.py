"""Dropout: 4 bytes read and 4 written an element, and a random number for each. Every library draws its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bench.conftest import normal

SHAPES = [(128, 128), (128, 1024), (4096, 1024)]
RATE = 0.3


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dropout(library: Any, measure: Any, shape: tuple[int, int]) -> None:
    x, moved = library.array(normal(*shape)), 8 * math.prod(shape)
    if library.kind == "minigen":
        y = library.array(normal(*shape))
        measure(lambda: library.ops.dropout(x, y, 0, 2, library.step, 0, RATE), bytes=moved)
    elif library.kind == "arrays":
        generator = library.xp.random.default_rng(0)
        factor = np.float32(1 / (1 - RATE))
        measure(lambda: x * ((generator.random(shape, dtype=np.float32) >= RATE) * factor), bytes=moved)
    else:
        measure(lambda: library.torch.nn.functional.dropout(x, RATE), bytes=moved)

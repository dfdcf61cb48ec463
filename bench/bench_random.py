"""Random numbers: 4 bytes written each. Every library draws with its own generator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

SHAPES = [(128, 20), (128, 100), (4096, 100), (2**22,)]


@pytest.mark.parametrize("kind", ["uniform", "normal"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.rows(lambda library, **case: not library.startswith("torch-compile"))  # one call, nothing to fuse
def test_random(library: Any, measure: Any, shape: tuple[int, ...], kind: str) -> None:
    moved = 4 * math.prod(shape)
    if library.kind == "minigen":
        out = library.array(np.zeros(shape, np.float32))
        operation = library.ops.random_normal if kind == "normal" else library.ops.random_uniform
        measure(lambda: operation(out, 0, 2, library.step), bytes=moved)
    elif library.kind == "arrays":
        generator = library.xp.random.default_rng(0)
        draw = generator.standard_normal if kind == "normal" else generator.random
        measure(lambda: draw(shape, dtype=np.float32), bytes=moved)
    else:
        draw = library.torch.randn if kind == "normal" else library.torch.rand
        measure(lambda: draw(shape, device=library.device), bytes=moved)

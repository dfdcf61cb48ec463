"""Random numbers: 4 bytes written each. Every library draws with its own generator. Noise on rows moves 12 bytes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bench.conftest import normal

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


@pytest.mark.parametrize("shape", [(128, 784), (4096, 784)], ids=str)
def test_add_noise(library: Any, measure: Any, shape: tuple[int, int]) -> None:
    """Noise that is drawn already, as instance noise adds it."""
    x, noise, moved = library.array(normal(*shape)), library.array(normal(*shape)), 12 * math.prod(shape)
    if library.kind == "minigen":
        out = library.array(normal(*shape))
        measure(lambda: library.ops.add_noise(x, noise, library.step, out, 0.1, 1000), bytes=moved)
    else:
        measure(lambda: x + 0.1 * noise, bytes=moved)

"""Optimizers over a flat buffer: SGD moves 20 bytes a parameter (p and velocity both ways, g in), Adam 28."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.conftest import normal
from bench.spec import Spec

SIZES = [Spec("gan", hidden, 128, 128).parameters for hidden in ((128,), (1024, 1024))] + [2**24]
"""All parameters of the article's GAN, of the wide one, and more than a cache holds."""
LR, BETA1, BETA2, EPS, MOMENTUM, DECAY = 2e-4, 0.9, 0.999, 1e-8, 0.9, 0.01


def buffers(library: Any, size: int, count: int) -> tuple[Any, ...]:
    """Parameters, gradient and state; the last of them, v, not negative."""
    return tuple(library.array(np.abs(normal(size))) for _ in range(count))


@pytest.mark.parametrize("size", SIZES)
def test_sgd(library: Any, measure: Any, size: int) -> None:
    p, g, velocity = buffers(library, size, 3)
    if library.kind == "minigen":
        lr = library.array(np.array([LR], np.float32))
        measure(lambda: library.ops.sgd(p, g, velocity, lr, MOMENTUM), bytes=20 * size)
    elif library.kind == "arrays":

        def formula() -> None:
            velocity[...] = MOMENTUM * velocity + g
            p[...] -= LR * velocity

        measure(formula, bytes=20 * size)
    else:
        optimizer = torch_optimizer(library, p, g, library.torch.optim.SGD, lr=LR, momentum=MOMENTUM)
        measure(optimizer.step, bytes=20 * size)


@pytest.mark.parametrize("decoupled", [False, True], ids=["adam", "adamw"])
@pytest.mark.parametrize("size", SIZES)
def test_adam(library: Any, measure: Any, size: int, decoupled: bool) -> None:
    p, g, m, v = buffers(library, size, 4)
    if library.kind == "minigen":
        lr = library.array(np.array([LR], np.float32))
        operation = library.ops.adamw if decoupled else library.ops.adam
        measure(lambda: operation(p, g, m, v, lr, library.step, BETA1, BETA2, EPS), bytes=28 * size)
    elif library.kind == "arrays":

        def formula() -> None:
            if decoupled:
                p[...] -= LR * DECAY * p
            m[...] = BETA1 * m + (1 - BETA1) * g
            v[...] = BETA2 * v + (1 - BETA2) * g**2
            p[...] -= LR * (m / (1 - BETA1)) / (library.xp.sqrt(v / (1 - BETA2)) + EPS)

        measure(formula, bytes=28 * size)
    else:
        kind = library.torch.optim.AdamW if decoupled else library.torch.optim.Adam
        optimizer = torch_optimizer(library, p, g, kind, lr=LR, betas=(BETA1, BETA2), eps=EPS)
        measure(optimizer.step, bytes=28 * size)


def torch_optimizer(library: Any, p: Any, g: Any, kind: Any, **settings: Any) -> Any:
    """PyTorch's own fused kernel in eager mode; compiled, the compiler fuses."""
    parameter = library.torch.nn.Parameter(p)
    parameter.grad = g
    return kind([parameter], **settings, fused=not library.compiled)

"""Optimizers over a flat buffer: SGD and Lion move 20 bytes a parameter (p and velocity both ways, g in), Adam and
RMSProp 28; an average of the parameters 12, clipped ones 8, the norm of a gradient that is short enough 4."""

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


@pytest.mark.parametrize("size", SIZES)
def test_rmsprop(library: Any, measure: Any, size: int) -> None:
    p, g, velocity, v = buffers(library, size, 4)
    if library.kind == "minigen":
        lr = library.array(np.array([LR], np.float32))
        measure(lambda: library.ops.rmsprop(p, g, velocity, v, lr, BETA2, EPS, MOMENTUM), bytes=28 * size)
    elif library.kind == "arrays":

        def formula() -> None:
            v[...] = BETA2 * v + (1 - BETA2) * g**2
            velocity[...] = MOMENTUM * velocity + g / (library.xp.sqrt(v) + EPS)
            p[...] -= LR * velocity

        measure(formula, bytes=28 * size)
    else:
        parameter = library.torch.nn.Parameter(p)
        parameter.grad = g
        settings = {"lr": LR, "alpha": BETA2, "eps": EPS, "momentum": MOMENTUM}
        measure(library.torch.optim.RMSprop([parameter], **settings, foreach=True).step, bytes=28 * size)


@pytest.mark.parametrize("size", SIZES)
def test_lion(library: Any, measure: Any, size: int) -> None:
    p, g, m = buffers(library, size, 3)
    if library.kind == "minigen":
        lr = library.array(np.array([LR], np.float32))
        measure(lambda: library.ops.lion(p, g, m, lr, BETA1, BETA2, DECAY), bytes=20 * size)
    elif library.kind == "arrays":

        def formula() -> None:
            p[...] -= LR * (library.xp.sign(BETA1 * m + (1 - BETA1) * g) + DECAY * p)
            m[...] = BETA2 * m + (1 - BETA2) * g

        measure(formula, bytes=20 * size)
    else:  # PyTorch has no optimizer of that name: its operations, in place

        def steps() -> None:
            direction = library.torch.lerp(g, m, BETA1).sign_()
            p.mul_(1 - LR * DECAY).add_(direction, alpha=-LR)
            m.lerp_(g, 1 - BETA2)

        measure(steps, bytes=20 * size)


@pytest.mark.parametrize("size", SIZES)
def test_average(library: Any, measure: Any, size: int) -> None:
    average, p = buffers(library, size, 2)
    if library.kind == "minigen":
        measure(lambda: library.ops.average(average, p, library.step, BETA2), bytes=12 * size)
    elif library.kind == "arrays":

        def formula() -> None:
            average[...] += (1 - BETA2) * (p - average)

        measure(formula, bytes=12 * size)
    else:
        measure(lambda: average.lerp_(p, 1 - BETA2), bytes=12 * size)


@pytest.mark.parametrize("size", SIZES)
def test_clip_norm(library: Any, measure: Any, size: int) -> None:
    """Of a gradient that is not too long, which is then only read (PyTorch multiplies by 1)."""
    (g,) = buffers(library, size, 1)
    most = 1e9
    if library.kind == "minigen":
        norm = library.array(np.zeros(1, np.float32))
        measure(lambda: library.ops.clip_norm(g, norm, most), bytes=4 * size)
    elif library.kind == "arrays":

        def formula() -> None:
            norm = float(library.xp.sqrt((g * g).sum()))
            if norm > most:
                g[...] *= most / norm

        measure(formula, bytes=4 * size)
    else:
        parameter = library.torch.nn.Parameter(library.torch.zeros_like(g))
        parameter.grad = g
        clip = library.torch.nn.utils.clip_grad_norm_
        measure(lambda: clip([parameter], most), bytes=4 * size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.rows(lambda library, **case: not library.startswith("torch-compile"))  # one call, nothing to fuse
def test_clip(library: Any, measure: Any, size: int) -> None:
    (p,) = buffers(library, size, 1)
    if library.kind == "minigen":
        measure(lambda: library.ops.clip(p, 0.5), bytes=8 * size)
    elif library.kind == "arrays":
        measure(lambda: library.xp.clip(p, -0.5, 0.5, out=p), bytes=8 * size)
    else:
        measure(lambda: p.clamp_(-0.5, 0.5), bytes=8 * size)


def torch_optimizer(library: Any, p: Any, g: Any, kind: Any, **settings: Any) -> Any:
    """PyTorch's own fused kernel in eager mode; compiled, the compiler fuses."""
    parameter = library.torch.nn.Parameter(p)
    parameter.grad = g
    return kind([parameter], **settings, fused=not library.compiled)

"""The three products of a dense layer, 2 B I O operations each, with bias, activation or its derivative; and the
weight gradient with Adam after it, as a training step has it.

The shapes of the article's GAN and of the VAE, and a sweep of squares. NumPy and CuPy run the matrix product
alone, into a buffer that is there: the bound for a formula written on top of it. PyTorch runs what autograd does.

minigen-bf16x6 computes the same to the same accuracy, on AMX: its share is that of the float32 peak all the same.
In bf16 minigen reads and writes float32 as ever, rounds, and does all of the layer; PyTorch's row is the product
alone, `torch.mm` of tensors that are bf16 already, into a third.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.bench_optimizer import BETA1, BETA2, EPS, LR, torch_optimizer
from bench.conftest import normal

GAN = {
    "forward": [(128, 100, 128), (128, 128, 784), (256, 784, 128), (256, 128, 1)],
    "dgrad": [(128, 784, 128), (128, 128, 784), (256, 128, 1)],
    "wgrad": [(256, 784, 128), (128, 784, 128), (128, 128, 784), (128, 100, 128), (256, 128, 1)],
}
VAE = {
    "forward": [(128, 784, 400), (128, 400, 40), (128, 20, 400), (128, 400, 784)],
    "dgrad": [(128, 400, 784), (128, 20, 400), (128, 400, 40)],
    "wgrad": [(128, 784, 400), (128, 400, 40), (128, 20, 400), (128, 400, 784)],
}
SQUARES = [(n, n, n) for n in (64, 128, 256, 512, 1024, 2048)]


def cases(product: str) -> list[tuple[int, int, int]]:
    """B, I, O of every case."""
    return [*GAN[product], *VAE[product], *SQUARES]


def activation_of(outputs: int) -> str:
    """What follows a layer this wide in the models: tanh on pixels, nothing on a head, ReLU elsewhere."""
    return {784: "tanh", 1: "linear", 40: "linear"}.get(outputs, "relu")


def with_one_compiled_square(library: str, shape: tuple[int, int, int]) -> bool:
    """torch.compile has the epilogues of the models' layers to fuse; between squares there is nothing to learn."""
    return not library.startswith("torch-compile") or shape not in SQUARES or shape[0] == 1024


def volume(B: int, n_in: int, n_out: int) -> dict[str, int]:
    """Operations, and the bytes of x or its gradient, W or its gradient, and y or its gradient, each once."""
    return {"flops": 2 * B * n_in * n_out, "bytes": 4 * (B * n_in + n_in * n_out + B * n_out)}


@pytest.mark.in_bf16x6
@pytest.mark.parametrize("shape", cases("forward"), ids=str)
@pytest.mark.rows.with_args(with_one_compiled_square)
def test_forward(library: Any, measure: Any, shape: tuple[int, int, int]) -> None:
    B, n_in, n_out = shape
    x, W, b, y = (library.array(normal(*size)) for size in ((B, n_in), (n_in, n_out), (n_out,), (B, n_out)))
    activation = activation_of(n_out)
    if library.kind == "minigen":
        measure(lambda: library.ops.dense_forward(x, W, b, y, activation), **volume(*shape))
    elif library.kind == "arrays":
        measure(lambda: library.xp.matmul(x, W, out=y), **volume(*shape))
    else:
        functions = {"tanh": library.torch.tanh, "relu": library.torch.relu, "linear": lambda z: z}
        measure(lambda: functions[activation](library.torch.addmm(b, x, W)), **volume(*shape))


@pytest.mark.in_bf16x6
@pytest.mark.parametrize("shape", cases("dgrad"), ids=str)
@pytest.mark.rows.with_args(with_one_compiled_square)
def test_dgrad(library: Any, measure: Any, shape: tuple[int, int, int]) -> None:
    B, n_in, n_out = shape
    dz, W, dx = (library.array(normal(*size)) for size in ((B, n_out), (n_in, n_out), (B, n_in)))
    activation = activation_of(n_in)
    x = library.array(np.tanh(normal(B, n_in)))
    if library.kind == "minigen":
        measure(lambda: library.ops.dense_dgrad(dz, W, dx, x, activation), **volume(*shape))
    elif library.kind == "arrays":
        measure(lambda: library.xp.matmul(dz, W.T, out=dx), **volume(*shape))
    else:
        derivatives = {"tanh": lambda dy: dy * (1 - x * x), "relu": lambda dy: dy * (x > 0), "linear": lambda dy: dy}
        measure(lambda: derivatives[activation](dz @ W.T), **volume(*shape))


@pytest.mark.in_bf16x6
@pytest.mark.parametrize("shape", cases("wgrad"), ids=str)
@pytest.mark.rows(lambda library, **case: not library.startswith("torch-compile"))  # two calls, nothing to fuse
def test_wgrad(library: Any, measure: Any, shape: tuple[int, int, int]) -> None:
    B, n_in, n_out = shape
    x, dz, dW, db = (library.array(normal(*size)) for size in ((B, n_in), (B, n_out), (n_in, n_out), (n_out,)))
    if library.kind == "minigen":
        measure(lambda: library.ops.dense_wgrad(x, dz, dW, db), **volume(*shape))
    elif library.kind == "arrays":
        measure(lambda: library.xp.matmul(x.T, dz, out=dW), **volume(*shape))
    else:
        measure(lambda: (x.T @ dz, dz.sum(0)), **volume(*shape))


@pytest.mark.in_bf16x6
@pytest.mark.parametrize("shape", [shape for shape in cases("wgrad")[:-2] if shape[2] > 1], ids=str)
@pytest.mark.rows(lambda library, **case: not library.startswith("torch-compile"))
def test_wgrad_adam(library: Any, measure: Any, shape: tuple[int, int, int]) -> None:
    """minigen updates W part by part while its gradient is near; in bf16x6 only where W is large."""
    B, n_in, n_out = shape
    x, dz = library.array(normal(B, n_in)), library.array(normal(B, n_out))
    size = (n_in + 1) * n_out
    p, g, m, v = (library.array(np.abs(normal(size))) for _ in range(4))
    dW, db = g[: n_in * n_out].reshape(n_in, n_out), g[n_in * n_out :]
    moved = {"flops": 2 * B * n_in * n_out, "bytes": 4 * (B * (n_in + n_out) + 6 * size)}
    if library.kind == "minigen":
        lr = library.array(np.array([LR], np.float32))

        def update() -> None:
            library.ops.dense_wgrad(x, dz, dW, db)
            library.ops.adam(p, g, m, v, lr, library.step, BETA1, BETA2, EPS)

        measure(update, **moved)
    elif library.kind == "arrays":

        def formula() -> None:
            library.xp.matmul(x.T, dz, out=dW)
            dz.sum(0, out=db)
            m[...] = BETA1 * m + (1 - BETA1) * g
            v[...] = BETA2 * v + (1 - BETA2) * g**2
            p[...] -= LR * (m / (1 - BETA1)) / (library.xp.sqrt(v / (1 - BETA2)) + EPS)

        measure(formula, **moved)
    else:
        optimizer = torch_optimizer(library, p, g, library.torch.optim.Adam, lr=LR, betas=(BETA1, BETA2), eps=EPS)

        def step() -> None:
            library.torch.mm(x.T, dz, out=dW)
            library.torch.sum(dz, 0, out=db)
            optimizer.step()

        measure(step, **moved)


@pytest.mark.parametrize(("product", "shape"), [(p, shape) for p in GAN for shape in cases(p) if shape[2] > 1], ids=str)
@pytest.mark.rows(lambda library, **case: library in ("minigen", "torch"))
def test_bf16(library: Any, measure: Any, product: str, shape: tuple[int, int, int]) -> None:
    native = pytest.importorskip("minigen._native", reason="minigen is not built")
    if not native.supported_bf16():
        pytest.skip("neither AVX512-BF16 nor AMX-BF16 here")
    B, n_in, n_out = shape
    if library.name == "minigen":
        layer_in_bf16(library, measure, product, shape)
    else:
        sizes = {"forward": (B, n_in, n_out), "dgrad": (B, n_out, n_in), "wgrad": (n_in, B, n_out)}[product]
        M, K, N = sizes
        a, b, c = (library.array(normal(*size)).bfloat16() for size in ((M, K), (K, N), (M, N)))
        a = a.T.contiguous().T if product == "wgrad" else a  # as the layer has them in memory
        b = b.T.contiguous().T if product == "dgrad" else b
        measure(
            lambda: library.torch.mm(a, b, out=c),
            flops=2 * M * N * K,
            bytes=2 * (M * K + K * N + M * N),
            precision="bf16",
        )


def layer_in_bf16(library: Any, measure: Any, product: str, shape: tuple[int, int, int]) -> None:
    ours = type(library)("cpu", "bf16")
    B, n_in, n_out = shape
    x, W, b, y = (ours.array(normal(*size)) for size in ((B, n_in), (n_in, n_out), (n_out,), (B, n_out)))
    before, dx, dW, db = ours.array(np.tanh(x)), *(ours.array(a) for a in (x, W, b))
    calls = {
        "forward": lambda: ours.ops.dense_forward(x, W, b, y, activation_of(n_out)),
        "dgrad": lambda: ours.ops.dense_dgrad(y, W, dx, before, activation_of(n_in)),
        "wgrad": lambda: ours.ops.dense_wgrad(x, y, dW, db),
    }
    measure(calls[product], **volume(*shape), precision="bf16", library=ours)

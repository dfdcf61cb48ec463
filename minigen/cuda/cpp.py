"""Launches of the CUDA C++ kernels in ``csrc/cuda``: what each takes, over which grid.

The Triton kernels do the same work inside the fused step; these stand alone. ``bench/gpu.sh`` times both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigen.backend import Array
from minigen.cuda.launch import Executor, Kernel, Launch

THREADS = 256  # of a block, as the kernels' launch bounds say
MOST_BLOCKS = 1024  # a thread then takes several elements: enough blocks for every present GPU, several times over

Vectors = Sequence[tuple[Array, ...]]


def adam(
    executor: Executor,
    vectors: Vectors,
    step: Array,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Launch:
    """AdamW on several flat vectors at once, each ``(p, g, m, v, lr)``; see ``Backend.adamw``.

    The kernel reads their addresses from a table, so they must live as long as the launch is used.
    """
    settings = (float(beta1), float(beta2), float(eps), float(weight_decay))
    return _optimizer(executor, "adam", vectors, (step, *settings), flops=16, accesses=7)


def sgd(executor: Executor, vectors: Vectors, momentum: float = 0.0, weight_decay: float = 0.0) -> Launch:
    """SGD on several flat vectors at once, each ``(p, g, velocity, lr)``; see :func:`adam`."""
    return _optimizer(executor, "sgd", vectors, (float(momentum), float(weight_decay)), flops=6, accesses=5)


def random_uniform(out: Array, seed: int, stream: int, step: Array) -> Launch:
    """See ``Backend.random_uniform``."""
    return _random("random_uniform", out, seed, stream, step, flops=1)


def random_normal(out: Array, seed: int, stream: int, step: Array) -> Launch:
    """See ``Backend.random_normal``."""
    return _random("random_normal", out, seed, stream, step, flops=25)


def batch_indices(
    indices: Array, n: int, seed: int, stream: int, step: Array, batch_size: int, steps_per_epoch: int
) -> Launch:
    """See ``Backend.batch_indices``; a position past the end of the epoch gives -1."""
    rows = len(indices)
    return Launch(
        _kernel("batch.cu", "batch_indices"),
        (_blocks(rows), 1, 1),
        (indices, rows, n, seed, stream, step, batch_size, steps_per_epoch),
        num_warps=THREADS // 32,
        fuses=("batch_indices",),
        bytes=4 * rows,
    )


def batch_gather(data: Array, indices: Array, out: Array, scale: float = 1.0, shift: float = 0.0) -> Launch:
    """See ``Backend.batch_gather``; an index outside of ``data`` gives a row of NaN."""
    (N, D), B = data.shape, len(indices)
    return Launch(
        _kernel("batch.cu", f"batch_gather_{_kind(data)}"),
        (_quad_blocks(D), B, 1),
        (data, N, D, indices, out, float(scale), float(shift)),
        num_warps=THREADS // 32,
        fuses=("batch_gather",),
        flops=2 * B * D,
        bytes=B * (D * (data.itemsize + 4) + 4),
    )


def batch_take(
    data: Array,
    indices: Array,
    out: Array,
    seed: int,
    stream: int,
    step: Array,
    batch_size: int,
    steps_per_epoch: int,
    scale: float = 1.0,
    shift: float = 0.0,
) -> Launch:
    """``batch_indices`` and ``batch_gather`` in one launch."""
    (N, D), B = data.shape, len(indices)
    return Launch(
        _kernel("batch.cu", f"batch_take_{_kind(data)}"),
        (_quad_blocks(D), B, 1),
        (data, out, indices, D, N, seed, stream, step, batch_size, steps_per_epoch, float(scale), float(shift)),
        num_warps=THREADS // 32,
        fuses=("batch_indices", "batch_gather"),
        flops=2 * B * D,
        bytes=B * (D * (data.itemsize + 4) + 4),
    )


def _optimizer(
    executor: Executor, name: str, vectors: Vectors, settings: tuple[Any, ...], flops: int, accesses: int
) -> Launch:
    rows = [[executor.address(buffer) for buffer in buffers] + [buffers[0].size] for buffers in vectors]
    table = executor.upload(np.array(rows, np.uint64))
    sizes = [row[-1] for row in rows]
    return Launch(
        _kernel("optimizer.cu", name),
        (_quad_blocks(max(sizes)), len(rows), 1),
        (table, *settings),
        num_warps=THREADS // 32,
        fuses=(name,) * len(rows),
        flops=flops * sum(sizes),
        bytes=4 * accesses * sum(sizes),
    )


def _random(name: str, out: Array, seed: int, stream: int, step: Array, flops: int) -> Launch:
    return Launch(
        _kernel("random.cu", name),
        (_quad_blocks(out.size), 1, 1),
        (out, out.size, seed, stream, step),
        num_warps=THREADS // 32,
        fuses=(name,),
        flops=flops * out.size,
        bytes=4 * out.size,
    )


def _kernel(file: str, function: str) -> Kernel:
    return Kernel(function, (file, function), "cuda")


def _kind(data: Array) -> str:
    return "bytes" if data.dtype == np.uint8 else "floats"


def _blocks(threads: int) -> int:
    """Blocks for that many threads, within reason; none for no threads."""
    return min(-(-threads // THREADS), MOST_BLOCKS)


def _quad_blocks(elements: int) -> int:
    """Blocks for threads that take four elements each."""
    return _blocks(-(-elements // 4))

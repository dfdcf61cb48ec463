"""maxout: the largest of the pieces, and the gradient to it. See :mod:`minigen.reference.maxout`."""

from __future__ import annotations

import triton
import triton.language as tl

from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import BLOCK, Target, blocks, job, lowers
from minigen.step.record import Operation


@triton.jit
def largest_piece(x, i, n, K: tl.constexpr, WIDTH: tl.constexpr):
    """Of each output ``i`` of ``n = B O``: where its pieces begin in ``x[B,K,O]``, the largest, and which that is."""
    row = i // WIDTH
    start = row.to(tl.int64) * (K * WIDTH) + (i - row * WIDTH)
    largest = tl.load(x + start, mask=i < n, other=0.0)
    piece = i * 0
    for k in range(1, K):
        value = tl.load(x + start + k * WIDTH, mask=i < n, other=0.0)
        larger = (value > largest) | ((value != value) & (largest == largest))  # NaN is larger than any number
        largest = tl.where(larger, value, largest)
        piece = tl.where(larger, k, piece)
    return start, largest, piece


@triton.jit
def forward(pid, x, y, n, K: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """``y[B,O]``."""
    i = pid * BLOCK + tl.arange(0, BLOCK)
    _, largest, _ = largest_piece(x, i, n, K, WIDTH)
    tl.store(y + i, largest, mask=i < n)


@triton.jit
def tangent(pid, x_tangent, x, y_tangent, n, K: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """``y_tangent[B,O]``: of ``x_tangent[B,K,O]`` the largest piece of ``x``."""
    i = pid * BLOCK + tl.arange(0, BLOCK)
    start, _, piece = largest_piece(x, i, n, K, WIDTH)
    tl.store(y_tangent + i, tl.load(x_tangent + start + piece * WIDTH, mask=i < n, other=0.0), mask=i < n)


@triton.jit
def backward(pid, dy, x, dx, n, K: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """``dx[B,K,O]``."""
    i = pid * BLOCK + tl.arange(0, BLOCK)
    start, _, piece = largest_piece(x, i, n, K, WIDTH)
    gradient = tl.load(dy + i, mask=i < n, other=0.0)
    for k in range(0, K):
        tl.store(dx + start + k * WIDTH, tl.where(piece == k, gradient, 0.0), mask=i < n)


# --- lowering -----------------------------------------------------------------------------------------


FUNCTIONS = {"maxout_forward": forward, "maxout_backward": backward, "maxout_tangent": tangent}


@lowers(*FUNCTIONS)
def lower_maxout(op: Operation, target: Target) -> list[Job]:
    B, K, WIDTH = op["x"].shape
    n = B * WIDTH
    arguments = {**op.buffers, "n": n, "K": K, "WIDTH": WIDTH, "BLOCK": BLOCK}
    return [job(op, FUNCTIONS[op.name], blocks(n, BLOCK), arguments, n * K)]

"""dropout: ``y = x m / (1 - rate)``, the mask drawn as it is needed. See :mod:`minigen.reference.dropout`."""

from __future__ import annotations

import math

import triton
import triton.language as tl

from minigen.cuda.kernels.random import philox
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import BLOCK, Target, blocks, int32, job, lowers
from minigen.step.record import Operation


@triton.jit
def forward(
    pid, x, y, step, n, seed, stream, first_block, skipped, threshold, scale,
    STEPS_AHEAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``y[n]`` from ``x[n]``, whose first element is word ``skipped`` of Philox's block ``first_block``."""
    now = tl.load(step) - STEPS_AHEAD
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    element = i + skipped
    w0, w1, w2, w3 = philox(seed, stream, now, (element >> 2) + first_block)
    low = tl.where((element & 1) != 0, w1, w0)
    high = tl.where((element & 1) != 0, w3, w2)
    word = tl.where((element & 2) != 0, high, low)
    kept = (word >> 8).to(tl.int32) >= threshold
    tl.store(y + i, tl.load(x + i, mask=i < n, other=0.0) * tl.where(kept, scale, 0.0), mask=i < n)


# --- lowering -----------------------------------------------------------------------------------------


@lowers("dropout")
def lower_dropout(op: Operation, target: Target) -> list[Job]:
    n = op["x"].size
    arguments = {
        **op.buffers,
        "n": n,
        "seed": int32(op["seed"]),
        "stream": int32(op["stream"]),
        "first_block": int32(op["first"] // 4),
        "skipped": op["first"] % 4,
        "threshold": math.ceil(op["rate"] * 2**24),
        "scale": 1 / (1 - op["rate"]),
        "STEPS_AHEAD": op["steps_ahead"],
        "BLOCK": BLOCK,
    }
    return [job(op, forward, blocks(n, BLOCK), arguments, 30 * n)]

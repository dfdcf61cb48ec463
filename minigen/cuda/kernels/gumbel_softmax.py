"""gumbel_softmax: a generator's numbers and labels. :mod:`minigen.reference.gumbel_softmax` derives it."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from minigen.cuda.kernels.activations import activate, differentiate
from minigen.cuda.kernels.elementary import exp_negative, log
from minigen.cuda.kernels.matmul import load
from minigen.cuda.kernels.random import UNIT
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import Target, blocks, job, lowers
from minigen.step.record import Operation


@triton.jit
def block_of(ends, group):
    """The first column of a block, and the one after its last."""
    begin = 0
    if group > 0:
        begin = tl.load(ends + group - 1)
    return begin, tl.load(ends + group)


@triton.jit
def noisy(z, u, rows, columns, B, D: tl.constexpr, sharpness, NOISE: tl.constexpr):
    """The logits of a tile, with Gumbel noise over the temperature where there is NOISE."""
    logits = load(z, rows, columns, B, D)
    if NOISE:
        exponential = -log(load(u, rows, columns, B, D) + UNIT)
        logits = (logits - log(tl.where(exponential < 0.5 * UNIT, 0.5 * UNIT, exponential))) * sharpness
    return logits


@triton.jit
def below_largest(logits, largest, inside):
    """What a tile's logits lie below the largest of their row, 0 outside.

    A product that is fused into the subtraction is not rounded, as the largest was, and could come to lie above it.
    """
    below = logits - largest[:, None]
    return tl.where(inside & ~(below > 0.0), below, 0.0)  # NaN stays NaN


@triton.jit
def forward(
    pid, z, u, ends, y, B, sharpness,
    D: tl.constexpr, G: tl.constexpr, ACTIVATION: tl.constexpr, NOISE: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """``y[B,D]``: each program has BM rows of one block. The columns of a label are walked three times, BN at a time:
    for the largest logit, for the sum, for the output."""
    group = pid % G
    rows = ((pid // G) * BM + tl.arange(0, BM)).to(tl.int64)
    begin, end = block_of(ends, group)
    if end - begin == 1:
        at = rows * D + begin
        tl.store(y + at, activate(tl.load(z + at, mask=rows < B, other=0.0), ACTIVATION), mask=rows < B)
    else:
        largest = tl.full([BM], float("-inf"), tl.float32)
        for c in range(begin, end, BN):
            columns = c + tl.arange(0, BN)
            logits = noisy(z, u, rows, columns, B, D, sharpness, NOISE)
            largest = tl.maximum(largest, tl.max(tl.where((columns < end)[None, :], logits, float("-inf")), axis=1))
        sums = tl.zeros([BM], tl.float32)
        for c in range(begin, end, BN):
            columns = c + tl.arange(0, BN)
            inside = (columns < end)[None, :]
            below = below_largest(noisy(z, u, rows, columns, B, D, sharpness, NOISE), largest, inside)
            sums += tl.sum(tl.where(inside, exp_negative(below), 0.0), axis=1)
        for c in range(begin, end, BN):
            columns = c + tl.arange(0, BN)
            inside = (columns < end)[None, :]
            below = below_largest(noisy(z, u, rows, columns, B, D, sharpness, NOISE), largest, inside)
            share = exp_negative(below) / sums[:, None]
            mask = (rows < B)[:, None] & inside
            tl.store(y + rows[:, None] * D + columns[None, :], share, mask=mask)


@triton.jit
def backward(
    pid, dy, y, ends, dz, B, sharpness,
    D: tl.constexpr, G: tl.constexpr, ACTIVATION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """``dz[B,D]``, as :func:`forward`; the columns of a label are walked twice."""
    group = pid % G
    rows = ((pid // G) * BM + tl.arange(0, BM)).to(tl.int64)
    begin, end = block_of(ends, group)
    if end - begin == 1:
        at = rows * D + begin
        slope, out = tl.load(dy + at, mask=rows < B, other=0.0), tl.load(y + at, mask=rows < B, other=0.0)
        tl.store(dz + at, differentiate(slope, out, ACTIVATION), mask=rows < B)
    else:
        mean = tl.zeros([BM], tl.float32)
        for c in range(begin, end, BN):
            columns = c + tl.arange(0, BN)
            product = load(dy, rows, columns, B, D) * load(y, rows, columns, B, D)
            mean += tl.sum(tl.where((columns < end)[None, :], product, 0.0), axis=1)
        for c in range(begin, end, BN):
            columns = c + tl.arange(0, BN)
            slope = load(y, rows, columns, B, D) * (load(dy, rows, columns, B, D) - mean[:, None]) * sharpness
            mask = (rows < B)[:, None] & (columns < end)[None, :]
            tl.store(dz + rows[:, None] * D + columns[None, :], slope, mask=mask)


# --- lowering -----------------------------------------------------------------------------------------


def _shared_arguments(op: Operation, B: int, D: int) -> dict[str, Any]:
    shape = {"B": B, "D": D, "G": len(op["ends"]), "BM": 16, "BN": 32}
    return {"ends": op["ends"], "sharpness": 1 / op["temperature"], "ACTIVATION": op["activation"], **shape}


@lowers("gumbel_softmax_forward")
def lower_forward(op: Operation, target: Target) -> list[Job]:
    B, D = op["z"].shape
    arguments = {"z": op["z"], "u": op["u"], "y": op["y"], "NOISE": op["u"] is not None}
    arguments |= _shared_arguments(op, B, D)
    return [job(op, forward, blocks(B, 16) * len(op["ends"]), arguments, 20 * B * D)]


@lowers("gumbel_softmax_backward")
def lower_backward(op: Operation, target: Target) -> list[Job]:
    B, D = op["y"].shape
    arguments = {"dy": op["dy"], "y": op["y"], "dz": op["dz"], **_shared_arguments(op, B, D)}
    return [job(op, backward, blocks(B, 16) * len(op["ends"]), arguments, 6 * B * D)]

"""categorical_loss: cross entropy of blocks of columns. :mod:`minigen.reference.categorical_loss` derives it."""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl

from minigen.cuda.kernels.elementary import exp_negative, log
from minigen.cuda.kernels.matmul import load
from minigen.cuda.kernels.vae_loss import finish_rows_job
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import Target, blocks, job, lowers
from minigen.step.record import Operation


@triton.jit
def cross_entropy(rows, begin, end, output, x, doutput, B, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """The loss [BM] of ``rows`` in the block of columns from ``begin`` to ``end``, and their part of ``doutput[B,D]``.

    The columns are walked three times, BN at a time: for the largest logit, for the sums, for the gradient. A program
    keeps no more than a tile, however wide the block is.
    """
    largest = tl.full([BM], float("-inf"), tl.float32)
    for c in range(begin, end, BN):
        columns = c + tl.arange(0, BN)
        logits = tl.where((columns < end)[None, :], load(output, rows, columns, B, D), float("-inf"))
        largest = tl.maximum(largest, tl.max(logits, axis=1))
    sums = tl.zeros([BM], tl.float32)
    total = tl.zeros([BM], tl.float32)
    chosen = tl.zeros([BM], tl.float32)
    for c in range(begin, end, BN):
        columns = c + tl.arange(0, BN)
        inside = (columns < end)[None, :]
        below = tl.where(inside, load(output, rows, columns, B, D) - largest[:, None], 0.0)
        labels = tl.where(inside, load(x, rows, columns, B, D), 0.0)
        sums += tl.sum(tl.where(inside, exp_negative(below), 0.0), axis=1)
        total += tl.sum(labels, axis=1)
        chosen += tl.sum(labels * below, axis=1)
    share = (total / sums)[:, None]
    for c in range(begin, end, BN):
        columns = c + tl.arange(0, BN)
        e = exp_negative(load(output, rows, columns, B, D) - largest[:, None])
        slope = (e * share - load(x, rows, columns, B, D)) / B.to(tl.float32)
        mask = (rows < B)[:, None] & (columns < end)[None, :]
        tl.store(doutput + rows[:, None] * D + columns[None, :], slope, mask=mask)
    return total * log(sums) - chosen


@triton.jit
def from_output(
    pid, output, x, ends, doutput, parts, B, D: tl.constexpr, G: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr
):
    """``parts[B,G]``, a block's share of a row's loss, and ``doutput[B,D]``: a program has BM rows of one block."""
    group = pid % G
    rows = ((pid // G) * BM + tl.arange(0, BM)).to(tl.int64)
    begin = 0
    if group > 0:
        begin = tl.load(ends + group - 1)
    end = tl.load(ends + group)
    loss = cross_entropy(rows, begin, end, output, x, doutput, B, D, BM, BN)
    tl.store(parts + rows * G + group, loss, mask=rows < B)


# --- lowering -----------------------------------------------------------------------------------------


@lowers("categorical_loss")
def lower_loss(op: Operation, target: Target) -> list[Job]:
    (B, D), G = op["x"].shape, len(op["ends"])
    parts = target.empty((B, G), np.float32)
    arguments = {name: op[name] for name in ("output", "x", "ends", "doutput")}
    arguments |= {"parts": parts, "B": B, "D": D, "G": G, "BM": 16, "BN": 32}
    first = job(op, from_output, blocks(B, 16) * G, arguments, 10 * B * D, writes=(op["doutput"], parts))
    return [first, finish_rows_job(op, parts, op["rows"], 0.0)]

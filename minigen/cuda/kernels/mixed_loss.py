"""mixed_loss: Gaussian columns and blocks of labels. :mod:`minigen.reference.mixed_loss` derives it."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton
import triton.language as tl

from minigen.cuda.kernels.categorical_loss import cross_entropy
from minigen.cuda.kernels.elementary import exp
from minigen.cuda.kernels.gaussian_loss import LOG_2PI, add_up, bounded, kept_inside
from minigen.cuda.kernels.vae_loss import finish_rows_job
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import BLOCK, Target, blocks, job, lowers
from minigen.step.record import Operation


@triton.jit
def from_output(
    pid, output, x, ends, logvar, doutput, parts, B,
    D: tl.constexpr, G: tl.constexpr, SHARED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """``parts[B,G]``, a block's share of the rows' loss, and ``doutput[B,D]``: each program has BM rows of one block.

    A block of one column is a number, a wider one has labels.
    """
    group = pid % G
    rows = ((pid // G) * BM + tl.arange(0, BM)).to(tl.int64)
    begin = 0
    if group > 0:
        begin = tl.load(ends + group - 1)
    end = tl.load(ends + group)
    if end - begin == 1:
        at = rows * D + begin
        log_variance = bounded(tl.load(logvar + begin * (0 if SHARED else 1)))
        precision = exp(-log_variance)
        error = tl.load(output + at, mask=rows < B, other=0.0) - tl.load(x + at, mask=rows < B, other=0.0)
        tl.store(doutput + at, error * precision / B.to(tl.float32), mask=rows < B)
        loss = 0.5 * (error * error * precision + (log_variance + LOG_2PI))
    else:
        loss = cross_entropy(rows, begin, end, output, x, doutput, B, D, BM, BN)
    tl.store(parts + rows * G + group, loss, mask=rows < B)


@triton.jit
def block_gradients(
    pid, doutput, output, x, ends, logvar, gradients, B,
    D: tl.constexpr, SHARED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """``gradients[D]`` of the log variances, one program a block; those that are SHARED are added up, and kept inside,
    afterwards."""
    begin = 0
    if pid > 0:
        begin = tl.load(ends + pid - 1)
    end = tl.load(ends + pid)
    if end - begin == 1:
        sums = tl.zeros([BM], tl.float32)
        for r in range(0, B, BM):
            rows = (r + tl.arange(0, BM)).to(tl.int64)
            at = rows * D + begin
            error = tl.load(output + at, mask=rows < B, other=0.0) - tl.load(x + at, mask=rows < B, other=0.0)
            sums += tl.load(doutput + at, mask=rows < B, other=0.0) * error
        one = begin + tl.arange(0, 1)
        gradient = 0.5 * (1.0 - tl.sum(sums, axis=0)) + one * 0.0
        if not SHARED:
            gradient = kept_inside(gradient, tl.load(logvar + one))
        tl.store(gradients + one, gradient)
    else:
        for c in range(begin, end, BN):
            columns = c + tl.arange(0, BN)
            tl.store(gradients + columns, tl.zeros([BN], tl.float32), mask=columns < end)


# --- lowering -----------------------------------------------------------------------------------------


@lowers("mixed_loss")
def lower_loss(op: Operation, target: Target) -> list[Job]:
    (B, D), G = op["x"].shape, len(op["ends"])
    parts = target.empty((B, G), np.float32)
    arguments: dict[str, Any] = {name: op[name] for name in ("output", "x", "ends", "logvar", "doutput")}
    arguments |= {"parts": parts, "B": B, "D": D, "G": G, "SHARED": len(op["logvar"]) != D, "BM": 16, "BN": 32}
    first = job(op, from_output, blocks(B, 16) * G, arguments, 10 * B * D, writes=(op["doutput"], parts))
    return [first, finish_rows_job(op, parts, op["rows"], 0.0)]


@lowers("mixed_logvar_gradient")
def lower_gradient(op: Operation, target: Target) -> list[Job]:
    (B, D), shared = op["x"].shape, len(op["logvar"]) != len(op["x"][0])
    gradients = target.empty((D,), np.float32) if shared else op["dlogvar"]
    arguments: dict[str, Any] = {name: op[name] for name in ("doutput", "output", "x", "ends", "logvar")}
    arguments |= {"gradients": gradients, "B": B, "D": D, "SHARED": shared, "BM": 128, "BN": 32}
    jobs = [job(op, block_gradients, len(op["ends"]), arguments, 4 * B * D, writes=(gradients,))]
    if shared:
        together = {"gradients": gradients, "logvar": op["logvar"], "dlogvar": op["dlogvar"], "D": D, "BLOCK": BLOCK}
        jobs.append(job(op, add_up, 1, together, D, reads=(gradients, op["logvar"]), fuses=()))
    return jobs

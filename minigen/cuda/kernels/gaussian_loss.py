"""gaussian_loss: a Gaussian reconstruction term with learned variances. :mod:`minigen.reference.gaussian_loss` derives
it, and the gradient of the log variances."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton
import triton.language as tl

from minigen.cuda.kernels.elementary import exp
from minigen.cuda.kernels.matmul import load, store
from minigen.cuda.kernels.vae_loss import finish_rows_job
from minigen.cuda.plan import tiles
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import BLOCK, Target, blocks, job, lowers
from minigen.step.record import Operation

LOGVAR_LOW: tl.constexpr = tl.constexpr(-14.0)
LOGVAR_HIGH: tl.constexpr = tl.constexpr(80.0)
LOG_2PI: tl.constexpr = tl.constexpr(1.8378770664093453)


@triton.jit
def bounded(logvar):
    """NaN stays NaN."""
    above = tl.where(logvar < LOGVAR_LOW, LOGVAR_LOW, logvar)
    return tl.where(above > LOGVAR_HIGH, LOGVAR_HIGH, above)


@triton.jit
def kept_inside(gradient, logvar):
    """0 where logvar has left its bounds and the gradient would carry it further out."""
    outwards = ((logvar < LOGVAR_LOW) & (gradient > 0.0)) | ((logvar > LOGVAR_HIGH) & (gradient < 0.0))
    return tl.where(outwards, 0.0, gradient)


@triton.jit
def from_output(
    pid, output, x, logvar, doutput, parts, B,
    D: tl.constexpr, SHARED: tl.constexpr, PARTS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """``parts[B,PARTS]``, shares of the rows' loss, and ``doutput[B,D]``, PARTS tiles of BN columns wide."""
    rows = ((pid // PARTS) * BM + tl.arange(0, BM)).to(tl.int64)
    columns = (pid % PARTS) * BN + tl.arange(0, BN)
    of_column = bounded(tl.load(logvar + columns * (0 if SHARED else 1), mask=columns < D, other=0.0))[None, :]
    precision = exp(-of_column)
    error = load(output, rows, columns, B, D) - load(x, rows, columns, B, D)
    store(doutput, rows, columns, B, D, error * precision / B.to(tl.float32))
    loss = tl.where((columns < D)[None, :], error * error * precision + (of_column + LOG_2PI), 0.0)
    tl.store(parts + rows * PARTS + pid % PARTS, tl.sum(loss, axis=1) * 0.5, mask=rows < B)


@triton.jit
def column_gradients(
    pid, doutput, output, x, logvar, gradients, B,
    D: tl.constexpr, SHARED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """``gradients[D]`` of the log variances; those that are SHARED are added up, and kept inside, afterwards."""
    columns = pid * BN + tl.arange(0, BN)
    sums = tl.zeros([BN], tl.float32)
    for r in range(0, B, BM):
        rows = (r + tl.arange(0, BM)).to(tl.int64)
        error = load(output, rows, columns, B, D) - load(x, rows, columns, B, D)
        sums += tl.sum(load(doutput, rows, columns, B, D) * error, axis=0)
    gradient = 0.5 * (1.0 - sums)
    if not SHARED:
        gradient = kept_inside(gradient, tl.load(logvar + columns, mask=columns < D, other=0.0))
    tl.store(gradients + columns, gradient, mask=columns < D)


@triton.jit
def add_up(pid, gradients, logvar, dlogvar, D: tl.constexpr, BLOCK: tl.constexpr):
    """The gradient of the one log variance of all columns. One program, which adds up in order."""
    total = tl.zeros([BLOCK], tl.float32)
    for d in range(0, D, BLOCK):
        columns = pid + d + tl.arange(0, BLOCK)
        total += tl.load(gradients + columns, mask=columns < D, other=0.0)
    one = tl.arange(0, 1)
    tl.store(dlogvar + one, kept_inside(tl.sum(total, axis=0) + one * 0.0, tl.load(logvar + one)))


# --- lowering -----------------------------------------------------------------------------------------


@lowers("gaussian_loss")
def lower_loss(op: Operation, target: Target) -> list[Job]:
    B, D = op["x"].shape
    BN = min(128, max(16, tiles.power_of_two(D)))
    parts = target.empty((B, blocks(D, BN)), np.float32)
    arguments: dict[str, Any] = {name: op[name] for name in ("output", "x", "logvar", "doutput")}
    arguments |= {"parts": parts, "B": B, "D": D, "SHARED": len(op["logvar"]) != D, "PARTS": parts.shape[1]}
    programs = blocks(B, 16) * parts.shape[1]
    tile = {"BM": 16, "BN": BN}
    first = job(op, from_output, programs, arguments | tile, 10 * B * D, writes=(op["doutput"], parts))
    return [first, finish_rows_job(op, parts, op["rows"], 0.0)]


@lowers("gaussian_logvar_gradient")
def lower_gradient(op: Operation, target: Target) -> list[Job]:
    (B, D), shared = op["x"].shape, len(op["logvar"]) != len(op["x"][0])
    gradients = target.empty((D,), np.float32) if shared else op["dlogvar"]
    arguments: dict[str, Any] = {name: op[name] for name in ("doutput", "output", "x", "logvar")}
    arguments |= {"gradients": gradients, "B": B, "D": D, "SHARED": shared, "BM": 32, "BN": 32}
    jobs = [job(op, column_gradients, blocks(D, 32), arguments, 4 * B * D, writes=(gradients,))]
    if shared:
        together = {"gradients": gradients, "logvar": op["logvar"], "dlogvar": op["dlogvar"], "D": D, "BLOCK": BLOCK}
        jobs.append(job(op, add_up, 1, together, D, reads=(gradients, op["logvar"]), fuses=()))
    return jobs

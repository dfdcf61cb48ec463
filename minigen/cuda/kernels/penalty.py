"""penalty: of the gradient of the logit by the discriminator's input. :mod:`minigen.reference.penalty` derives it."""

from __future__ import annotations

import triton
import triton.language as tl

from minigen.cuda.kernels.matmul import load, store
from minigen.cuda.kernels.vae_loss import finish_rows_job
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import BLOCK, Target, blocks, job, lowers
from minigen.cuda.plan.tiles import power_of_two
from minigen.step.record import Operation


@triton.jit
def penalty(pid, g, v, parts, weight, B, D: tl.constexpr, KIND: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """``parts[B]``, each row's penalty, and ``v[B,D]``, the gradient of their mean by ``g[B,D]``."""
    rows = (pid * BM + tl.arange(0, BM)).to(tl.int64)
    sums = tl.zeros([BM, BN], tl.float32)
    for c in range(0, D, BN):
        tile = load(g, rows, c + tl.arange(0, BN), B, D)
        sums += tile * tile
    squares = tl.sum(sums, axis=1)
    if KIND == "r1":
        loss = 0.5 * weight * squares
        slope = weight + 0.0 * squares
    else:
        tl.static_assert(KIND == "two_sided")
        norm = tl.sqrt_rn(squares)
        loss = weight * (norm - 1.0) * (norm - 1.0)
        slope = 2.0 * weight * (norm - 1.0) / tl.where(norm == 0.0, 1.0, norm)  # times g, which is 0 where norm is
    tl.store(parts + rows, loss, mask=rows < B)
    slope = slope / B.to(tl.float32)
    for c in range(0, D, BN):
        columns = c + tl.arange(0, BN)
        store(v, rows, columns, B, D, slope[:, None] * load(g, rows, columns, B, D))


@triton.jit
def interpolate(pid, real, fake, u, out, n, D: tl.constexpr, BLOCK: tl.constexpr):
    """``out[n] = u real + (1 - u) fake``, rows of D with one ``u`` each."""
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    share = tl.load(u + i // D, mask=i < n, other=0.0)
    a = tl.load(real + i, mask=i < n, other=0.0)
    b = tl.load(fake + i, mask=i < n, other=0.0)
    tl.store(out + i, share * a + (1.0 - share) * b, mask=i < n)


# --- lowering -----------------------------------------------------------------------------------------


@lowers("gradient_penalty")
def lower_penalty(op: Operation, target: Target) -> list[Job]:
    B, D = op["g"].shape
    BN = min(256, max(16, power_of_two(D)))
    BM = max(1, BLOCK // BN)
    arguments = {
        "g": op["g"],
        "v": op["v"],
        "parts": op["rows"],
        "weight": op["weight"],
        "B": B,
        "D": D,
        "KIND": op["kind"],
        "BM": BM,
        "BN": BN,
    }
    first = job(op, penalty, blocks(B, BM), arguments, 4 * B * D, writes=(op["v"], op["rows"]))
    return [first, finish_rows_job(op, op["rows"].reshape(B, 1), None, 0.0)]


@lowers("interpolate")
def lower_interpolate(op: Operation, target: Target) -> list[Job]:
    n = op["out"].size
    arguments = {**op.buffers, "n": n, "D": op["out"].shape[1], "BLOCK": BLOCK}
    return [job(op, interpolate, blocks(n, BLOCK), arguments, 3 * n)]

"""average: the average of parameters over the steps. :mod:`minigen.reference.averaging` gives the formula."""

from __future__ import annotations

import triton
import triton.language as tl

from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import BLOCK, Target, blocks, job, lowers
from minigen.step.record import Operation


@triton.jit
def average(pid, average, p, step, n, weight, STEPS_AHEAD: tl.constexpr, BLOCK: tl.constexpr):
    """``average[n] += w (p[n] - average[n])``; ``weight`` is the least that ``w`` can be."""
    early = 10.0 / ((tl.load(step) - STEPS_AHEAD).to(tl.float32) + 10.0)
    share = tl.where(early > weight, early, weight)
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    before = tl.load(average + i, mask=i < n, other=0.0)
    after = before + share * (tl.load(p + i, mask=i < n, other=0.0) - before)
    tl.store(average + i, after, mask=i < n)


@lowers("average")
def lower_average(op: Operation, target: Target) -> list[Job]:
    n = op["p"].size
    arguments = {
        "average": op["average"],
        "p": op["p"],
        "step": op["step"],
        "n": n,
        "weight": 1 - op["decay"],
        "STEPS_AHEAD": op["steps_ahead"],
        "BLOCK": BLOCK,
    }
    return [job(op, average, blocks(n, BLOCK), arguments, 3 * n)]

"""clip_norm: a network's gradient shortened to a norm. :mod:`minigen.reference.clipping` gives the formula.

Each program takes the norm of its block, and the norms of these norms are taken in the same way until one is left; then
each program scales its block. The order of the sums is the same every time. A block's sum of squares is taken in units
of its largest element, so that no square overflows.
"""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl

from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import BLOCK, Target, blocks, job, lowers
from minigen.step.record import Operation


@triton.jit
def block_norms(pid, x, norms, n, BLOCK: tl.constexpr):
    """``norms[pid]``, of the program's elements of ``x[n]``."""
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(x + i, mask=i < n, other=0.0)
    largest = tl.max(tl.abs(values), axis=0)
    unit = tl.where(largest > 0.0, largest, 1.0)
    parts = values / unit
    tl.store(norms + pid, unit * tl.sqrt_rn(tl.sum(parts * parts, axis=0)))


@triton.jit
def scale_to(pid, g, norm, n, most, BLOCK: tl.constexpr):
    """``g[n]`` times ``most / norm[0]`` where the norm is larger."""
    length = tl.load(norm)
    factor = tl.where(length > most, most / length, 1.0)
    i = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(g + i, factor * tl.load(g + i, mask=i < n, other=0.0), mask=i < n)


@lowers("clip_norm")
def lower_clip_norm(op: Operation, target: Target) -> list[Job]:
    g, norm = op["g"], op["norm"]
    jobs, x = [], g
    while x is not norm:
        count = max(1, blocks(x.size, BLOCK))
        norms = norm if count == 1 else target.empty((count,), np.float32)
        arguments = {"x": x, "norms": norms, "n": x.size, "BLOCK": BLOCK}
        jobs.append(job(op, block_norms, count, arguments, 3 * x.size, reads=(x,), writes=(norms,)))
        x = norms
    scaling = {"g": g, "norm": norm, "n": g.size, "most": op["most"], "BLOCK": BLOCK}
    return [*jobs, job(op, scale_to, blocks(g.size, BLOCK), scaling, g.size, reads=(g, norm), writes=(g,))]

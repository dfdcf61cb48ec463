"""scheduled_rate: the learning rate of a step. :mod:`minigen.reference.schedule` gives the formulas."""

from __future__ import annotations

import triton
import triton.language as tl

from minigen.cuda.kernels.elementary import sine_cosine_of_turn
from minigen.cuda.plan.launch import Job
from minigen.cuda.plan.lowering import Target, job, lowers
from minigen.step.record import Operation


@triton.jit
def scheduled_rate(pid, lr, base, step, warmup, horizon, SCHEDULE: tl.constexpr, STEPS_AHEAD: tl.constexpr):
    """``lr[1]`` from ``base[1]``."""
    done = (tl.load(step) - STEPS_AHEAD).to(tl.int64)
    t = tl.where(done < horizon, done, horizon - 1)
    end = t * 0 + horizon  # a tensor, also where Triton takes the argument for a constant
    rate = tl.load(base)
    left = (end - t).to(tl.float32) / (end - warmup).to(tl.float32)
    if SCHEDULE == "linear":
        scheduled = rate * left
    elif SCHEDULE == "cosine":
        sine, _ = sine_cosine_of_turn(0.25 * left)
        scheduled = rate * (sine * sine)
    elif SCHEDULE == "step":
        scheduled = tl.where(10 * t >= 9 * end, rate * 0.1, rate)
    else:
        scheduled = rate
    rising = (t + 1).to(tl.float32) / (t * 0 + warmup).to(tl.float32)
    tl.store(lr, tl.where(t < warmup, rate * rising, scheduled))


@lowers("scheduled_rate")
def lower_scheduled_rate(op: Operation, target: Target) -> list[Job]:
    arguments = {
        **{name: op[name] for name in ("lr", "base", "step", "warmup", "horizon")},
        "SCHEDULE": op["schedule"],
        "STEPS_AHEAD": op["steps_ahead"],
    }
    return [job(op, scheduled_rate, 1, arguments)]

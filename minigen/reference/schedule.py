"""scheduled_rate: the learning rate of a step, as a part of the base rate.

With t steps done before, of T in all, the first W of them a warm-up::

    warm-up, t < W:  lr = base (t + 1) / W                      Goyal et al. 2017, section 2.2
    afterwards, with what is left of the rest, r = (T - t) / (T - W) from 1 down to 1 / (T - W):
    constant:        lr = base
    linear:          lr = base r
    cosine:          lr = base (1 + cos(pi (1 - r))) / 2        Loshchilov and Hutter 2017, equation 5, down to 0
    step:            lr = base, and base / 10 in the last tenth of the steps, 10 t >= 9 T

Past the end the rate stays what it was in step T - 1. The cosine is computed as ``sin(pi r / 2)^2``, which is the same
and keeps its digits near the end: ``1 + cos(pi - a) = 1 - cos a = 2 sin(a / 2)^2``.
"""

from __future__ import annotations

import math

from minigen import checks

SCHEDULES = ("constant", "cosine", "step", "linear")


def rate(base: float, t: int, schedule: str, warmup: int, horizon: int) -> float:
    """The rate of the step before which ``t`` were done; the first ``warmup`` of ``horizon`` steps are the warm-up.

    Raises ValueError for an unknown ``schedule``.
    """
    checks.choice("schedule", schedule, SCHEDULES)
    t = min(t, horizon - 1)
    if t < warmup:
        return base * (t + 1) / warmup
    left = (horizon - t) / (horizon - warmup)
    if schedule == "linear":
        return base * left
    if schedule == "cosine":
        return base * math.sin(math.pi / 2 * left) ** 2
    late = schedule == "step" and 10 * t >= 9 * horizon
    return base / 10 if late else base

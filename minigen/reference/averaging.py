"""average: the average of a network's parameters over the steps of a training, ``average[n]`` from ``p[n]``.

An exponential average forgets its first value slowly: with decay 0.999 a third of it is left after a thousand steps.
So the first steps take the polynomial-decay average of Shamir and Zhang 2013 (section 4), which begins with the first
parameters and gives the last ones more weight, the more so the larger eta is. After update number k = 1, 2, ...::

    average_k = (1 - (eta + 1) / (k + eta)) average_(k-1) + (eta + 1) / (k + eta) p_k,   average_1 = p_1

With eta = 9 and t = k - 1 updates done before, the weight of the new parameters is 10 / (10 + t), 1 at t = 0. The
exponential average takes over where that would be less than its own::

    w       = max(1 - decay, 10 / (10 + t))
    average = average + w (p - average)
"""

from __future__ import annotations

import numpy as np

from .underflow import small_is_zero

ETA = 9


def weight(t: int, decay: float) -> float:
    """Of the new parameters, after ``t`` updates of the average."""
    return max(1 - decay, (ETA + 1) / (t + 1 + ETA))


@small_is_zero
def average(average: np.ndarray, p: np.ndarray, t: int, decay: float) -> np.ndarray:
    """The new ``average[n]``, after ``t`` updates before this one."""
    return average + average.dtype.type(weight(t, decay)) * (p - average)

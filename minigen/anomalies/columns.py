"""Columns of a table as a detector's models see them.

``"standard"``: with the column's mean and standard deviation::

    x -> 2 asinh(z / 2),    z = (x - mean) / std

which is nearly z up to two deviations and grows like its logarithm beyond. In a column that is nearly always the same,
such as a pixel at a picture's edge, a rare other value has a z of 50. Such numbers let a training diverge, and dominate
all other columns in a score.

``"quantile"``: each column by its ranks among the training rows, as a standard normal has them::

    x -> Phi^-1(F(x)),    F the distribution function of the column, linear between at most 1,000 quantiles

so that skewed columns and those with a few huge values are as easy as others. Beyond the least and the greatest
training value it goes on as ``end + log(1 + |x - end| / spread)``: ranks alone would take the most unusual values for
ordinary ones, and a straight line would let a pixel that was never lit outvote everything else.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

KNOTS = 1000


class Standard:
    """``moments[2, D]``: mean of the training rows, and what their distance from it is divided by, float64."""

    name = "standard"

    def __init__(self, moments: np.ndarray) -> None:
        self.moments = moments

    @classmethod
    def of(cls, rows: np.ndarray) -> Standard:
        """Those of ``rows[N, D]``; a constant column has its own size, at least 1, for a deviation."""
        exact = rows.astype(np.float64)
        mean, constant = exact.mean(axis=0), (rows == rows[:1]).all(axis=0)
        return cls(np.stack([mean, np.where(constant, np.maximum(np.abs(mean), 1), exact.std(axis=0))]))

    @classmethod
    def restored(cls, moments: np.ndarray) -> Standard:
        """From a file. Raises ValueError for what cannot be."""
        if len(moments) != 2 or (moments[1] <= 0).any():
            raise ValueError("standard must be means and, above 0, deviations")
        return cls(moments)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """``rows[n, D]`` as float32."""
        return (2 * np.arcsinh((rows - self.moments[0]) / self.moments[1] / 2)).astype(np.float32)

    @property
    def tensor(self) -> np.ndarray:
        return self.moments


class Quantiles:
    """``knots[Q, D]``: quantiles of the training rows at ``(q + 1/2) / Q``, float64."""

    name = "quantile"

    def __init__(self, knots: np.ndarray) -> None:
        self.knots = knots
        normal = NormalDist()
        self.scores = np.array([normal.inv_cdf((q + 0.5) / len(knots)) for q in range(len(knots))])

    @classmethod
    def of(cls, rows: np.ndarray) -> Quantiles:
        """Those of ``rows[N, D]``."""
        count = min(KNOTS, len(rows))
        return cls(np.quantile(rows.astype(np.float64), (np.arange(count) + 0.5) / count, axis=0, method="hazen"))

    @classmethod
    def restored(cls, knots: np.ndarray) -> Quantiles:
        """From a file. Raises ValueError for what cannot be."""
        if not len(knots) or (np.diff(knots, axis=0) < 0).any():
            raise ValueError("quantile must be numbers in order")
        return cls(knots)

    @property
    def tensor(self) -> np.ndarray:
        return self.knots

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """``rows[n, D]`` as float32."""
        out = np.empty(rows.shape, np.float32)
        for d, knots in enumerate(self.knots.T):
            out[:, d] = self._column(rows[:, d].astype(np.float64), knots)
        return out

    def _column(self, x: np.ndarray, knots: np.ndarray) -> np.ndarray:
        # Equal values share the middle of their ranks: interpolation from both sides of a tie.
        up = np.interp(x, knots, self.scores)
        down = -np.interp(-x, -knots[::-1], -self.scores[::-1])
        low, high = knots[0], knots[-1]
        spread = knots.std() or max(abs(low), 1.0)
        beyond = np.log1p(np.maximum(x - high, 0) / spread) - np.log1p(np.maximum(low - x, 0) / spread)
        return (up + down) / 2 + beyond


COLUMNS = {kind.name: kind for kind in (Standard, Quantiles)}
"""How columns may be seen, by the name that a user gives."""

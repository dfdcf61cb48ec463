"""Columns of a table as a detector's models see them.

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


class Quantiles:
    """``knots[Q, D]``: quantiles of the training rows at ``(q + 1/2) / Q``, float64."""

    def __init__(self, knots: np.ndarray) -> None:
        self.knots = knots
        normal = NormalDist()
        self.scores = np.array([normal.inv_cdf((q + 0.5) / len(knots)) for q in range(len(knots))])

    @classmethod
    def of(cls, rows: np.ndarray) -> Quantiles:
        """Those of ``rows[N, D]``."""
        count = min(KNOTS, len(rows))
        return cls(np.quantile(rows.astype(np.float64), (np.arange(count) + 0.5) / count, axis=0, method="hazen"))

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

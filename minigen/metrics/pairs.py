"""Distances between the rows of two sets: found by products in float32, a block at a time, and exact in the end.

``|a - b|^2 = |a|^2 - 2 a b + |b|^2`` makes a matrix product of all pairs, which BLAS computes many times faster than it
takes to subtract each pair. In float32 it is wrong by rounding, the more so the nearer ``a`` and ``b`` are. A bound on
that error says which pairs are in doubt; of these, few, the differences are taken in float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

ELEMENTS = 1 << 24  # of a block of pairs: 64 MB
SPARE = 8  # candidates beside the neighbours asked for: enough that doubts are rare


class Pairs:
    """The pairs of ``rows[n, F]`` and ``others[m, F]``, of any real type; NaN and infinities are not looked for."""

    def __init__(self, rows: np.ndarray, others: np.ndarray) -> None:
        self.rows, self.others = rows, others
        self.centre = others.mean(axis=0, dtype=np.float64)  # distances stay, and rounding is less around 0
        self.unit = max(self._reach(rows), self._reach(others)) or 1.0  # so that no square overflows
        self._others = self._scaled(others)
        self._squares = np.einsum("ij,ij->i", self._others, self._others)

    def _reach(self, rows: np.ndarray) -> float:
        low, high = (np.asarray(edge, np.float64) - self.centre for edge in (rows.min(axis=0), rows.max(axis=0)))
        return float(max(np.abs(low).max(), np.abs(high).max()))

    def _scaled(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty(rows.shape, np.float32)
        step = max(1, ELEMENTS // (4 * rows.shape[1]))
        for a in range(0, len(rows), step):
            out[a : a + step] = (rows[a : a + step] - self.centre) / self.unit
        return out

    def blocks(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """The number of a block's first row, its squared distances ``float32[b, m]`` over ``unit^2``, and a bound on
        their errors, ``float64[b, 1]``.

        With u = 2^-24 a product of F terms errs by at most about F u |a| |b| (Higham 2002, section 3.1), each square by
        F u |a|^2, and the rounding of the rows to float32 by some u (|a| + |b|)^2.
        """
        step = max(1, ELEMENTS // len(self.others))
        largest = np.sqrt(self._squares.max())
        for start in range(0, len(self.rows), step):
            part = self._scaled(self.rows[start : start + step])
            squares = np.einsum("ij,ij->i", part, part)[:, None]
            found = part @ self._others.T
            found *= -2
            found += self._squares
            found += squares
            yield start, found, (part.shape[1] + 8) * 2.0**-24 * (np.sqrt(squares) + largest).astype(np.float64) ** 2

    def exact(self, i: np.ndarray | np.int64, j: np.ndarray) -> np.ndarray:
        """Squared distances in float64 of rows ``i`` and others ``j``, numbers that broadcast to one shape."""
        of_rows, of_others = np.broadcast_arrays(i, j)
        shape, i, j = of_rows.shape, of_rows.ravel(), of_others.ravel()
        out = np.empty(len(i))
        step = max(1, ELEMENTS // (4 * self.rows.shape[1]))
        for a in range(0, len(i), step):
            difference = self.rows[i[a : a + step]].astype(np.float64) - self.others[j[a : a + step]]
            out[a : a + step] = (difference * difference).sum(axis=1)
        return out.reshape(shape)


def nearest(
    rows: np.ndarray, others: np.ndarray, k: int = 1, *, but_itself: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances to the ``k`` nearest of ``others[m, F]``, rising, and their numbers, ``[n, k]`` each.

    Of equally near ones the first come first. ``but_itself``: row ``i`` is no neighbour of others' row ``i``.
    """
    pairs, most = Pairs(rows, others), len(others) - but_itself
    squares, numbers = np.empty((len(rows), k)), np.empty((len(rows), k), np.int64)
    for start, found, error in pairs.blocks():
        own = np.arange(start, start + len(found))
        if but_itself:
            found[np.arange(len(found)), own] = np.inf
        few = min(k + SPARE, most)
        candidates = np.sort(np.argpartition(found, few - 1, axis=1)[:, :few], axis=1)
        squares[own], numbers[own] = _nearest_of(candidates, pairs.exact(own[:, None], candidates), k)
        beyond = np.take_along_axis(found, candidates, 1).max(axis=1)  # what is no candidate is at least so far
        limit = squares[own, -1] / pairs.unit**2 + error[:, 0]
        for row in np.flatnonzero((beyond < limit) & (few < most)):
            near = np.flatnonzero(found[row] <= limit[row])[None]
            squares[start + row], numbers[start + row] = _nearest_of(near, pairs.exact(own[row], near), k)
    return squares, numbers


def _nearest_of(candidates: np.ndarray, squares: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(squares, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(squares, order, 1), np.take_along_axis(candidates, order, 1)


def in_balls(points: np.ndarray, centres: np.ndarray, squared_radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In how many balls around ``centres[m, F]`` each of ``points[n, F]`` lies, edges included, and whether each ball
    holds any."""
    pairs = Pairs(points, centres)
    counts, covered = np.zeros(len(points), np.int64), np.zeros(len(centres), bool)
    edge = squared_radii / pairs.unit**2
    for start, found, error in pairs.blocks():
        inside = found <= (edge - error).astype(np.float32)
        rows, balls = np.nonzero((found <= (edge + error).astype(np.float32)) & ~inside)
        inside[rows, balls] = pairs.exact(start + rows, balls) <= squared_radii[balls]
        counts[start : start + len(found)] = inside.sum(axis=1)
        covered |= inside.any(axis=0)
    return counts, covered

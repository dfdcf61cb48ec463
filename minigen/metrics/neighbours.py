"""Metrics of nearest neighbours: is a sample where real rows are, are samples wherever real rows are, are they copies?

Distances are Euclidean, computed by scikit-learn block by block, so that memory stays bounded.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from minigen import checks
from minigen.errors import ArgumentError
from minigen.metrics.features import Features, rows_of

INSTALL = "scikit-learn is needed for this metric: pip install scikit-learn"


class PrecisionRecall(NamedTuple):
    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    density: float
    coverage: float


class Memorisation(NamedTuple):
    """``share`` of pairs of a sample and a held-out row in which the sample is the nearer to the training data: 0.5
    where the model copies no more than new data do. ``z``: how many standard errors that is above 0.5."""

    share: float
    z: float


def precision_recall(samples: Any, real: Any, features: Features | None = None, *, k: int = 3) -> PrecisionRecall:
    """Of the samples, the share within the real rows' manifold; of the real rows, the share within the samples'.

    Kynkaanniemi et al. 2019, equation 1: the manifold of a set is the union of balls around its rows, each reaching to
    the ``k``-th nearest other row of the set. Low precision are samples that are not real-looking, low recall is what
    the model leaves out. Compare figures of equal numbers of rows only.
    """
    a, b = _two_sets(samples, real, features, k)
    inside_real, _ = _in_balls(a, b, radii(b, k))
    inside_samples, _ = _in_balls(b, a, radii(a, k))
    return PrecisionRecall(float((inside_real > 0).mean()), float((inside_samples > 0).mean()))


def density_coverage(samples: Any, real: Any, features: Features | None = None, *, k: int = 5) -> DensityCoverage:
    """How densely the real rows' balls are filled with samples, and the share of them that hold any.

    Naeem et al. 2020, equations 3 and 4: a ball of each real row reaches to its ``k``-th nearest other one. Density
    is the mean number of balls that a sample lies in over ``k``, 1 where both sets are of one distribution, and may be
    above; an outlier among the real rows spoils it less than it does precision.
    """
    a, b = _two_sets(samples, real, features, k)
    balls, covered = _in_balls(a, b, radii(b, k))
    return DensityCoverage(float(balls.mean() / k), float(covered.mean()))


def memorisation(samples: Any, train: Any, held_out: Any, features: Features | None = None) -> Memorisation:
    """Whether ``samples`` lie nearer to the training rows than ``held_out`` ones do: Meehan et al. 2020, section 3.

    Mann and Whitney's test of the distances to the nearest training row.
    """
    a, reference = rows_of(samples, train, features)
    b, _ = rows_of(held_out, train, features)
    near, far = nearest(a, reference)[0], nearest(b, reference)[0]
    n, m = len(near), len(far)
    below, upto = (np.searchsorted(np.sort(near), far, side) for side in ("left", "right"))
    share = float((below + upto).mean() / (2 * n))  # of equal distances, half
    return Memorisation(share, (share - 0.5) / math.sqrt((n + m + 1) / (12 * n * m)))


def nearest(rows: np.ndarray, reference: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the ``k``-th nearest row of ``reference[m, F]`` and its number, for each of ``rows[n, F]``."""
    distances, numbers = _search(reference, k).kneighbors(rows)
    return distances[:, -1], numbers[:, -1]


def radii(rows: np.ndarray, k: int) -> np.ndarray:
    """The distance of each row to its ``k``-th nearest other one."""
    return np.asarray(_search(rows, k).kneighbors()[0][:, -1])


def _search(rows: np.ndarray, k: int) -> Any:
    try:
        from sklearn.neighbors import NearestNeighbors
    except ImportError as error:
        raise ImportError(INSTALL) from error
    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(rows)


def _in_balls(points: np.ndarray, centres: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In how many balls each of ``points`` lies, and whether each ball holds any."""
    from sklearn.metrics import pairwise_distances_chunked

    covered = np.zeros(len(centres), bool)

    def count(distances: np.ndarray, start: int) -> np.ndarray:
        inside = distances <= radius
        np.logical_or(covered, inside.any(axis=0), out=covered)
        return np.asarray(inside.sum(axis=1))

    counts = np.concatenate(list(pairwise_distances_chunked(points, centres, reduce_func=count)))
    return counts, covered


def _two_sets(samples: Any, real: Any, features: Features | None, k: int) -> tuple[np.ndarray, np.ndarray]:
    checks.integer("k", k, 1)
    a, b = rows_of(samples, real, features)
    if min(len(a), len(b)) <= k:
        raise ArgumentError("k", f"must be below the {min(len(a), len(b))} rows of the smaller set, not {k}")
    return a, b

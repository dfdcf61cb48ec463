"""Metrics of nearest neighbours: is a sample where real rows are, are samples wherever real rows are, are they copies?

Distances are Euclidean, and exact; memory stays bounded (:mod:`.pairs`).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from minigen import checks
from minigen.datasets.load import as_rows
from minigen.errors import ArgumentError
from minigen.metrics.features import Features, rows_of
from minigen.metrics.pairs import in_balls, nearest

COPY = 1 / 3  # of the distance to the second nearest row: what is nearer to the first than that is a copy of it


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
    inside_real, _ = in_balls(a, b, squared_radii(b, k))
    inside_samples, _ = in_balls(b, a, squared_radii(a, k))
    return PrecisionRecall(float((inside_real > 0).mean()), float((inside_samples > 0).mean()))


def density_coverage(samples: Any, real: Any, features: Features | None = None, *, k: int = 5) -> DensityCoverage:
    """How densely the real rows' balls are filled with samples, and the share of them that hold any.

    Naeem et al. 2020, equations 3 and 4: a ball of each real row reaches to its ``k``-th nearest other one. Density
    is the mean number of balls that a sample lies in over ``k``, 1 where both sets are of one distribution, and may be
    above; an outlier among the real rows spoils it less than it does precision.
    """
    a, b = _two_sets(samples, real, features, k)
    balls, covered = in_balls(a, b, squared_radii(b, k))
    return DensityCoverage(float(balls.mean() / k), float(covered.mean()))


def memorisation(samples: Any, train: Any, held_out: Any, features: Features | None = None) -> Memorisation:
    """Whether ``samples`` lie nearer to the training rows than ``held_out`` ones do: Meehan et al. 2020, section 3.

    Mann and Whitney's test of the distances to the nearest training row.
    """
    a, reference = rows_of(samples, train, features)
    b, _ = rows_of(held_out, train, features)
    return nearer(*(nearest(rows, reference)[0][:, 0] for rows in (a, b)))


def nearer(near: np.ndarray, far: np.ndarray) -> Memorisation:
    """:func:`memorisation` from the distances, or their squares, of samples and of held-out rows."""
    n, m = len(near), len(far)
    below, upto = (np.searchsorted(np.sort(near), far, side) for side in ("left", "right"))
    share = float((below + upto).mean() / (2 * n))  # of equal distances, half
    return Memorisation(share, (share - 0.5) / math.sqrt((n + m + 1) / (12 * n * m)))


def copied(samples: Any, train: Any, features: Features | None = None) -> float:
    """The share of ``samples`` that are copies: nearer to a training row than a third of the way to the next one.

    Yoon et al. 2023, section 3. New rows of the distribution are about as far from the second nearest as from the
    nearest; a smooth mean of rows is, too, although it may lie nearer to all of them than new rows do.
    """
    a, reference = rows_of(samples, train, features)
    return share_copied(nearest(a, reference, 2)[0])


def share_copied(squares: np.ndarray) -> float:
    """:func:`copied` from the squared distances to the two nearest training rows, ``[n, 2]``."""
    return float((squares[:, 0] < COPY**2 * squares[:, 1]).mean())


def class_coverage(samples: Any, real: Any, classifier: Any) -> float:
    """How far ``samples`` are of the same classes as ``real`` rows, as often: 1 where each class has the same share of
    both, 0 where they have none in common.

    The sum over all classes of the smaller share, which is 1 less the total variation distance. ``classifier`` has a
    method ``classes(items)``, which gives a whole number from 0 on for each, as :func:`digit_features` does.
    """
    shares = []
    for name, items in (("samples", samples), ("real", real)):
        rows, shape = as_rows(items, name=name)
        found = np.asarray(classifier.classes(rows.reshape(-1, *shape)))
        if found.shape != (len(rows),) or found.dtype.kind not in "iu" or found.min() < 0:
            raise ArgumentError("classifier", f"must give {len(rows)} classes, whole numbers from 0 on")
        shares.append(np.bincount(found) / len(rows))
    most = min(map(len, shares))
    return float(np.minimum(shares[0][:most], shares[1][:most]).sum())


def squared_radii(rows: np.ndarray, k: int) -> np.ndarray:
    """The squared distance of each row to its ``k``-th nearest other one."""
    return nearest(rows, rows, k, but_itself=True)[0][:, -1]


def _two_sets(samples: Any, real: Any, features: Features | None, k: int) -> tuple[np.ndarray, np.ndarray]:
    checks.integer("k", k, 1)
    a, b = rows_of(samples, real, features)
    if min(len(a), len(b)) <= k:
        raise ArgumentError("k", f"must be below the {min(len(a), len(b))} rows of the smaller set, not {k}")
    return a, b

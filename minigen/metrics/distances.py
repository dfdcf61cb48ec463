"""Distances between two sets of rows as distributions: of Gaussians fitted to them, of means in a kernel's space."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minigen import checks
from minigen.errors import ArgumentError
from minigen.metrics.features import Features, moments, rows_of

BLOCK = 1000  # rows that the kernel distance takes together


class Estimate(NamedTuple):
    """A figure and its standard error."""

    value: float
    error: float


def frechet_distance(samples: Any, real: Any, features: Features | None = None) -> float:
    """Frechet distance between Gaussians with the mean and covariance of ``samples[n, ...]`` and of ``real[m, ...]``.

    Dowson and Landau 1982, equation 4; on features of a classifier, Heusel et al. 2017. ``features`` makes rows
    ``[n, F]`` of the items, by default their numbers as they are::

        d^2 = |mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2))

    It is the square, as is usual, and grows as either set gets smaller: compare figures of equal numbers of rows only.
    Raises ``TypeError`` or ``ValueError`` for what are not two sets of at least two items of one shape.
    """
    a, b = rows_of(samples, real, features)
    return between_gaussians(moments(a), moments(b))


def between_gaussians(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
    """The distance, squared, of two Gaussians, each of a mean ``[F]`` and a covariance ``[F, F]``."""
    (mean_a, A), (mean_b, B) = a, b
    difference = mean_a - mean_b
    # tr (A B)^(1/2) is the sum of the roots of the eigenvalues of A B, which are those of A^(1/2) B A^(1/2).
    values, vectors = np.linalg.eigh(A)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    mixed = np.linalg.eigvalsh(root @ B @ root)
    squared = difference @ difference + np.trace(A) + np.trace(B) - 2 * np.sqrt(np.maximum(mixed, 0)).sum()
    return float(max(squared, 0.0))


def kernel_distance(samples: Any, real: Any, features: Features | None = None, *, seed: int = 0) -> Estimate:
    """Squared maximum mean discrepancy under the kernel ``(x y / F + 1)^3``, unbiased, and its standard error.

    Gretton et al. 2012, equation 3; the kernel and its use on features are those of Binkowski et al. 2018. It is the
    mean over disjoint blocks of at most 1,000 rows of each set, whose spread gives the error (Zaremba et al. 2013);
    ``seed`` shuffles the rows into blocks. Being unbiased, it does not depend on how many rows there are, and may come
    out below 0. The error of a single block is NaN.
    """
    a, b = rows_of(samples, real, features)
    rng = np.random.default_rng(checks.seed("seed", seed))
    blocks = -(-min(len(a), len(b)) // BLOCK)
    pieces = zip(*(np.array_split(x[rng.permutation(len(x))], blocks) for x in (a, b)), strict=True)
    found = np.array([_discrepancy(*(z[: 2 * BLOCK].astype(np.float64) for z in pair)) for pair in pieces])
    return Estimate(float(found.mean()), float(found.std(ddof=1) / np.sqrt(blocks)) if blocks > 1 else float("nan"))


def _discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < 2 or len(y) < 2:
        raise ArgumentError("samples", "must have at least two items for each of real")
    width = x.shape[1]

    def kernel(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return (p @ q.T / width + 1) ** 3

    def among(p: np.ndarray) -> float:
        own = kernel(p, p)
        return float((own.sum() - np.trace(own)) / (len(p) * (len(p) - 1)))

    return among(x) + among(y) - 2 * float(kernel(x, y).mean())

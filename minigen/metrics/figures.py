"""The figures of :func:`minigen.metrics.evaluate`, each by its name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np

from minigen.metrics.distances import between_gaussians, kernel_distance
from minigen.metrics.features import Features, apply, moments
from minigen.metrics.neighbours import (
    DensityCoverage,
    PrecisionRecall,
    class_coverage,
    density_coverage,
    nearer,
    precision_recall,
    share_copied,
)
from minigen.metrics.pairs import nearest

BETTER = {
    "frechet distance": "lower",
    "kernel distance": "lower",
    "precision": "higher",
    "recall": "higher",
    "density": "higher",
    "coverage": "higher",
    "class coverage": "higher",
    "nearer to training rows": "0.5",
    "copies of training rows": "lower",
}
"""The metrics of samples by name, and which way is better."""

LIKELIHOODS = {"reconstruction error": "lower", "bound": "higher", "log likelihood": "higher"}
"""What a VAE says of rows, and which way is better: root mean squared error of a number, nats, nats."""

MOST_SCORED = 1000  # rows: each is decoded once a draw
DRAWS = 64


class Sets:
    """Metrics of ``items[n, ...]`` by name, computed when asked for.

    They compare with the training items ``known[m, ...]``, all or the ``some`` of them with these numbers. ``real`` are
    the metrics of held-out items beside the same training items, which tell copies; without it, they are these.
    """

    def __init__(
        self,
        items: np.ndarray,
        known: np.ndarray,
        some: np.ndarray,
        features: Features | None,
        seed: int,
        real: Sets | None = None,
    ) -> None:
        self.items, self.known_items, self._some, self._features, self._seed = items, known, some, features, seed
        self._real = self if real is None else real
        self.rows = apply(features, items)
        self.known: np.ndarray = apply(features, known) if real is None else real.known

    def has(self, name: str) -> bool:
        """Whether there is this metric: only a classifier tells classes."""
        return name != "class coverage" or hasattr(self._features, "classes")

    def __getitem__(self, name: str) -> float:
        if name == "frechet distance":
            return between_gaussians(moments(self.rows), self._real._moments_known)
        if name == "kernel distance":
            return kernel_distance(self.rows, self.some, seed=self._seed).value
        if name in PrecisionRecall._fields:
            return float(getattr(self._manifolds, name))
        if name in DensityCoverage._fields:
            return float(getattr(self._balls, name))
        if name == "class coverage":
            return class_coverage(self.items, self.known_items, self._features)
        if name == "nearer to training rows":
            return nearer(self._near[:, 0], self._real._near[:, 0]).share
        return share_copied(self._near)

    @property
    def some(self) -> np.ndarray:
        return self.known[self._some]

    @cached_property
    def _near(self) -> np.ndarray:
        """Squared distances to the two nearest training rows: by far the longest of all to find."""
        return nearest(self.rows, self.known, 2)[0]

    @cached_property
    def _moments_known(self) -> tuple[np.ndarray, np.ndarray]:
        return moments(self.known)

    @cached_property
    def _manifolds(self) -> PrecisionRecall:
        return precision_recall(self.rows, self.some, k=min(3, len(self.some) - 1))

    @cached_property
    def _balls(self) -> DensityCoverage:
        return density_coverage(self.rows, self.some, k=min(5, len(self.some) - 1))


def likelihoods(
    model: Any, rows: np.ndarray, y: Any = None, *, names: Iterable[str] = tuple(LIKELIHOODS), seed: int = 0
) -> dict[str, float]:
    """Means over the first 1,000 of ``rows``, of labels ``y``, of what a VAE says of them."""
    rows, y = rows[:MOST_SCORED], None if y is None else y[:MOST_SCORED]
    if model.binary_:  # they have become floats
        rows = rows.astype(model.data_dtype_)
    found = {}
    if "reconstruction error" in names:
        difference = np.asarray(model.reconstruct(rows, y), np.float64) - rows.astype(np.float64)
        found["reconstruction error"] = math.sqrt((difference**2).mean())
    if "bound" in names:
        found["bound"] = float(model.elbo(rows, y, seed=seed, progress=False).mean())
    if "log likelihood" in names:
        scores = model.score_samples(rows, y, samples=DRAWS, seed=seed, progress=False)
        found["log likelihood"] = float(scores.mean())
    return found

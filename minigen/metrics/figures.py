"""The figures of :func:`minigen.metrics.evaluate`, each by its name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Self

import numpy as np

from minigen.metrics.distances import frechet_distance, kernel_distance
from minigen.metrics.features import Features, apply
from minigen.metrics.neighbours import (
    DensityCoverage,
    PrecisionRecall,
    class_coverage,
    copied,
    density_coverage,
    memorisation,
    precision_recall,
)

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
    """Metrics of ``rows[n, ...]`` by name, computed when asked for.

    They compare with the training rows ``known[m, ...]``, all or the ``some`` of them with these numbers, and tell
    copies by the held-out rows ``new``.
    """

    def __init__(
        self,
        rows: np.ndarray,
        known: np.ndarray,
        new: np.ndarray,
        some: np.ndarray,
        features: Features | None,
        seed: int,
    ) -> None:
        self.items, self._some, self._features, self._seed = rows, some, features, seed
        self.known_items = known
        self.rows, self.known, self.new = (apply(features, items) for items in (rows, known, new))

    def with_rows(self, rows: np.ndarray) -> Self:
        """The same metrics of other rows."""
        other = object.__new__(type(self))
        vars(other).update({name: vars(self)[name] for name in ("_some", "_features", "_seed", "known_items")})
        other.items, other.known, other.new = rows, self.known, self.new
        other.rows = apply(self._features, rows)
        return other

    def has(self, name: str) -> bool:
        """Whether there is this metric: only a classifier tells classes."""
        return name != "class coverage" or hasattr(self._features, "classes")

    def __getitem__(self, name: str) -> float:
        if name == "frechet distance":
            return frechet_distance(self.rows, self.known)
        if name == "kernel distance":
            return kernel_distance(self.rows, self.some, seed=self._seed).value
        if name in PrecisionRecall._fields:
            return float(getattr(self._manifolds, name))
        if name in DensityCoverage._fields:
            return float(getattr(self._balls, name))
        if name == "class coverage":
            return class_coverage(self.items, self.known_items, self._features)
        if name == "nearer to training rows":
            return memorisation(self.rows, self.known, self.new).share
        return copied(self.rows, self.known)

    @property
    def some(self) -> np.ndarray:
        return self.known[self._some]

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
    found = {}
    if "reconstruction error" in names:
        difference = np.asarray(model.reconstruct(rows, y), np.float64) - rows
        found["reconstruction error"] = math.sqrt((difference**2).mean())
    if "bound" in names:
        found["bound"] = float(model.elbo(rows, y, seed=seed, progress=False).mean())
    if "log likelihood" in names:
        scores = model.score_samples(rows, y, samples=DRAWS, seed=seed, progress=False)
        found["log likelihood"] = float(scores.mean())
    return found

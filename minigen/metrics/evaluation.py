"""All metrics of a model at once, each beside the same figure for real rows that the model has not seen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigen import checks
from minigen.datasets.load import as_rows
from minigen.errors import ArgumentError
from minigen.metrics.distances import frechet_distance, kernel_distance
from minigen.metrics.features import Features
from minigen.metrics.neighbours import density_coverage, memorisation, precision_recall

MOST_ROWS = 10_000  # of each set: more would change the figures little and cost quadratically more


@dataclass(frozen=True)
class Figure:
    """One metric: of the model's samples, and of as many held-out real rows; ``good`` says which way is better."""

    name: str
    model: float
    held_out: float
    good: str


@dataclass(frozen=True)
class Evaluation:
    """Figures of a model; printed, and in a notebook, it is a table. ``rows``: how many each set has."""

    figures: tuple[Figure, ...]
    rows: int

    def __getitem__(self, name: str) -> Figure:
        found = {figure.name: figure for figure in self.figures}
        return found[checks.choice("name", name, found)]

    def to_json(self) -> str:
        """The figures as a JSON object by name."""
        figures = {figure.name: {"model": figure.model, "held_out": figure.held_out} for figure in self.figures}
        return json.dumps({"rows": self.rows, "figures": figures}, indent=2)

    def _cells(self) -> list[tuple[str, str, str, str]]:
        head = ("metric", "model", "held-out rows", "better")
        return [head, *((f.name, f"{f.model:.4g}", f"{f.held_out:.4g}", f.good) for f in self.figures)]

    def __str__(self) -> str:
        cells = self._cells()
        width = [max(len(row[i]) for row in cells) for i in range(4)]
        lines = ("  ".join(text.ljust(w) for text, w in zip(row, width, strict=True)).rstrip() for row in cells)
        return "\n".join([*lines, f"{self.rows} samples, and as many held-out rows, against training rows"])

    def _repr_html_(self) -> str:
        head, *body = self._cells()
        rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in body)
        return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{rows}</table>"


def evaluate(
    model: Any, train: Any, held_out: Any, *, features: Features | None = None, n: int | None = None, seed: int = 0
) -> Evaluation:
    """Metrics of ``n`` samples of ``model``, each beside what ``n`` rows of ``held_out`` get.

    A figure says something only beside the one of real rows that the model has not seen: no model does better, but by
    luck or by copying. All compare with rows of ``train``, which the model was trained on: the Frechet distance and the
    nearest training rows with all of them, the others with ``n`` drawn by ``seed``. ``n`` is at most, and by default,
    the smaller of 10,000 and the number of rows held out.

    >>> digits = minigen.datasets.mnist_sample()
    >>> model = minigen.train_gan(digits[:4000], preset="quality")
    >>> print(minigen.metrics.evaluate(model, digits[:4000], digits[4000:]))

    Raises :class:`~minigen.NotFittedError` for a model that is not trained, and ``TypeError`` or ``ValueError`` for
    data that are not like those of its training.
    """
    model._require_fit()
    (known, shape), (new, new_shape) = as_rows(train, name="train"), as_rows(held_out, name="held_out")
    if new_shape != shape:
        raise ArgumentError("held_out", f"must have items of shape {shape} as train has, not {new_shape}")
    most = min(MOST_ROWS, len(new), len(known))
    n = most if n is None else checks.integer("n", n, 2, most)
    rng = np.random.default_rng(checks.seed("seed", seed))
    known, new = known.reshape(-1, *shape), new[rng.permutation(len(new))[:n]].reshape(-1, *shape)
    some = known[rng.permutation(len(known))[:n]]
    sets = np.asarray(model.sample(n, seed=seed)).reshape(n, *shape), new
    found = [_measure(rows, known, some, new, features, seed) for rows in sets]
    figures = (Figure(name, found[0][name], found[1][name], good) for name, good in BETTER.items())
    return Evaluation(tuple(figures), n)


BETTER = {
    "frechet distance": "lower",
    "kernel distance": "lower",
    "precision": "higher",
    "recall": "higher",
    "density": "higher",
    "coverage": "higher",
    "nearer to training rows": "0.5",
}
"""The metrics by name, and which way is better."""


def _measure(
    rows: np.ndarray, known: np.ndarray, some: np.ndarray, new: np.ndarray, features: Features | None, seed: int
) -> dict[str, float]:
    values = (
        frechet_distance(rows, known, features),
        kernel_distance(rows, some, features, seed=seed).value,
        *precision_recall(rows, some, features, k=min(3, len(rows) - 1)),
        *density_coverage(rows, some, features, k=min(5, len(rows) - 1)),
        memorisation(rows, known, new, features).share,
    )
    return dict(zip(BETTER, values, strict=True))

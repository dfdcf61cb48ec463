"""All metrics of a model at once, each beside the same figure for real rows that the model has not seen."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigen import checks
from minigen.datasets.load import as_rows
from minigen.errors import ArgumentError
from minigen.metrics.features import Features
from minigen.metrics.figures import BETTER, LIKELIHOODS, Sets, likelihoods

MOST_ROWS = 10_000  # of each set: more would change the figures little and cost quadratically more


@dataclass(frozen=True)
class Figure:
    """One metric: of the model, and of held-out real rows; ``good`` says which way is better.

    ``of`` is ``"samples"``, and ``held_out`` then the figure of as many held-out rows in their place; or
    ``"training rows"``, where the model itself is asked about rows, such as for their likelihood: ``model`` is then the
    figure of rows that it was trained on.
    """

    name: str
    model: float
    held_out: float
    good: str
    of: str = "samples"


@dataclass(frozen=True)
class Evaluation:
    """Figures of a model; printed, and in a notebook, it is a table. ``rows``: how many each set has.

    ``features`` names what the metrics looked at, with the accuracy of the classifier where it was one.
    """

    figures: tuple[Figure, ...]
    rows: int
    features: str = "the numbers of the items as they are"

    def __getitem__(self, name: str) -> Figure:
        found = {figure.name: figure for figure in self.figures}
        return found[checks.choice("name", name, found)]

    def to_json(self) -> str:
        """The figures as a JSON object by name; null stands for one that is no number."""
        figures = {f.name: {"of": f.of, "model": _plain(f.model), "held_out": _plain(f.held_out)} for f in self.figures}
        return json.dumps({"rows": self.rows, "features": self.features, "figures": figures}, indent=2)

    def tables(self) -> list[list[tuple[str, str, str, str]]]:
        """Cells of the table of samples and, where there is one, of that of training rows; each begins with a head."""
        found = []
        for of in ("samples", "training rows"):
            if rows := [(f.name, f"{f.model:.4g}", f"{f.held_out:.4g}", f.good) for f in self.figures if f.of == of]:
                found.append([("metric", of, "held-out rows", "better"), *rows])
        return found

    def __str__(self) -> str:
        tables = self.tables()
        width = [max(len(row[i]) for table in tables for row in table) for i in range(4)]
        lines = [
            "\n".join("  ".join(t.ljust(w) for t, w in zip(row, width, strict=True)).rstrip() for row in table)
            for table in tables
        ]
        return "\n\n".join([*lines, f"{self.rows} samples, and as many held-out rows; features: {self.features}"])

    def _repr_html_(self) -> str:
        text = ""
        for head, *body in self.tables():
            rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in body)
            text += f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{rows}</table>"
        return text


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def evaluate(
    model: Any,
    train: Any,
    held_out: Any,
    *,
    labels: tuple[Any, Any] | None = None,
    features: Features | None = None,
    n: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """Metrics of ``n`` samples of ``model``, each beside what ``n`` rows of ``held_out`` get.

    A figure says something only beside the one of real rows that the model has not seen: no model does better, but by
    luck or by copying. All compare with rows of ``train``, which the model was trained on: the Frechet distance and the
    nearest training rows with all of them, the others with ``n`` drawn by ``seed``. ``n`` is at most, and by default,
    the smaller of 10,000 and the number of rows held out.

    With ``features=minigen.metrics.digit_features()``, or another function with a method ``classes(items)``, it also
    has the class coverage. Of a VAE it also has the reconstruction error, the bound and the importance-sampled log
    likelihood, of up to 1,000 rows of ``train`` and of ``held_out``; a conditional one needs ``labels``, those of
    ``train`` and of ``held_out``, for these. A model of rows with numbers beside them needs these as ``labels``.

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
    y, y_new = _labels(labels, len(known), len(new))
    most = min(MOST_ROWS, len(new), len(known))
    n = most if n is None else checks.integer("n", n, 2, most)
    rng = np.random.default_rng(checks.seed("seed", seed))
    chosen, some = rng.permutation(len(new))[:n], rng.permutation(len(known))[:n]
    known, new = known.reshape(-1, *shape), new[chosen].reshape(-1, *shape)
    given = {} if y is None or model.conditions_ is None or model.classes_ is not None else {"y": y[some]}
    samples = np.asarray(model.sample(n, seed=seed, **given)).reshape(n, *shape)
    of_real = Sets(new, known, some, features, seed)
    of_model = Sets(samples, known, some, features, seed, of_real)
    names = [name for name in BETTER if of_model.has(name)]
    figures = [Figure(name, of_model[name], of_real[name], BETTER[name]) for name in names]
    if hasattr(model, "elbo") and (model.conditions_ is None or labels is not None):
        both = [
            likelihoods(model, rows, None if of is None else of[numbers], seed=seed)
            for rows, of, numbers in ((known[some], y, some), (new, y_new, chosen))
        ]
        figures += [
            Figure(name, both[0][name], both[1][name], good, "training rows") for name, good in LIKELIHOODS.items()
        ]
    return Evaluation(tuple(figures), n, _named(features))


def _named(features: Features | None) -> str:
    if features is None:
        return Evaluation.features
    name = getattr(features, "__name__", type(features).__name__)
    accuracy = getattr(features, "accuracy", None)
    return name if accuracy is None else f"those of {name}, right on {accuracy:.2%} of held-out rows"


def _labels(labels: Any, known: int, new: int) -> tuple[Any, Any]:
    if labels is None:
        return None, None
    if not isinstance(labels, (tuple, list)) or [len(y) for y in labels] != [known, new]:
        raise ArgumentError("labels", f"must be a pair: one a row of train ({known}) and of held_out ({new})")
    return np.asarray(labels[0]), np.asarray(labels[1])

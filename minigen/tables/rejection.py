"""Discriminator rejection sampling (Azadi et al. 2019): rows that a classifier tells from real ones are left out.

A classifier of real and generated rows says ``D(x)``, and ``D / (1 - D)``, the exponential of its logit ``l(x)``, is
``p_data / p_model`` but for a factor. A generated row is accepted with probability ``min(1, exp(l(x) - l_max))``
(their equation 3), so that rows that are accepted have the density of real ones, as far as the classifier knows it.
For ``l_max``, the largest logit, a high quantile of generated rows' stands in: the ratio counts up to there.

The figure ``detection AUC`` of :mod:`minigen.tables.quality` is a classifier's of the same kind, and gains the most by
this; similarities of pairs of columns, and what a model learns from the rows, say whether the rows are better. Accepted
rows lie somewhat nearer to training rows than all generated ones do: ``nearer to training rows`` tells.

The classifier is boosted trees, which see a row as the table has it: numbers, not where they lie among others.
scikit-learn trains them; using them is NumPy's, so that a saved model needs no scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minigen.tables.kinds import BOOLEAN, CATEGORY, Typed
from minigen.tables.reading import EXTRA
from minigen.tables.schema import Schema, values_of
from minigen.training.checkpoint import Tensors

LEAST_ROWS = 5000  # trees of fewer would learn them by heart, and prefer rows near to them
MOST_ROWS = 50_000  # real ones that trees are fitted to
TREES = 250
DEPTH = 10
MOST_LABELS = 255  # of a column, that scikit-learn's trees take
WORDS = 8
ALWAYS = 0.01  # share of the generated rows that are always accepted
LEAST = 1e-3  # probability of acceptance at least, so that every kind of row that is asked for is found
ROWS_AT_ONCE = 8192  # whose numbers fit into a cache
MISSING = -1e300  # the number of a value that is missing: below all others


@dataclass(frozen=True)
class Rejection:
    """Boosted trees ``[T, M]`` of at most ``M`` nodes each, whose first is the root.

    A row goes from node ``i`` to ``left[t, i]`` where its column ``column[t, i]`` is at most ``threshold[t, i]`` or,
    where that is NaN, if its label is in the set whose bits are ``labels[t, i, 8]``, 32 in each; else to ``right[t,
    i]``. A leaf has itself on both sides. The logit, but for a constant, is the sum of the leaves' ``value``; one above
    ``bound[0]`` is always accepted.
    """

    column: np.ndarray
    threshold: np.ndarray
    labels: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    bound: np.ndarray

    def logits(self, rows: np.ndarray) -> np.ndarray:
        """``float64[n]`` of ``rows[n, C]`` as :func:`matrix` gives them."""
        pieces = np.array_split(rows, max(1, -(-len(rows) // ROWS_AT_ONCE)))
        return np.concatenate([self._logits(piece) for piece in pieces])

    def _logits(self, rows: np.ndarray) -> np.ndarray:
        total, first, flat = np.zeros(len(rows)), np.arange(len(rows)) * rows.shape[1], rows.ravel()
        for t, value in enumerate(self.value):
            column, threshold, bits = self.column[t], self.threshold[t], self.labels[t].astype(np.int64)
            sides = np.stack([self.right[t], self.left[t]], axis=1).ravel()
            has_labels = np.isnan(threshold).any()
            at, before = np.zeros(len(rows), np.int64), None
            while before is None or (at != before).any():
                x, limit, before = flat.take(first + column.take(at)), threshold.take(at), at
                below = x <= limit
                if has_labels and len(of_labels := np.flatnonzero(np.isnan(limit))):
                    label = x[of_labels].astype(np.int64)
                    below[of_labels] = bits[at[of_labels], label >> 5] >> (label & 31) & 1
                at = sides.take(2 * at + below)
            total += value.take(at)
        return total

    def accepts(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """``bool[n]``, by chance."""
        return rng.random(len(rows)) < np.exp(self.logits(rows) - self.bound).clip(LEAST, 1)

    def tensors(self) -> Tensors:
        """For a model file."""
        return {name: np.asarray(array, np.float64) for name, array in vars(self).items()}

    @classmethod
    def from_tensors(cls, tensors: Tensors, columns: int) -> Rejection | None:
        """The one that a model file holds, if any. Raises KeyError or ValueError for one that cannot be."""
        if not tensors:
            return None
        parts = {name: np.asarray(tensors[name], np.float64) for name in cls.__dataclass_fields__}
        shape = parts["column"].shape
        shapes = {"labels": (*shape, WORDS), "bound": (1,)}
        if len(shape) != 2 or any(part.shape != shapes.get(name, shape) for name, part in parts.items()):
            raise ValueError("rejection must have trees of as many nodes each")
        if not all(np.isfinite(part).all() for name, part in parts.items() if name != "threshold"):
            raise ValueError("rejection must be finite numbers")
        for name, most in (("column", columns), ("left", shape[1]), ("right", shape[1])):
            parts[name] = parts[name].astype(np.int64)
            if not ((parts[name] >= 0) & (parts[name] < most)).all():
                raise ValueError(f"rejection must have whole numbers below {most} for {name}")
        itself = np.arange(shape[1])
        leaf = (parts["left"] == itself) & (parts["right"] == itself)
        if not (leaf | ((parts["left"] > itself) & (parts["right"] > itself))).all():
            raise ValueError("rejection must have trees whose nodes come before those below them")
        return cls(**parts)


def as_labels(schema: Schema) -> np.ndarray:
    """Which columns the trees take for labels, ``bool[C]``; of more labels than fit they see the number."""
    return np.array([of.kind in (CATEGORY, BOOLEAN) and of.places <= MOST_LABELS for of in schema.columns])


def matrix(schema: Schema, found: Sequence[Any]) -> np.ndarray:
    """``float64[n, C]`` of places and numbers as :func:`~minigen.tables.schema.decode` gives them; labels first."""
    pairs = zip(schema.columns, found, strict=True)
    columns = [at if of.kind in (CATEGORY, BOOLEAN) else values_of(of, at, number) for of, (at, number) in pairs]
    return _side_by_side(schema, columns)


def matrix_of_data(schema: Schema, found: Sequence[Typed]) -> np.ndarray:
    """The same of a table that has been read."""
    columns = []
    for of, column in zip(schema.columns, found, strict=True):
        values = np.full(len(column.raw), np.nan)
        if of.kind in (CATEGORY, BOOLEAN):
            values = of.place_of(column)
        else:
            values[~column.raw.missing] = column.values
        columns.append(values)
    return _side_by_side(schema, columns)


def _side_by_side(schema: Schema, columns: list[np.ndarray]) -> np.ndarray:
    order = np.argsort(~as_labels(schema), kind="stable")
    return np.nan_to_num(np.stack([columns[i] for i in order], axis=1).astype(np.float64), nan=MISSING)


def fit(real: np.ndarray, made: np.ndarray, labels: int, seed: int) -> Rejection:
    """Trees that tell ``real[n, C]`` from generated rows; the first ``labels`` columns are of labels.

    Raises ImportError without scikit-learn.
    """
    check_available()
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng([seed, 8])
    some = rng.permutation(len(real))[:MOST_ROWS]
    rare = [np.unique(real[:, i], return_index=True)[1] for i in range(labels)]  # labels are to be numbered as they are
    real = real[np.union1d(some, np.concatenate([*rare, some[:1]]))]
    trees = HistGradientBoostingClassifier(
        max_iter=TREES,
        max_depth=DEPTH,
        early_stopping=False,
        categorical_features=np.arange(real.shape[1]) < labels,
        random_state=seed % 2**32,
    )
    rows = np.concatenate([real, made])
    with threadpool_limits(1):  # sums in one order, whatever the number of threads
        trees.fit(rows, np.repeat([1, 0], [len(real), len(made)]))
        expected = trees.decision_function(rows)
    found = _exported(trees)
    some_of = slice(None, None, max(1, len(rows) // 1000))
    constant = found.logits(rows[some_of]) - expected[some_of]
    if np.ptp(constant) > 1e-6:
        raise RuntimeError("this release of scikit-learn keeps its trees in another way: use rejection=False")
    return replace(found, bound=np.quantile(expected[len(real) :], [1 - ALWAYS]) + constant.mean())


def _exported(trees: Any) -> Rejection:
    """The trees of scikit-learn's classifier as arrays. There is no public way to them but a pickle."""
    stages = [stage[0] for stage in trees._predictors]
    shape = len(stages), max(len(stage.nodes) for stage in stages)
    itself = np.tile(np.arange(shape[1]), (shape[0], 1))
    column, left, right, labels = np.zeros(shape, np.int64), itself.copy(), itself.copy(), np.zeros((*shape, WORDS))
    threshold, value = np.zeros(shape), np.zeros(shape)
    for t, stage in enumerate(stages):
        nodes = stage.nodes
        inner = np.flatnonzero(nodes["is_leaf"] == 0)
        column[t, inner], threshold[t, inner] = nodes["feature_idx"][inner], nodes["num_threshold"][inner]
        left[t, inner], right[t, inner] = nodes["left"][inner], nodes["right"][inner]
        value[t, : len(nodes)] = nodes["value"]
        of_labels = inner[nodes["is_categorical"][inner] == 1]
        threshold[t, of_labels] = np.nan
        labels[t, of_labels] = stage.raw_left_cat_bitsets[nodes["bitset_idx"][of_labels]]
    return Rejection(column, threshold, labels, left, right, value, np.zeros(1))


def check_available() -> None:
    """Raise ImportError, which says what to install, where no classifier could be trained in the end."""
    try:
        import sklearn.ensemble  # noqa: F401
    except ImportError as error:
        raise ImportError(f"rejection=True needs scikit-learn: {EXTRA}") from error

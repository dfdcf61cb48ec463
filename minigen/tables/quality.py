"""How much synthetic rows are like real ones: distributions of columns and pairs, what a classifier learns from them,
whether one can tell them apart, and whether they are copies. Needs pandas, and for all but the first scikit-learn.

Each figure says something only beside that of real rows which the model has not seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigen import checks
from minigen.errors import ArgumentError
from minigen.tables.reading import EXTRA
from minigen.tables.schema import Schema, read

BINS = 10  # of a number beside a category
FOLDS = 3
MOST_ROWS = 20_000  # of each table where classifiers are trained and neighbours sought


@dataclass(frozen=True, eq=False)
class Plain:
    """A table for measuring: numbers as ``float64[N]`` with NaN where missing, categories as ``int[N]`` codes that real
    and synthetic rows have in common."""

    numbers: dict[str, np.ndarray]
    codes: dict[str, np.ndarray]

    @property
    def rows(self) -> int:
        return len(next(iter((self.numbers or self.codes).values())))

    def take(self, rows: np.ndarray) -> Plain:
        return Plain({k: v[rows] for k, v in self.numbers.items()}, {k: v[rows] for k, v in self.codes.items()})

    def joined(self, other: Plain) -> Plain:
        """The rows of both."""
        numbers = {k: np.concatenate([v, other.numbers[k]]) for k, v in self.numbers.items()}
        return Plain(numbers, {k: np.concatenate([v, other.codes[k]]) for k, v in self.codes.items()})


def plain(schema: Schema, *tables: Any) -> list[Plain]:
    """The tables side by side, with the types of ``schema``. Raises as ``fit`` does, and where a column is missing."""
    types = {column.name: column.kind for column in schema.columns}
    made = [Plain({}, {}) for _ in tables]
    found = []
    for table in tables:
        columns = {column.raw.name: column for column in read(table, types)[1]}
        if list(columns) != schema.names:
            raise ArgumentError("X", f"must have the columns {', '.join(schema.names)}, not {', '.join(columns)}")
        found.append(columns)
    for name, kind in types.items():
        known: dict[Any, int] = {}
        for columns, one in zip(found, made, strict=True):
            column = columns[name]
            there = ~column.raw.missing
            if kind in ("category", "boolean"):
                one.codes[name] = np.full(len(there), -1)
                one.codes[name][there] = [known.setdefault(value, len(known)) for value in column.values]
            else:
                one.numbers[name] = np.full(len(there), np.nan)
                one.numbers[name][there] = column.values
    return made


# --- distributions ----------------------------------------------------------------------------------


def column_similarity(real: Plain, made: Plain) -> dict[str, float]:
    """By column: 1 less the Kolmogorov-Smirnov distance of numbers, or the total variation distance of categories."""
    found = {name: 1 - kolmogorov_smirnov(real.numbers[name], made.numbers[name]) for name in real.numbers}
    return found | {name: 1 - total_variation(real.codes[name], made.codes[name]) for name in real.codes}


def kolmogorov_smirnov(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of two samples' distribution functions, NaNs left out; 1 if one of them has no others."""
    a, b = np.sort(a[~np.isnan(a)]), np.sort(b[~np.isnan(b)])
    if not len(a) or not len(b):
        return float(len(a) != len(b))
    at = np.concatenate([a, b])
    below = np.searchsorted(a, at, "right") / len(a) - np.searchsorted(b, at, "right") / len(b)
    return float(np.abs(below).max())


def total_variation(a: np.ndarray, b: np.ndarray) -> float:
    """Half the sum of the differences of frequencies of integer codes, -1 (missing) among them."""
    most = max(a.max(), b.max()) + 2
    return float(
        np.abs(np.bincount(a + 1, minlength=most) / len(a) - np.bincount(b + 1, minlength=most) / len(b)).sum() / 2
    )


def pair_similarity(real: Plain, made: Plain) -> float:
    """The mean over pairs of columns: of two numbers 1 less half the difference of their correlations; of others 1
    less the total variation distance of their joint frequencies, with numbers in ten bins. NaN for a single column."""
    numbers, scores = list(real.numbers), []
    for a, b in itertools.combinations(numbers, 2):
        correlations = [_correlation(one.numbers[a], one.numbers[b]) for one in (real, made)]
        if not np.isnan(correlations[0]):
            scores.append(1 - abs(correlations[0] - np.nan_to_num(correlations[1])) / 2)
    binned = {}
    for name in numbers:
        there = real.numbers[name][~np.isnan(real.numbers[name])]
        edges = np.linspace(there.min(), there.max(), BINS + 1)[1:-1]
        binned[name] = [
            np.where(np.isnan(x), -1, np.digitize(x, edges)) for x in (real.numbers[name], made.numbers[name])
        ]
    codes = {name: [real.codes[name], made.codes[name]] for name in real.codes}
    pairs = itertools.chain(itertools.combinations(codes, 2), itertools.product(codes, binned))
    both = codes | binned
    for first, second in pairs:
        width = max(one.max() for one in both[second]) + 2
        joint = [one * width + other + 1 for one, other in zip(both[first], both[second], strict=True)]
        joint = [one - min(pair.min() for pair in joint) for one in joint]
        scores.append(1 - total_variation(joint[0], joint[1]))
    return float(np.mean(scores)) if scores else float("nan")


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    there = ~np.isnan(a) & ~np.isnan(b)
    a, b = a[there], b[there]
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 1 and a.std() and b.std() else float("nan")


# --- classifiers ------------------------------------------------------------------------------------


def _sklearn() -> Any:
    try:
        import sklearn
    except ImportError as error:
        raise ImportError(f"these figures need scikit-learn: {EXTRA}") from error
    return sklearn


def _matrix(table: Plain, leave_out: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """All columns side by side, and which of them are codes."""
    numbers = [value for name, value in table.numbers.items() if name not in leave_out]
    codes = [value.astype(np.float64) for name, value in table.codes.items() if name not in leave_out]
    return np.stack([*numbers, *codes], axis=1), np.array([False] * len(numbers) + [True] * len(codes))


def detection_auc(real: Plain, made: Plain, seed: int = 0) -> float:
    """How well boosted trees tell real rows from synthetic ones, cross-validated: 0.5 where they cannot, 1 always."""
    _sklearn()
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rng = np.random.default_rng(seed)
    n = min(real.rows, made.rows, MOST_ROWS)
    tables = [table.take(rng.permutation(table.rows)[:n]) for table in (real, made)]
    X = np.concatenate([_matrix(table)[0] for table in tables])
    is_code = _matrix(tables[0])[1] & (X.max(axis=0) < 250)  # as many categories as these trees take
    y = np.repeat([0, 1], n)
    trees = HistGradientBoostingClassifier(categorical_features=is_code, random_state=seed)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    X[:, is_code] = np.where(X[:, is_code] < 0, np.nan, X[:, is_code])
    return float(roc_auc_score(y, cross_val_predict(trees, X, y, cv=folds, method="predict_proba")[:, 1]))


def efficacy(train: Plain, test: Plain, target: str, positive: int, seed: int = 0) -> dict[str, float]:
    """F1 of ``positive`` (a code of the category ``target``) on ``test`` by each of four classifiers trained on
    ``train``, those of Xu et al. 2019, and their mean."""
    _sklearn()
    import warnings

    from sklearn.ensemble import AdaBoostClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.neural_network import MLPClassifier
    from sklearn.tree import DecisionTreeClassifier

    X, X_test = _one_hot(train, test, target)
    y, y_test = train.codes[target] == positive, test.codes[target] == positive
    if y.all() or not y.any():
        return {"mean": 0.0}
    classifiers = {
        "adaboost": AdaBoostClassifier(random_state=seed),
        "tree": DecisionTreeClassifier(max_depth=15, class_weight="balanced", random_state=seed),
        "logistic": LogisticRegression(class_weight="balanced", max_iter=200),
        "perceptron": MLPClassifier((50,), max_iter=20, random_state=seed),
    }
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they could be trained for longer
        for name, classifier in classifiers.items():
            found[name] = float(f1_score(y_test, classifier.fit(X, y).predict(X_test)))
    return found | {"mean": float(np.mean(list(found.values())))}


def prediction(train: Plain, test: Plain, target: str, seed: int = 0) -> dict[str, float]:
    """How well boosted trees that were trained on ``train`` predict the column ``target`` of ``test``: ``r2`` of a
    number, ``accuracy`` of a category. Rows in which it is missing are left out."""
    _sklearn()
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    number = target in train.numbers
    kind = HistGradientBoostingRegressor if number else HistGradientBoostingClassifier
    tables = []
    for table in (train, test):
        y = table.numbers[target] if number else table.codes[target]
        there = ~np.isnan(y) if number else y >= 0
        tables.append((_matrix(table, [target])[0][there], y[there]))
    (X, y), new = tables
    trees = kind(random_state=seed).fit(X, y)
    return {"r2" if number else "accuracy": float(trees.score(*new))}


def _one_hot(train: Plain, test: Plain, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Standardised numbers and one-hot categories of both."""
    columns: list[list[np.ndarray]] = [[], []]
    for name in train.numbers:
        if name == target:
            continue
        mean, scale = np.nanmean(train.numbers[name]), np.nanstd(train.numbers[name]) or 1.0
        for place, table in zip(columns, (train, test), strict=True):
            place.append(np.nan_to_num((table.numbers[name] - mean) / scale)[:, None])
    for name in train.codes:
        if name == target:
            continue
        width = max(train.codes[name].max(), test.codes[name].max()) + 2
        for place, table in zip(columns, (train, test), strict=True):
            place.append(np.eye(width, dtype=np.float32)[table.codes[name] + 1])
    return np.concatenate(columns[0], axis=1), np.concatenate(columns[1], axis=1)


def nearest(made: Plain, train: Plain, held_out: Plain, seed: int = 0) -> float:
    """The share of synthetic rows that are nearer to a training row than to any of as many held-out rows: 0.5 where the
    model has copied nothing, give or take 0.05 where 150 rows are held out. Numbers count by their deviation in both
    tables together, categories 1 where they differ."""
    _sklearn()
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(seed)
    n = min(train.rows, held_out.rows, MOST_ROWS)
    both = [table.take(rng.permutation(table.rows)[:n]) for table in (train, held_out)]
    queries = made.take(np.arange(min(made.rows, MOST_ROWS // 4)))
    known, asked = _one_hot(both[0].joined(both[1]), queries, "")  # on one scale: by two, distances cannot be compared
    scale = np.repeat([1.0], known.shape[1])
    scale[len(train.numbers) :] = np.sqrt(0.5)
    known, asked = (known * scale).astype(np.float32), (asked * scale).astype(np.float32)
    distances = []
    for rows in (known[:n], known[n:]):
        found = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(rows)
        distances.append(found.kneighbors(asked)[0][:, 0])
    nearer = distances[0] < distances[1]
    return float(np.mean(nearer + 0.5 * (distances[0] == distances[1])))


@dataclass(frozen=True)
class Quality:
    """Figures of synthetic rows, and of as many held-out real ones."""

    made: dict[str, float]
    held_out: dict[str, float]
    rows: int

    def __str__(self) -> str:
        head = ("figure", "synthetic rows", "held-out rows", "better")
        rows = [head, *((k, f"{self.made[k]:.3f}", f"{self.held_out[k]:.3f}", BETTER[k]) for k in self.made)]
        width = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ("  ".join(text.ljust(w) for text, w in zip(row, width, strict=True)).rstrip() for row in rows)
        return "\n".join([*lines, f"{self.rows} synthetic and {self.rows} held-out rows, against training rows"])

    def to_json(self) -> str:
        import json

        figures = {name: {"model": self.made[name], "held_out": self.held_out[name]} for name in self.made}
        return json.dumps({"rows": self.rows, "figures": figures}, indent=2)


BETTER = {
    "columns": "higher",
    "pairs": "higher",
    "quality": "higher",
    "detection AUC": "0.5",
    "nearer to training rows": "0.5",
}


def evaluate(model: Any, train: Any, held_out: Any, *, n: int | None = None, seed: int = 0) -> Quality:
    """Figures of ``n`` rows that ``model``, a TableVAE or TableGAN, draws, beside those of ``n`` rows of ``held_out``.

    All compare with ``train``: ``columns``, the mean of :func:`column_similarity`; ``pairs``, :func:`pair_similarity`;
    ``quality``, the mean of both; :func:`detection_auc`; :func:`nearest`. ``n``: by default as many as are held out.
    """
    model._require_fit()
    known, new = plain(model.schema_, train, held_out)
    most = min(known.rows, new.rows)
    n = most if n is None else checks.integer("n", n, 2, most)
    rng = np.random.default_rng(checks.seed("seed", seed))
    drawn = model.sample(n, seed=seed)
    known, new, made = plain(model.schema_, train, held_out, drawn)
    held = new.take(rng.permutation(new.rows)[:n])
    return Quality(_figures(made, known, new, seed), _figures(held, known, new, seed), n)


def _figures(made: Plain, known: Plain, new: Plain, seed: int) -> dict[str, float]:
    columns = float(np.mean(list(column_similarity(known, made).values())))
    pairs = pair_similarity(known, made)
    found = {"columns": columns, "pairs": pairs, "quality": (columns + pairs) / 2}
    found["detection AUC"] = detection_auc(known, made, seed)
    return found | {"nearer to training rows": nearest(made, known, new, seed)}

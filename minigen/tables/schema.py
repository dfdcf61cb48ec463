"""All columns of a table: found, shown, turned into rows for networks and back."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigen import checks
from minigen.errors import ArgumentError
from minigen.tables import columns as columns_
from minigen.tables.columns import Column
from minigen.tables.kinds import Typed, typed
from minigen.tables.reading import put_together, take_apart

CONTINUOUS = ("quantiles", "modes")


@dataclass(frozen=True, eq=False)
class Schema:
    """The columns of a table and the ``library`` of its DataFrame. Printed, and in a notebook, it is a table of the
    columns' types."""

    library: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    def __getitem__(self, name: str) -> Column:
        return self.columns[self.names.index(name)]

    def _cells(self) -> list[tuple[str, str, str]]:
        return [("column", "type", "values"), *(column.described() for column in self.columns)]

    def __str__(self) -> str:
        cells = self._cells()
        width = [max(len(row[i]) for row in cells) for i in range(3)]
        return "\n".join("  ".join(text.ljust(w) for text, w in zip(row, width, strict=True)).rstrip() for row in cells)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *body = self._cells()
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in body)
        return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{rows}</table>"


def find_columns(X: Any, types: Mapping[str, str] | None = None) -> Schema:
    """What the columns of a DataFrame, or of a .csv file, are taken for: print the result, and correct it by ``types``.

    >>> print(minigen.tables.find_columns(people, types={"zip": "category"}))

    ``types`` says of some columns what they are: ``"numeric"``, ``"integer"``, ``"category"``, ``"boolean"`` or
    ``"date"``. Raises as :meth:`minigen.TableVAE.fit` does.
    """
    return measure(*read(X, types), continuous="quantiles", most_categories=1000, seed=0)


def read(X: Any, types: Mapping[str, str] | None) -> tuple[str, list[Typed]]:
    """The library of a DataFrame, and its columns as numbers and labels."""
    library, raws = take_apart(X)
    given = columns_.check_types(types, [raw.name for raw in raws])
    return library, [typed(raw, given.get(raw.name)) for raw in raws]


def measure(library: str, found: Sequence[Typed], *, continuous: str, most_categories: int, seed: int) -> Schema:
    """The schema of a table that has been read."""
    rng = np.random.default_rng([seed, 1])
    made = (
        columns_.measure(column, continuous=continuous, most_categories=most_categories, rng=rng) for column in found
    )
    return Schema(library, tuple(made))


class Rows:
    """The rows of a table as networks take them, made piece by piece: ``float32[n, width]``, by ``seed``.

    Columns other than ``condition`` are in it; ``labels`` is the place of each row in that one.
    """

    def __init__(self, schema: Schema, found: Sequence[Typed], condition: str | None, seed: int) -> None:
        self.parts = [
            (column, raw, column.place_of(raw))
            for column, raw in zip(schema.columns, found, strict=True)
            if column.name != condition
        ]
        by_name = {column.raw.name: column for column in found}
        self.labels = None if condition is None else schema[condition].place_of(by_name[condition])
        self.seed = seed
        self.chosen = np.arange(len(found[0].raw))

    @property
    def count(self) -> int:
        return len(self.chosen)

    def choose(self, chosen: np.ndarray) -> None:
        """Be these rows of the table, some of them more than once; ``labels`` are theirs."""
        self.chosen = chosen
        self.labels = None if self.labels is None else self.labels[chosen]

    def __getitem__(self, which: np.ndarray) -> np.ndarray:
        rows = self.chosen[which]
        rng = np.random.default_rng([self.seed, 2, int(rows[0]) if len(rows) else 0])
        return np.concatenate([column.encode(raw, rows, places, rng) for column, raw, places in self.parts], axis=1)


def decode(schema: Schema, encoded: np.ndarray, condition: str | None, labels: np.ndarray | None) -> list[Any]:
    """For each column its places and the number beside them, of rows that a model has made."""
    found: list[Any] = []
    at = 0
    for column in schema.columns:
        if column.name == condition:
            found.append((labels, None))
            continue
        part = encoded[:, at : at + column.width]
        at += column.width
        found.append((column.places_in(part), column.number_in(part) if column.continuous is not None else None))
    return found


def as_frame(schema: Schema, found: Sequence[Any], rng: np.random.Generator) -> Any:
    """The DataFrame of places and numbers as :func:`decode` gives them."""
    pairs = zip(schema.columns, found, strict=True)
    return put_together(schema.library, [column.decode(places, number, rng) for column, (places, number) in pairs])


class Where:
    """What the rows of a sample are to be: by name of a column a value, or ``(low, high)`` of a number or a date."""

    def __init__(self, schema: Schema, where: Any) -> None:
        if where is None:
            where = {}
        if not isinstance(where, Mapping):
            raise ArgumentError("where", f"must be a dict of names of columns and values, not {where!r}")
        self.places: dict[str, int] = {}
        self.ranges: dict[str, tuple[float, float]] = {}
        for name, value in where.items():
            if name not in schema.names:
                raise ArgumentError("where", f"names a column {name!r}; the table has {', '.join(schema.names)}")
            column = schema[name]
            if isinstance(value, (tuple, list)):
                self.ranges[name] = _range(column, value)
            else:
                self.places[name] = _place(column, value)

    def __bool__(self) -> bool:
        return bool(self.places or self.ranges)

    def holds(self, schema: Schema, found: Sequence[Any]) -> np.ndarray:
        """Whether each row is as asked, ``bool[n]``."""
        held = np.ones(len(found[0][0]), bool)
        for column, (places, number) in zip(schema.columns, found, strict=True):
            if column.name in self.places:
                held &= places == self.places[column.name]
            if column.name in self.ranges:
                low, high = self.ranges[column.name]
                values = values_of(column, places, number)
                held &= (values >= low) & (values <= high)
        return held


def values_of(column: Column, places: np.ndarray, number: np.ndarray | None) -> np.ndarray:
    """The numbers of a column, as the table has them; dates in microseconds, NaN where they are missing."""
    made = column.decode(places, number, np.random.default_rng(0))
    values = made.values if made.values.dtype.kind != "M" else made.values.astype("datetime64[us]").astype(np.int64)
    if values.dtype == object:
        values = np.array([float(value) for value in values])
    return np.where(made.missing, np.nan, values.astype(np.float64))


def _range(column: Column, value: Sequence[Any]) -> tuple[float, float]:
    if column.kind in ("category", "boolean") or column.text is not None or len(value) != 2:
        raise ArgumentError("where", f": {column.name!r} takes one value, not {value!r}; (low, high) is for numbers")
    low, high = (_as_number(column, end) for end in value)
    return low, high


def _as_number(column: Column, value: Any) -> float:
    if column.kind == "date":
        try:
            return float(np.datetime64(value).astype("datetime64[us]").astype(np.int64))
        except (ValueError, TypeError) as error:
            raise ArgumentError("where", f": {column.name!r} takes dates, not {value!r}") from error
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ArgumentError("where", f": {column.name!r} takes numbers, not {value!r}")
    return float(value)


def _place(column: Column, value: Any) -> int:
    """The place of one value in the block of its column."""
    if column.kind not in ("category", "boolean"):
        value = _as_number(column, value)
    for i, level in enumerate(column.levels):
        if level == value and isinstance(level, bool) == isinstance(value, (bool, np.bool_)):
            return i + column.rest
    if column.continuous is not None:
        raise ArgumentError("where", f": {column.name!r} has numbers: give (low, high), which {value!r} may be both of")
    if value in column.rare:
        raise ArgumentError("where", f": {value!r} is too rare in {column.name!r} to ask for it")
    known = ", ".join(map(repr, column.levels[:10])) + (", ..." if len(column.levels) > 10 else "")
    raise ArgumentError("where", f": {column.name!r} never was {value!r} in the training data; it has {known}")


def check_condition(schema: Schema, condition: Any) -> str | None:
    """The name of the column that a model is to be conditional on. Raises ``ValueError`` for one that cannot be."""
    if condition is None:
        return None
    checks.choice("condition", condition, schema.names)
    column = schema[condition]
    if column.continuous is not None or column.rare:
        raise ArgumentError("condition", f"must be a column of few values, but {condition!r} has {column.kind} values")
    return str(condition)

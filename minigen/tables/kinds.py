"""What a column is: numeric, integer, category, boolean or date, found from its values or as the user says."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from minigen.errors import ArgumentError
from minigen.tables.reading import BOOL, DATE, NUMBER, TEXT, Raw, parsed_dates

NUMERIC, INTEGER, CATEGORY, BOOLEAN, DAY = "numeric", "integer", "category", "boolean", "date"
KINDS = (NUMERIC, INTEGER, CATEGORY, BOOLEAN, DAY)
LIKE_IDS = 50  # a text column with more different values than this, and than half of its rows, names its rows
ISO = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d)?)?$")
MOST_DECIMALS = 10


@dataclass(frozen=True, eq=False)
class Typed:
    """A column as numbers or labels: ``values`` of the rows that have one, float64 (dates in microseconds since 1970)
    for ``numeric``, ``integer`` and ``date``, objects else. ``unit`` of dates, with ``text`` the form of those that are
    written; ``decimals`` of numbers."""

    raw: Raw
    kind: str
    values: np.ndarray
    decimals: int | None = None
    unit: str | None = None
    text: str | None = None


def typed(raw: Raw, kind: str | None) -> Typed:
    """The column as ``kind``, or as what it looks like. Raises ``ValueError`` where it cannot be that, and for texts
    that are nearly all different."""
    if kind is None:
        kind = _found(raw)
    if kind == CATEGORY:
        return Typed(raw, kind, _labels(raw))
    if kind == BOOLEAN:
        return _boolean(raw)
    if kind == DAY:
        return _date(raw)
    values = _numbers(raw)
    if kind == INTEGER:
        if (values != np.rint(values)).any():
            raise ArgumentError("types", f": column {raw.name!r} is no integer column: it holds {_fraction(values)}")
        return Typed(raw, kind, values, decimals=0)
    return Typed(raw, kind, values, decimals=decimals(values, raw.stored))


def _found(raw: Raw) -> str:
    if raw.family == BOOL:
        return BOOLEAN
    if raw.family == DATE:
        return DAY
    if raw.categories is not None:
        return CATEGORY
    if raw.family == NUMBER:
        return INTEGER if (raw.values == np.rint(raw.values)).all() else NUMERIC
    if all(ISO.match(text.strip()) for text in raw.values):
        return DAY
    different = len(set(raw.values))
    if different > max(LIKE_IDS, len(raw.values) // 2):
        raise ArgumentError(
            "X",
            f": column {raw.name!r} has {different} different texts in {len(raw.values)} rows, such as "
            f"{raw.values[0]!r}: names or free text, which no model of tables can learn. Leave it out, or take "
            f"it as it is with types={{{raw.name!r}: 'category'}}",
        )
    return CATEGORY


def _labels(raw: Raw) -> np.ndarray:
    """Texts, or whatever else the column holds, as objects of Python."""
    values = raw.values.astype(str) if raw.family == DATE else raw.values
    return np.array([*values.tolist(), None], object)[:-1]


def _boolean(raw: Raw) -> Typed:
    if raw.family == BOOL:
        return Typed(raw, BOOLEAN, _labels(raw))
    different = sorted(set(raw.values.tolist()))
    if len(different) > 2:
        raise ArgumentError("types", f": column {raw.name!r} is no boolean: it has {len(different)} different values")
    return Typed(raw, BOOLEAN, _labels(raw))


def _date(raw: Raw) -> Typed:
    text = None
    if raw.family == DATE:
        values = raw.values
    elif raw.family == TEXT:
        values = parsed_dates(raw.name, raw.values)
        text = "T" if "T" in raw.values[0] else " "
    else:
        raise ArgumentError("types", f": column {raw.name!r} holds {raw.family}s, not dates")
    whole = values.astype(np.int64)
    units = (("D", 86_400_000_000), ("m", 60_000_000), ("s", 1_000_000), ("us", 1))
    unit = next(unit for unit, size in units if not (whole % size).any())
    return Typed(raw, DAY, whole.astype(np.float64), unit=unit, text=text)


def _numbers(raw: Raw) -> np.ndarray:
    if raw.family in (NUMBER, BOOL):
        return raw.values.astype(np.float64)
    try:
        values = np.array([float(text) for text in raw.values])
    except (ValueError, TypeError) as error:
        raise ArgumentError("types", f": column {raw.name!r} is not of numbers: {error}") from error
    if not np.isfinite(values).all():
        raise ArgumentError("types", f": column {raw.name!r} has numbers that are not finite")
    return values


def _fraction(values: np.ndarray) -> float:
    return float(values[values != np.rint(values)][0])


def decimals(values: np.ndarray, stored: str) -> int | None:
    """Digits after the point that all values can be written with; None where they have more than 10."""
    tolerance = 1e-6 if stored.lower() == "float32" else 1e-13
    for digits in range(MOST_DECIMALS + 1):
        if np.abs(np.round(values, digits) - values).max() <= tolerance * np.abs(values).max():
            return digits
    return None

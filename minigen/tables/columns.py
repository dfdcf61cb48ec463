"""A column as networks take it: a one-hot block of places, a continuous number, or both; and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minigen.errors import ArgumentError
from minigen.tables import continuous as of_numbers
from minigen.tables.continuous import Continuous, Modes, Quantiles
from minigen.tables.kinds import BOOLEAN, CATEGORY, DAY, KINDS, Typed
from minigen.tables.reading import BOOL, NUMBER, Raw

FEW = 20  # numbers with no more different values than this are places of a block, as categories are
FREQUENT = 0.05  # share of the rows that makes a value of a continuous column a place of its own
DAY_IN_US = {"D": 86_400_000_000, "m": 60_000_000, "s": 1_000_000, "us": 1}


@dataclass(frozen=True, eq=False)
class Column:
    """One column of the table.

    ``places`` of its block, in order: the rest (where there are a ``continuous`` part or ``rare`` categories), each of
    ``levels``, and missing (where ``missing``). With one place there is no block. ``continuous`` is of the values that
    are no level; ``rare``: the categories that share the rest, each drawn as often as in the data, ``rare_counts``.
    ``shares`` of the places in the data. ``widths`` are those of the blocks, 1 for a continuous number.
    """

    name: str
    kind: str
    raw: Raw = field(repr=False)  # without rows: name, family and stored type
    levels: tuple[Any, ...]
    missing: bool
    shares: tuple[float, ...]
    continuous: Continuous | None = None
    rare: tuple[Any, ...] = ()
    rare_counts: tuple[int, ...] = ()
    decimals: int | None = None
    unit: str | None = None
    text: str | None = None

    @property
    def rest(self) -> bool:
        return self.continuous is not None or bool(self.rare)

    @property
    def places(self) -> int:
        return self.rest + len(self.levels) + self.missing

    @property
    def widths(self) -> tuple[int, ...]:
        block = (self.places,) if self.places > 1 else ()
        if self.continuous is None:
            return block
        modes = self.continuous.modes
        return (*block, 1, *((modes,) if modes > 1 else ()))

    @property
    def width(self) -> int:
        return sum(self.widths)

    # --- to numbers ---------------------------------------------------------------------------------

    def place_of(self, column: Typed) -> np.ndarray:
        """The place of each row, ``int[N]``."""
        places = np.full(len(column.raw), self.places - 1)
        if self.kind in (CATEGORY, BOOLEAN):
            known = {level: i + self.rest for i, level in enumerate(self.levels)}
            found = np.array([known.get(value, 0) for value in column.values], int)
        else:
            levels = np.array(self.levels)
            found = np.zeros(len(column.values), int)
            for i, level in enumerate(levels):
                found[column.values == level] = i + self.rest
        places[~column.raw.missing] = found
        return places

    def encode(self, column: Typed, rows: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """``float32[len(rows), width]`` of these rows; ``places`` are those of all rows."""
        at = places[rows]
        parts = [np.eye(self.places, dtype=np.float32)[at]] if self.places > 1 else []
        if self.continuous is not None:
            anywhere = np.array([self.continuous.place(level) for level in self.levels])
            modes = self.continuous.modes
            number = np.zeros((len(rows), 1 + (modes if modes > 1 else 0)), np.float32)
            is_level = (at > 0) & (at <= len(self.levels))
            number[is_level, 0] = anywhere[at[is_level] - 1] if len(self.levels) else 0
            if modes > 1:
                number[:, 1] = 1
            among_values = np.cumsum(~column.raw.missing) - 1
            rest = at == 0
            encoded = self.continuous.encode(column.values[among_values[rows[rest]]], rng)
            number[rest] = encoded[:, : number.shape[1]]
            parts.append(number)
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(rows), 0), np.float32)

    # --- back -------------------------------------------------------------------------------------------

    def places_in(self, encoded: np.ndarray) -> np.ndarray:
        """The place of each row of ``encoded[n, width]``."""
        return encoded[:, : self.places].argmax(axis=1) if self.places > 1 else np.zeros(len(encoded), int)

    def number_in(self, encoded: np.ndarray) -> np.ndarray:
        """The part of a continuous column that is no place."""
        return encoded[:, self.places if self.places > 1 else 0 :]

    def decode(self, places: np.ndarray, number: np.ndarray | None, rng: np.random.Generator) -> Raw:
        """The column of the table, of rows at ``places`` with the continuous part ``number``."""
        missing = np.full(len(places), self.missing) & (places == self.places - 1)
        values = np.array([None] * self.rest + [*self.levels] + [None] * self.missing + [0], object)[:-1][places]
        rest = (places == 0) if self.rest else np.zeros(len(places), bool)
        if self.continuous is not None and number is not None:
            modes = self.continuous.modes
            if isinstance(self.continuous, Modes) and modes == 1:
                number = np.concatenate([number, np.ones_like(number)], axis=1)
            values[rest] = self.continuous.decode(number[rest])
        elif self.rare:
            shares = np.array(self.rare_counts) / sum(self.rare_counts)
            drawn = rng.choice(len(self.rare), rest.sum(), p=shares)
            values[rest] = np.array([*self.rare, None], object)[:-1][drawn]
        return replace(self.raw, values=self._as_stored(values, missing), missing=missing)

    def _as_stored(self, values: np.ndarray, missing: np.ndarray) -> np.ndarray:
        if self.kind in (CATEGORY, BOOLEAN):
            return _of_family(values, missing, self.raw)
        numbers = np.where(missing, 0, values).astype(np.float64)
        if self.kind == DAY:
            size = DAY_IN_US[self.unit or "us"]
            dates = (np.rint(numbers / size).astype(np.int64) * size).astype("datetime64[us]")
            return dates if self.text is None else _written(dates, self.unit or "us", self.text)
        if self.decimals is not None:
            numbers = np.round(numbers, self.decimals)
        if self.raw.stored.lower().startswith(("int", "uint")) or self.raw.values.dtype.kind == "i":
            return np.rint(numbers).astype(np.int64)
        if self.raw.family == BOOL:
            return numbers > 0.5
        if self.raw.family != NUMBER:  # numbers that were written as text
            return np.array([*(f"{x:.{self.decimals}f}" if self.decimals else repr(x) for x in numbers), None], object)[
                :-1
            ]
        return numbers

    # --- files and pictures ---------------------------------------------------------------------------

    def to_file(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON, and arrays beside it."""
        names = ("name", "kind", "levels", "missing", "shares", "rare", "rare_counts", "decimals", "unit", "text")
        said = {name: getattr(self, name) for name in names}
        raw = self.raw
        said |= {"family": raw.family, "stored": raw.stored, "whole": raw.values.dtype.kind == "i"}
        said |= {"categories": raw.categories, "ordered": raw.ordered}
        if self.continuous is None:
            return {**said, "continuous": None}, {}
        how, arrays = self.continuous.to_file()
        return {**said, "continuous": how}, arrays

    @classmethod
    def from_file(cls, said: dict[str, Any], arrays: dict[str, np.ndarray]) -> Column:
        """Raises KeyError, TypeError or ValueError where a file says what cannot be."""
        if said["kind"] not in KINDS or not isinstance(said["name"], str):
            raise ValueError(f"columns must be of a known kind, not {said['kind']!r}")
        categories = None if said["categories"] is None else tuple(said["categories"])
        nothing = np.zeros(0, np.int64 if said["whole"] else np.float64)
        raw = Raw(said["name"], said["family"], nothing, np.zeros(0, bool), said["stored"], categories, said["ordered"])
        how = said["continuous"]
        made = cls(
            said["name"],
            said["kind"],
            raw,
            tuple(said["levels"]),
            bool(said["missing"]),
            tuple(map(float, said["shares"])),
            None if how is None else of_numbers.from_file(how, arrays),
            tuple(said["rare"]),
            tuple(said["rare_counts"]),
            said["decimals"],
            said["unit"],
            said["text"],
        )
        if len(made.shares) != made.places or len(made.rare) != len(made.rare_counts):
            raise ValueError(f"column {made.name!r} must have a share for each of its {made.places} places")
        return made

    def described(self) -> tuple[str, str, str]:
        """Name, kind, and in words what values there are."""
        if self.continuous is not None:
            ends = np.array([self._as_text(end) for end in _ends(self)])
            what = f"{ends[0]} to {ends[1]}"
            if self.levels:
                what += f"; often {', '.join(self._as_text(level) for level in self.levels[:3])}"
        else:
            values = [*self.levels, *self.rare]
            shown = ", ".join(self._as_text(value) for value in values[:3])
            what = f"always {shown}" if len(values) == 1 else f"{len(values)} values: {shown}"
            what += ", ..." if len(values) > 3 else ""
        if self.missing:
            what += f"; {100 * self.shares[-1]:.1f} % missing"
        return self.name, self.kind, what

    def _as_text(self, value: Any) -> str:
        if self.kind in (CATEGORY, BOOLEAN):
            return str(value)
        made = self._as_stored(np.array([value], object), np.zeros(1, bool))[0]
        return str(made) if self.kind != DAY or self.text else str(made.astype(f"datetime64[{self.unit or 'us'}]"))


def _ends(column: Column) -> tuple[float, float]:
    values = column.continuous
    low, high = (values.low, values.high) if isinstance(values, Modes) else (values.values[0], values.values[-1])  # type: ignore[union-attr]
    return min(low, *column.levels, low), max(high, *column.levels, high)


def _of_family(values: np.ndarray, missing: np.ndarray, raw: Raw) -> np.ndarray:
    """Objects as the array that the column had; what is missing is any of them."""
    if raw.family == BOOL:
        return np.where(missing, False, values).astype(bool)
    if raw.family == NUMBER and raw.categories is None:
        return np.where(missing, 0, values).astype(np.int64 if raw.values.dtype.kind == "i" else np.float64)
    return values


def _written(dates: np.ndarray, unit: str, text: str) -> np.ndarray:
    if unit == "D":
        return np.datetime_as_string(dates, "D").astype(object)
    written = np.datetime_as_string(dates, "us" if unit == "us" else "s")
    return np.array([*(one.replace("T", text) for one in written), None], object)[:-1]


# --- from data ------------------------------------------------------------------------------------------


def measure(column: Typed, *, continuous: str, most_categories: int, rng: np.random.Generator) -> Column:
    """The column of the training data, by its values."""
    raw = replace(column.raw, values=column.raw.values[:0], missing=column.raw.missing[:0])
    if column.kind in (CATEGORY, BOOLEAN):
        counts: dict[Any, int] = {}
        for value in column.values:
            counts[value] = counts.get(value, 0) + 1
        found, often = list(counts), np.array([*counts.values()])
    else:
        values, often = np.unique(column.values, return_counts=True)
        found = values.tolist()
    missing = int(column.raw.missing.sum())
    levels, rare, number = _split(column, found, often, most_categories)
    part: Continuous | None = None
    if number is not None:
        part = Quantiles.measure(number) if continuous == "quantiles" else Modes.measure(number, rng)
    by_value = dict(zip(found, often.tolist(), strict=True))
    counted = [by_value[level] for level in levels]
    rest = len(column.values) - sum(counted)
    every = [rest] * (part is not None or bool(rare)) + counted + [missing] * bool(missing)
    shares = tuple(count / len(column.raw) for count in every)
    rare_counts = tuple(by_value[value] for value in rare)
    return Column(
        column.raw.name,
        column.kind,
        raw,
        levels,
        bool(missing),
        shares,
        part,
        rare,
        rare_counts,
        column.decimals,
        column.unit,
        column.text,
    )


def _split(
    column: Typed, found: list[Any], often: np.ndarray, most: int
) -> tuple[tuple[Any, ...], tuple[Any, ...], np.ndarray | None]:
    """Which values are levels, which are rare categories, and those of the continuous part, if there is one."""
    if column.kind in (CATEGORY, BOOLEAN):
        order = np.argsort(-often, kind="stable")
        if len(found) <= most:
            return tuple(sorted(found, key=str)), (), None
        frequent = sorted((found[i] for i in order[: most - 1]), key=str)
        return tuple(frequent), tuple(found[i] for i in order[most - 1 :]), None
    if len(found) <= FEW:
        return tuple(found), (), None
    spikes = [value for value, count in zip(found, often, strict=True) if count >= FREQUENT * len(column.raw)]
    return tuple(spikes), (), column.values[~np.isin(column.values, spikes)]


def check_types(types: Any, names: Sequence[str]) -> dict[str, str]:
    """``types`` as users give them: a mapping of names of columns to kinds. Raises TypeError, ValueError."""
    if types is None:
        return {}
    if not isinstance(types, dict):
        raise ArgumentError("types", f"must be a dict of names of columns and {', '.join(KINDS)}, not {types!r}")
    for name, kind in types.items():
        if name not in names:
            raise ArgumentError("types", f"names a column {name!r} that is not in the table")
        if kind not in KINDS:
            raise ArgumentError("types", f"must be {', '.join(KINDS)}, not {kind!r} for column {name!r}")
    return types

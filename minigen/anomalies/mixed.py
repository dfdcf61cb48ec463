"""Tables of numbers, categories, dates and missing values as a detector's models see them.

A number is a column, and of one with missing values a block of two says beside it whether it is there. A category is
one-hot, with a last place for all that the training rows never had, so that it can be unusual. Unlike the columns of
:mod:`minigen.tables` nothing here is drawn: a row always looks the same, and so scores the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from minigen.datasets import frames
from minigen.errors import ArgumentError, ArgumentTypeError
from minigen.tables.columns import check_types
from minigen.tables.kinds import BOOLEAN, CATEGORY, DAY, NUMERIC, Typed, typed
from minigen.tables.reading import take_apart

DAY_IN_US = 86_400e6
MISSING = None  # the level of a category's missing values


def is_mixed(X: Any) -> bool:
    """Whether ``X`` is a DataFrame of more than numbers, or with missing ones."""
    if frames.library_of(X) is None:
        return False
    try:
        frames.frame_values("X", X)
    except (ArgumentError, ArgumentTypeError):
        return True
    return False


def read(X: Any, kinds: Any) -> list[Typed]:
    """The columns of a DataFrame, of the ``kinds`` that are given and else of those that they look like."""
    raws = take_apart(X, may_be_empty=True)[1]
    given = check_types(kinds, [raw.name for raw in raws])
    empty = np.zeros(0)
    return [
        typed(raw, given.get(raw.name)) if len(raw.values) else Typed(raw, given.get(raw.name, NUMERIC), empty)
        for raw in raws
    ]


@dataclass(frozen=True)
class Part:
    """One column: a number, with ``fill`` where it is missing, or the ``levels`` of a category, which are texts."""

    name: str
    kind: str
    missing: bool
    levels: tuple[str | None, ...] = ()
    fill: float = 0.0

    @property
    def is_category(self) -> bool:
        return self.kind == CATEGORY

    @property
    def widths(self) -> tuple[int, ...]:
        if self.is_category:
            return (len(self.levels) + 1,)
        return (1, 2) if self.missing else (1,)

    def encode(self, column: Typed) -> np.ndarray:
        """``float64[N, sum(widths)]``. Raises ``ValueError`` for numbers that are missing for the first time."""
        missing, there = column.raw.missing, ~column.raw.missing
        if self.is_category:
            known = {level: i for i, level in enumerate(self.levels)}
            places = np.full(len(missing), known.get(MISSING, len(known)))
            places[there] = [known.get(_text(value), len(known)) for value in column.values]
            return np.eye(len(known) + 1)[places]
        if missing.any() and not self.missing:
            raise ArgumentError(
                "X",
                f": column {self.name!r} has {missing.sum()} missing values, the first in row {missing.argmax()}, but "
                "had none in the training",
            )
        number = np.full(len(missing), self.fill)
        number[there] = _numbers(column)
        return np.column_stack([number, there, missing] if self.missing else [number])


def _text(value: Any) -> str:
    """A category's name: 1 and 1.0 are one, since a missing value makes floats of a column of integers."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    return str(value)


def _numbers(column: Typed) -> np.ndarray:
    """Dates in days."""
    return column.values / DAY_IN_US if column.kind == DAY else column.values


def _measured(column: Typed) -> Part:
    """The column as the training rows have it. Raises ``ValueError`` where they have no value."""
    name, missing = column.raw.name, bool(column.raw.missing.any())
    if not len(column.values):
        raise ArgumentError("X", f": column {name!r} has no values at all; leave it out")
    if column.kind in (CATEGORY, BOOLEAN):
        levels = sorted({_text(value) for value in column.values})
        return Part(name, CATEGORY, missing, (*levels, *([MISSING] if missing else [])))
    kind = DAY if column.kind == DAY else NUMERIC
    return Part(name, kind, missing, fill=float(np.median(_numbers(column))))


class MixedColumns:
    """What the columns of a table are, ``parts``, and where they are in encoded rows."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        starts = np.cumsum([0, *(sum(part.widths) for part in self.parts)])
        self.spans = [slice(a, b) for a, b in zip(starts[:-1], starts[1:], strict=True)]

    @classmethod
    def measure(cls, X: Any, types: Any) -> Self:
        """Those of the training rows. Raises as :meth:`minigen.TableVAE.fit` does."""
        return cls([_measured(column) for column in read(X, types)])

    @property
    def blocks(self) -> tuple[int, ...]:
        """Widths of the blocks of encoded rows, as a mixed likelihood takes them."""
        return tuple(width for part in self.parts for width in part.widths)

    @property
    def numbers(self) -> np.ndarray:
        """The encoded columns that are numbers, ``int[]``."""
        pairs = zip(self.parts, self.spans, strict=True)
        return np.array([span.start for part, span in pairs if not part.is_category], np.intp)

    def encode(self, X: Any) -> np.ndarray:
        """``float64[N, width]``. Raises ``TypeError`` or ``ValueError`` for a table of other columns."""
        found = read(X, {part.name: part.kind for part in self.parts})
        return np.concatenate([part.encode(column) for part, column in zip(self.parts, found, strict=True)], axis=1)

    def as_rows(self, encoded: np.ndarray) -> np.ndarray:
        """Means that a model has made, with a likeliest place in place of each block's probabilities."""
        made, at = encoded.copy(), 0
        for width in self.blocks:
            if width > 1:
                made[:, at : at + width] = np.eye(width)[encoded[:, at : at + width].argmax(axis=1)]
            at += width
        return made

    def to_file(self) -> list[dict[str, Any]]:
        return [asdict(part) for part in self.parts]

    @classmethod
    def from_file(cls, said: Any) -> Self:
        """Raises KeyError, TypeError or ValueError for what cannot be."""
        parts = [Part(**{**one, "levels": tuple(one["levels"])}) for one in said]
        for part in parts:
            if part.kind not in (CATEGORY, DAY, NUMERIC) or not isinstance(part.name, str):
                raise ValueError(f"parts must be of a known kind, not {part.kind!r}")
            if not np.isfinite(part.fill) or (part.is_category and not part.levels):
                raise ValueError(f"part {part.name!r} must have levels, or a finite number")
        return cls(parts)

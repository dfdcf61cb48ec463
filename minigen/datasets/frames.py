"""Tables whose columns have names: pandas' and polars' DataFrames, and what CSV and Parquet files hold.

Neither library is imported unless data came in one of its DataFrames.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from minigen.errors import ArgumentError, ArgumentTypeError

LIBRARIES = ("pandas", "polars")
NAMED = 5  # names that are listed


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Numbers in rows and columns, from a file: ``values[N, D]``, and the columns' names where the file has them.

    NumPy sees the numbers: ``np.asarray(table)`` is ``table.values``, not copied.
    """

    values: np.ndarray
    columns: tuple[str, ...] | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ``values``."""
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        named = "" if self.columns is None else f": {listed(self.columns)}"
        return f"Table({' x '.join(map(str, self.shape))} {self.values.dtype}{named})"


def listed(names: Sequence[str]) -> str:
    """The first names of columns, and how many more there are."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def library_of(data: Any) -> str | None:
    """``"pandas"`` or ``"polars"`` for a DataFrame of that library."""
    for library in LIBRARIES:
        frame = getattr(sys.modules.get(library), "DataFrame", None)
        if frame is not None and isinstance(data, frame):
            return library
    return None


def column_names(data: Any) -> np.ndarray | None:
    """The names of a table's columns, ``object[D]``; ``None`` for what has none, or has others than strings."""
    names = list(data.columns or ()) if isinstance(data, Table) else list(data.columns) if library_of(data) else []
    return np.array(names, dtype=object) if names and all(isinstance(name, str) for name in names) else None


def check_columns(name: str, data: Any, trained: Sequence[str] | None) -> None:
    """Raise ValueError unless the columns of the table ``data`` have the names ``trained``, in their order.

    Data without names, and models trained without, pass. The words are those that scikit-learn's checks look for.
    """
    names = column_names(data)
    if trained is None or names is None or list(names) == list(trained):
        return
    differences = []
    unseen, missing = sorted(set(names) - set(trained)), sorted(set(trained) - set(names))
    for reason, those in (("unseen at fit time", unseen), ("seen at fit time, yet now missing", missing)):
        if those:
            differences += [f"Feature names {reason}:", *(f"- {one}" for one in those[:NAMED])]
            differences += [f"- and {len(those) - NAMED} more"] * (len(those) > NAMED)
    if not differences:
        differences = ["Feature names must be in the same order as they were in fit."]
    lines = "\n".join(differences)
    raise ArgumentError(name, f": The feature names should match those that were passed during fit.\n{lines}\n")


def frame_values(name: str, frame: Any) -> np.ndarray:
    """The numbers of a DataFrame, ``[N, D]``: of the columns' dtype where all have the same, else float64.

    Raises ``TypeError`` naming the column, and the row, of what is no number, and ``ValueError`` where one is missing.
    """
    take = _pandas_column if library_of(frame) == "pandas" else _polars_column
    columns = [_numbers(name, label, take(frame, i)) for i, label in enumerate(frame.columns)]
    if not columns:
        return np.empty((len(frame), 0))
    dtypes = {column.dtype for column in columns}
    return np.stack(columns, axis=1, dtype=dtypes.pop() if len(dtypes) == 1 else np.float64)


def _pandas_column(frame: Any, i: int) -> np.ndarray:
    series = frame.iloc[:, i]
    if isinstance(series.dtype, np.dtype):
        return series.to_numpy()
    if series.dtype.kind in "biuf":  # pandas' own types, with a mark for missing values
        whole = not series.isna().any()
        return series.to_numpy(series.dtype.numpy_dtype) if whole else series.to_numpy(np.float64, na_value=np.nan)
    return series.to_numpy(object)


def _polars_column(frame: Any, i: int) -> np.ndarray:
    return frame.to_series(i).to_numpy()


def _numbers(name: str, label: Any, column: np.ndarray) -> np.ndarray:
    """``column`` as numbers that are there; Python's numbers as float64."""
    if column.dtype.kind not in "biufO":
        raise ArgumentTypeError(name, f": column {label!r} is {column.dtype}, not numbers; leave it out or encode it")
    if column.dtype == object:
        for row, value in enumerate(column):
            if not isinstance(value, (Real, np.bool_)) and value is not None:
                raise ArgumentTypeError(
                    name,
                    f": column {label!r} holds {value!r} in row {row}, which is not a number; leave "
                    "it out or encode it",
                )
        column = column.astype(np.float64)
    if column.dtype.kind == "f" and np.isnan(column).any():
        missing = np.isnan(column)
        raise ArgumentError(
            name,
            f"must be finite, but column {label!r} has {missing.sum()} missing values (NaN), the "
            f"first in row {missing.argmax()}; fill them or leave these rows out",
        )
    return column


def as_frame(rows: np.ndarray, library: str, names: Sequence[str] | None, index: Any = None) -> Any:
    """``rows[N, D]`` as a DataFrame of ``library``; ``rows`` where that is not installed."""
    try:
        frame = importlib.import_module(library).DataFrame
    except ImportError:
        return rows
    columns = None if names is None else list(names)
    return frame(rows, columns=columns, index=index) if library == "pandas" else frame(rows, schema=columns)


def with_index_of(data: Any, rows: Any) -> Any:
    """``rows``, made row by row of ``data``, with its index where both are pandas'."""
    if library_of(data) == library_of(rows) == "pandas":
        rows.index = data.index
    return rows


def without_names(rows: Any) -> Any:
    """``rows`` as an array, if they are a DataFrame."""
    return rows.to_numpy() if library_of(rows) else rows

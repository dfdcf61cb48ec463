"""A DataFrame taken apart into NumPy columns, and made again: pandas', or any that narwhals knows."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minigen.errors import ArgumentError, ArgumentTypeError

NUMBER, TEXT, BOOL, DATE = "number", "text", "bool", "date"
EXTRA = "pip install 'minigen-engine[tables]'"


@dataclass(frozen=True, eq=False)
class Raw:
    """A column as it came: ``values`` of the rows that have one (float64 or int64, ``object`` strings, bool, or
    datetime64[us]), where values are ``missing[N]``, and the DataFrame's own type, ``stored``, to give back, with the
    ``categories`` of pandas' categorical type and whether they are ``ordered``."""

    name: str
    family: str
    values: np.ndarray
    missing: np.ndarray
    stored: str
    categories: tuple[Any, ...] | None = None
    ordered: bool = False

    def __len__(self) -> int:
        return len(self.missing)


def narwhals() -> Any:
    try:
        import narwhals
    except ImportError as error:
        raise ImportError(f"tables need narwhals: {EXTRA}") from error
    return narwhals


def take_apart(data: Any, may_be_empty: bool = False) -> tuple[str, list[Raw]]:
    """The library of a DataFrame, and its columns; ``data`` may also be the path of a .csv or .parquet file.

    A column without values raises ``ValueError`` unless it ``may_be_empty``.

    Raises ``TypeError`` for what is no DataFrame and for columns of mixed or unknown kinds, ``ValueError`` for an empty
    table, names that are missing or not unique, and values that no model can take.
    """
    if isinstance(data, (str, os.PathLike)):
        data = read_file(data)
    nw = narwhals()
    try:
        _check_names(_names_of(data))
        frame = nw.from_native(data, eager_only=True)
    except TypeError as error:
        if isinstance(error, ArgumentTypeError):
            raise
        what = f"must be a DataFrame (pandas, polars, pyarrow, ...) or the path of a .csv file, not {type(data)}"
        raise ArgumentTypeError("X", what) from error
    rows, width = frame.shape
    if not width or not rows:
        raise ArgumentError("X", f"must have rows and columns; this table has {rows} rows and {width} columns")
    library = frame.implementation.value if hasattr(frame.implementation, "value") else str(frame.implementation)
    raws = [_raw(nw, frame, name, data) for name in frame.columns]
    return str(library).lower(), raws if may_be_empty else [_checked(raw) for raw in raws]


def _names_of(data: Any) -> list[Any]:
    """Of all that has named columns; narwhals itself says nothing of pandas' names that occur twice or are no text."""
    names = getattr(data, "column_names", None)  # pyarrow
    return list(getattr(data, "columns", ()) if names is None else names)


def _check_names(names: Iterable[Any]) -> None:
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str):
            if isinstance(name, (int, tuple, float)) or name is None:
                raise ArgumentTypeError("X", f"must have names of columns that are strings, not {name!r}")
            return  # no table at all
        if name in seen:
            raise ArgumentError("X", f"must have different names of columns, but {name!r} is there more than once")
        seen.add(name)


def _raw(nw: Any, frame: Any, name: str, data: Any) -> Raw:
    series = frame[name]
    stored = _stored(nw, series, data)
    missing = np.asarray(series.is_null().to_numpy(), bool)
    dtype = series.dtype
    if dtype.is_numeric() and dtype != nw.Decimal:
        values = series.filter(~series.is_null()).to_numpy()
        nan = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
        missing = missing.copy()
        missing[np.flatnonzero(~missing)[nan]] = True
        return Raw(name, NUMBER, _numbers(name, values[~nan]), missing, stored)
    there = series.filter(~series.is_null())
    if dtype == nw.Boolean:
        return Raw(name, BOOL, there.to_numpy().astype(bool), missing, stored)
    if dtype in (nw.Datetime, nw.Date):
        return Raw(name, DATE, _dates(name, there.to_list()), missing, stored)
    if dtype in (nw.Categorical, nw.Enum):
        raw = _of_objects(name, there.to_list(), missing, stored)
        native = series.to_native()
        if stored != "category":
            return raw
        return replace(raw, categories=tuple(native.cat.categories.tolist()), ordered=bool(native.cat.ordered))
    if dtype in (nw.String, nw.Object, nw.Unknown):
        return _of_objects(name, there.to_list(), missing, stored)
    raise ArgumentTypeError("X", f": column {name!r} is of type {dtype}, which no model takes; leave it out")


def _checked(raw: Raw) -> Raw:
    if raw.missing.all():
        raise ArgumentError("X", f": column {raw.name!r} has no values at all; leave it out")
    return raw


def _numbers(name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind in "iu":
        if values.dtype == np.uint64 and len(values) and values.max() > np.iinfo(np.int64).max:
            raise ArgumentError("X", f": column {name!r} has integers beyond 64 bits with a sign")
        return values.astype(np.int64)
    values = values.astype(np.float64)
    if np.isinf(values).any():
        raise ArgumentError(
            "X", f": column {name!r} has {np.isinf(values).sum()} infinite values; make them missing or leave them out"
        )
    return values


def _of_objects(name: str, values: list[Any], missing: np.ndarray, stored: str) -> Raw:
    """A column of Python's objects, all of one kind: strings, bools, numbers or dates."""
    nan = np.array([isinstance(value, float) and math.isnan(value) for value in values], bool)
    if nan.any():
        missing = missing.copy()
        missing[np.flatnonzero(~missing)[nan]] = True
        values = [value for value, is_nan in zip(values, nan, strict=True) if not is_nan]
    kinds = {_kind_of(value) for value in values}
    if len(kinds) > 1 or None in kinds:
        row_of_first: dict[Any, Any] = {}
        for value in values:
            row_of_first.setdefault(_kind_of(value) or type(value).__name__, value)
        examples = ", ".join(f"{value!r} ({type(value).__name__})" for value in list(row_of_first.values())[:3])
        raise ArgumentTypeError("X", f": column {name!r} must hold values of one kind, but holds {examples}")
    family = (kinds.pop() if kinds else None) or TEXT
    if family == NUMBER:
        array = _numbers(name, np.array(values))
    elif family == DATE:
        array = _dates(name, values)
    else:
        array = np.array(values, bool if family == BOOL else object)
    return Raw(name, family, array, missing, stored)


def _kind_of(value: Any) -> str | None:
    kinds = (
        (str, TEXT),
        ((bool, np.bool_), BOOL),
        ((int, float, np.integer, np.floating), NUMBER),
        ((datetime.date, np.datetime64), DATE),
    )
    return next((family for kind, family in kinds if isinstance(value, kind)), None)


def _dates(name: str, values: list[Any]) -> np.ndarray:
    """``datetime64[us]``, in UTC where they have a time zone."""
    try:
        plain = [
            value.astimezone(datetime.UTC).replace(tzinfo=None) if getattr(value, "tzinfo", None) else value
            for value in values
        ]
        dates = np.array(plain, dtype="datetime64[us]")
        years = dates.astype("datetime64[Y]").astype(int) + 1970
        if len(years) and not (1 <= years.min() and years.max() <= 9999):
            raise ValueError("years must be from 1 to 9999")
        return dates
    except (ValueError, OverflowError, TypeError) as error:
        raise ArgumentError("X", f": column {name!r} has a date out of range: {error}") from error


def parsed_dates(name: str, values: np.ndarray) -> np.ndarray:
    """ISO texts, such as 2024-02-29 or 2024-02-29 12:30:00, as ``datetime64[us]``. Raises ``ValueError`` that names one
    that is none, or out of range."""
    found = np.empty(len(values), "datetime64[us]")
    for i, text in enumerate(values):
        try:
            found[i] = np.datetime64(datetime.datetime.fromisoformat(text.strip()), "us")
        except ValueError as error:
            raise ArgumentError("X", f": column {name!r} has a date out of range, {text!r}: {error}") from error
    return found


def _stored(nw: Any, series: Any, data: Any) -> str:
    """The type of a column in its own library: pandas' by its name, others by that of narwhals."""
    if series.implementation.is_pandas():
        return str(series.to_native().dtype)
    return str(series.dtype)


def read_file(path: str | os.PathLike[str]) -> Any:
    """The table in a .csv (also .csv.gz) or .parquet file as pandas' DataFrame. Raises ``OSError``, and ``ValueError``
    naming the file where it holds no table."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError(f"{path}: pandas is needed to read tables: {EXTRA}") from error
    name = str(path)
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no table at {name}")
    try:
        if name.lower().endswith(".parquet"):
            return pandas.read_parquet(path)
        with_names = pandas.read_csv(path, skipinitialspace=True, header=None, nrows=1, sep=_separator(path), dtype=str)
        _check_names(with_names.iloc[0].fillna("").astype(str))
        return pandas.read_csv(path, skipinitialspace=True, sep=_separator(path))
    except (ValueError, UnicodeDecodeError, pandas.errors.ParserError) as error:
        raise ArgumentError("X", f": {name}: {error}") from error


def _separator(path: str | os.PathLike[str]) -> str:
    from minigen.datasets.tables import delimiter_of

    return delimiter_of(path) or r"\s+"


def put_together(library: str, columns: Iterable[Raw]) -> Any:
    """A DataFrame of ``library`` from columns whose ``values`` are those of all rows, with anything where one is
    missing."""
    if library == "pandas":
        return _pandas_frame(columns)
    nw = narwhals()
    series = {}
    for column in columns:
        values = [None if gone else value for value, gone in zip(column.values.tolist(), column.missing, strict=True)]
        dtype = _narwhals_type(nw, column.stored)
        if dtype == nw.Date:
            values = [None if value is None else value.date() for value in values]
        series[column.name] = nw.new_series(column.name, values, dtype, backend=library)
    return nw.from_dict(series, backend=library).to_native()


def _narwhals_type(nw: Any, stored: str) -> Any:
    if stored.startswith("Datetime"):
        unit = next((unit for unit in ("ns", "us", "ms") if f"'{unit}'" in stored), "us")
        zone = stored.partition("time_zone=")[2].rstrip(")").strip("'")
        return nw.Datetime(unit, None if zone in ("", "None") else zone)
    known = {name: getattr(nw, name) for name in ("Boolean", "String", "Categorical", "Date", "Float32", "Float64")}
    known |= {f"{sign}{bits}": getattr(nw, f"{sign}{bits}") for sign in ("Int", "UInt") for bits in (8, 16, 32, 64)}
    return known.get(stored, nw.String)


def _pandas_frame(columns: Iterable[Raw]) -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError(f"samples of a table come as pandas' DataFrame: {EXTRA}") from error
    return pandas.DataFrame({column.name: _pandas_series(pandas, column) for column in columns})


def _pandas_series(pandas: Any, column: Raw) -> Any:
    values, missing, stored = column.values, column.missing, column.stored
    if stored == "category":
        listed_values = [None if gone else value for value, gone in zip(values.tolist(), missing, strict=True)]
        return pandas.Series(pandas.Categorical(listed_values, categories=column.categories, ordered=column.ordered))
    if stored.startswith("datetime64"):
        series = pandas.Series(np.where(missing, np.datetime64("NaT", "us"), values))
        zoned = series.dt.tz_localize("UTC") if "," in stored else series
        return zoned.astype(stored)
    if stored.startswith("float"):
        return pandas.Series(np.where(missing, np.nan, values)).astype(stored)
    if not missing.any():
        return pandas.Series(values).astype(stored)
    objects = values.astype(object)
    objects[missing] = None
    return pandas.Series(objects, dtype=object).astype(stored)

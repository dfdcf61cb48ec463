"""Tables of numbers in text (CSV) and Parquet files."""

from __future__ import annotations

import csv
import gzip
import io
import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TextIO

import numpy as np

from minigen.datasets.frames import Table, listed
from minigen.datasets.idx import GZIP_MAGIC, StrPath

DELIMITERS = ("\t", ";", "|", ",", None)  # None: spaces. Earlier ones first: they seldom stand inside of a number
LEAST_SIDE = 8  # rows of whole numbers from 0 to 255 are pictures from 8 x 8 on


def read_csv(path: StrPath) -> Table:
    """The numbers in a text file of UTF-8, plain or gzip: a line a row, with a line of names before them or not.

    The cells are separated by tabs, semicolons, bars, commas or spaces, whichever the first lines have; quotes are
    those of CSV. The first line is one of names if any of its cells is not a number. The values are float64, or
    uint8 where they look like grey pictures: whole numbers from 0 to 255 in a square number of columns, 64 or more.

    Raises ``ValueError`` naming the file, and line and column where a cell is empty, not a number, or one too many;
    ``OSError`` where the file cannot be read.
    """
    with _told(path):
        delimiter, first, first_line = _first_line(path)
        names = None if all(_is_number(cell) for cell in first) else tuple(cell.strip() for cell in first)
        return Table(_pixels(_values(path, delimiter, names, first_line)), names)


def labelled_csv(path: StrPath, column: str) -> tuple[Table, np.ndarray]:
    """The table in a text file, as :func:`read_csv` reads it, without ``column``, and the labels in that one, ``[N]``:
    integers, or strings where not all of them are such. Raises as that does, and where there is no such column."""
    with _told(path):
        delimiter, first, _ = _first_line(path)
        names = [cell.strip() for cell in first]
        at, others = _place(column, names)
        with _opened(path) as text:
            _, *rows = _rows(text, delimiter)
        if not rows:
            raise ValueError("there are no rows below the names of the columns")
        for line, cells in rows:
            if len(cells) != len(names):
                raise ValueError(f"line {line} has {len(cells)} cells, not {len(names)} as the line of names")
        values = np.array([[_number(cells[i], line, i, tuple(names)) for i in others] for line, cells in rows])
        labels = _as_labels([cells[at] for _, cells in rows])
        return Table(_pixels(values), tuple(names[i] for i in others)), labels


def delimiter_of(path: StrPath) -> str | None:
    """What separates the cells in a text file, by its first lines; None for spaces. Raises as :func:`read_csv` does."""
    with _told(path):
        return _first_line(path)[0]


def text_labels(path: StrPath) -> np.ndarray:
    """A label a line: ``[N]`` integers, or strings where not all of them are such. Raises as :func:`read_csv` does."""
    with _told(path), _opened(path) as text:
        return _as_labels([line for _, line in _lines(text)])


def _place(column: str, names: list[str]) -> tuple[int, list[int]]:
    """The number of a column, and those of the others."""
    if column not in names:
        raise ValueError(f"there is no column {column!r} for the labels among {listed(names)}")
    at = names.index(column)
    others = [i for i in range(len(names)) if i != at]
    if not others:
        raise ValueError(f"there are no columns beside that of the labels, {column!r}")
    return at, others


def _as_labels(cells: list[str]) -> np.ndarray:
    cells = [cell.strip().strip('"') for cell in cells]
    if "" in cells:
        raise ValueError(f"row {cells.index('') + 1} has no label")
    try:
        return np.array([int(cell) for cell in cells])
    except ValueError:
        return np.array(cells)


@contextmanager
def _told(path: StrPath) -> Iterator[None]:
    """Errors name the file."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: it is not text in UTF-8: {error}") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file: {error}") from error
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from error


@contextmanager
def _opened(path: StrPath) -> Iterator[TextIO]:
    with open(path, "rb") as file:
        packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        binary: Any = gzip.GzipFile(fileobj=file) if packed else file
        with io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text:
            yield text


def _lines(text: TextIO) -> Iterator[tuple[int, str]]:
    """Each line that is not blank, with its number; in quotes a line goes on in the next."""
    whole = ""
    for number, line in enumerate(text, 1):
        whole += line
        if whole.count('"') % 2 == 0:
            if whole.strip():
                yield number, whole.strip("\r\n")
            whole = ""
    if whole.strip():
        yield number, whole.strip("\r\n")


def _cells(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    if delimiter not in line:
        return [line]
    return next(csv.reader(line.splitlines(keepends=True), delimiter=delimiter, skipinitialspace=True))


def _first_line(path: StrPath) -> tuple[str | None, list[str], int]:
    """The delimiter; the cells of the first line that is not blank, and its number."""
    with _opened(path) as text:
        lines = list(islice(_lines(text), 2))
    if not lines:
        raise ValueError("the file is empty")
    split = {delimiter: [_cells(line, delimiter) for _, line in lines] for delimiter in DELIMITERS}
    several = [delimiter for delimiter in DELIMITERS if len(split[delimiter][0]) > 1]
    agreeing = [delimiter for delimiter in several if len({len(cells) for cells in split[delimiter]}) == 1]
    delimiter = (agreeing or several or [","])[0]
    return delimiter, split[delimiter][0], lines[0][0]


def _values(path: StrPath, delimiter: str | None, names: tuple[str, ...] | None, first_line: int) -> np.ndarray:
    if names is not None and "" in names:
        raise ValueError(
            f"column {names.index('') + 1} has no name in line {first_line}; if it numbers the rows, "
            "leave it out (pandas: to_csv(..., index=False))"
        )
    values = _by_numpy(path, delimiter, 0 if names is None else first_line)
    if values is not None and len(values) and (names is None or len(names) == values.shape[1]):
        return values
    return _cell_by_cell(path, delimiter, names)


def _by_numpy(path: StrPath, delimiter: str | None, skipped: int) -> np.ndarray | None:
    """By NumPy's reader, many times as fast; ``None`` for what it refuses: our own reader says what is wrong."""
    with _opened(path) as text, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no rows: _cell_by_cell says so
        try:
            return np.loadtxt(text, delimiter=delimiter, skiprows=skipped, comments=None, quotechar='"', ndmin=2)
        except ValueError:
            return None


def _cell_by_cell(path: StrPath, delimiter: str | None, names: tuple[str, ...] | None) -> np.ndarray:
    """The same, with an error for the first cell that is no number and the first line of another length."""
    with _opened(path) as text:
        rows = _rows(text, delimiter)
        _, first = next(rows) if names is not None else (0, [])
        values: list[np.ndarray] = []
        for number, cells in rows:
            width = len(first) or (len(values[0]) if values else len(cells))
            if len(cells) != width:
                raise ValueError(f"line {number} has {len(cells)} cells, not {width} as the lines before")
            values.append(np.array([_number(cell, number, i, names) for i, cell in enumerate(cells)]))
    if not values:
        raise ValueError("there are no rows below the names of the columns")
    return np.stack(values)


def _rows(text: TextIO, delimiter: str | None) -> Iterator[tuple[int, list[str]]]:
    """The cells of each line that is not blank, with the number of the line where they end."""
    if delimiter is None:
        yield from ((number, line.split()) for number, line in enumerate(text, 1) if line.strip())
        return
    reader = csv.reader(text, delimiter=delimiter, skipinitialspace=True)
    yield from ((reader.line_num, cells) for cells in reader if len(cells) > 1 or "".join(cells).strip())


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python takes 1_000; NumPy and other readers do not


def _number(cell: str, line: int, i: int, names: tuple[str, ...] | None) -> float:
    if _is_number(cell):
        return float(cell)
    column = f"column {i + 1}" + (f" ({names[i]!r})" if names else "")
    if not cell.strip():
        raise ValueError(f"line {line}, {column}: the cell is empty; fill in missing values or leave such rows out")
    hint = "write numbers with a point" if _is_number(cell.replace(",", ".")) else "leave the column out or encode it"
    raise ValueError(f"line {line}, {column}: {cell!r} is not a number; {hint}")


def _pixels(values: np.ndarray) -> np.ndarray:
    """``values`` as uint8 where they look like grey pictures, see :func:`read_csv`."""
    side = math.isqrt(values.shape[1])
    square = side >= LEAST_SIDE and side * side == values.shape[1]
    if square and values.min() >= 0 and values.max() <= 255 and (values == np.rint(values)).all():
        return values.astype(np.uint8)
    return values


def read_parquet(path: StrPath) -> Table:
    """The numbers in a Parquet file, ``[N, D]``: of the columns' dtype where all have the same, else float64.

    A row index that pandas stored is left out. Raises ``ImportError`` without pyarrow; ``ValueError`` naming the file
    when it is damaged, and the column that is not of numbers or has missing values; ``OSError`` where the file cannot
    be read.
    """
    return _of_arrow(path, _arrow_table(path))


def labelled_parquet(path: StrPath, column: str) -> tuple[Table, np.ndarray]:
    """The table in a Parquet file without ``column``, and the labels in that one, ``[N]``, integers or strings. Raises
    as :func:`read_parquet` does, and where there is no such column."""
    table = _arrow_table(path)
    with _told(path):
        _place(column, table.column_names)
        if table[column].null_count:
            raise ValueError(f"column {column!r} has {table[column].null_count} rows without a label")
        labels = np.array(table[column].to_pylist())
    return _of_arrow(path, table.drop_columns([column])), labels


def _arrow_table(path: StrPath) -> Any:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ImportError(f"{path}: pyarrow is needed to read Parquet files: pip install pyarrow") from error
    with open(path, "rb") as file:
        try:
            table = parquet.read_table(file)
        except (arrow.ArrowException, OSError) as error:
            raise ValueError(f"{path}: not a usable Parquet file: {error}") from error
    index = (table.schema.pandas_metadata or {}).get("index_columns", [])
    return table.drop_columns([name for name in index if isinstance(name, str)])


def _of_arrow(path: StrPath, table: Any) -> Table:
    try:
        columns = [_arrow_numbers(name, column) for name, column in zip(table.column_names, table.columns, strict=True)]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    dtypes = {column.dtype for column in columns}
    if not columns:
        raise ValueError(f"{path}: there are no columns")
    values = np.stack(columns, axis=1, dtype=dtypes.pop() if len(dtypes) == 1 else np.float64)
    return Table(values, tuple(table.column_names))


def _arrow_numbers(name: str, column: Any) -> np.ndarray:
    values = column.to_numpy()
    if values.dtype.kind in "biuf" and not column.null_count:
        return values
    if column.null_count:
        row = column.is_null().to_numpy().argmax()
        raise ValueError(
            f"column {name!r} has {column.null_count} missing values, the first in row {row}; fill them "
            "or leave these rows out"
        )
    raise ValueError(f"column {name!r} is {column.type}, not numbers; leave it out or encode it")

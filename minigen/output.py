"""What the command line writes of samples: a picture, a table or an array."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minigen import checks, plotting
from minigen.estimators.scaling import RANGES
from minigen.files import write_atomically

ITEM_FILES = (".png", ".csv", ".npy")
LEAST_SIDE = 8  # shorter flat rows are taken for tables, although 4, 9 or 16 columns could be squares


def natural_suffix(model: Any) -> str:
    """The kind of file that suits the samples of ``model``: ``.png`` for pictures, else ``.csv``, or ``.npy`` for items
    of several dimensions."""
    shape = model.item_shape_
    if plotting.picture_shape(shape) is not None and (len(shape) > 1 or _flat_pictures(model)):
        return ".png"
    return ".csv" if len(shape) == 1 else ".npy"


def _flat_pictures(model: Any) -> bool:
    """Whether flat rows of a square number of values are to be seen as pictures."""
    bounded = model.data_dtype_ == np.uint8 or math.isfinite(_reach(model)[0])
    return bounded and math.isqrt(model.item_shape_[0]) >= LEAST_SIDE


def _reach(model: Any) -> tuple[float, float]:
    """The values that samples of ``model`` can have where they are no grey levels."""
    if model.binary_:
        return 0.0, 1.0
    if model.kind == "gan":
        return RANGES[model.output_]
    return (0.0, 1.0) if model.likelihood == "bernoulli" else (-math.inf, math.inf)


def check_item_file(path: Path, model: Any) -> None:
    """Raise ``ValueError`` when ``path`` has an ending that items of ``model`` cannot be written with, and ``OSError``
    when it cannot be written."""
    checks.choice("the ending of --out", path.suffix.lower(), ITEM_FILES)
    if path.suffix.lower() == ".png" and plotting.picture_shape(model.item_shape_) is None:
        raise ValueError(f"--out: items of shape {model.item_shape_} are no pictures; write .csv or .npy")
    if path.is_dir():
        raise ValueError(f"--out: {path} is a folder")
    checks.writable_folder("--out", path.parent)


def write_items(path: Path, model: Any, *columns: Any, across: int | None = None) -> None:
    """Write items of ``model``, ``[n, ...]``: a grid (``.png``), a line an item (``.csv``) or the array (``.npy``).

    Several arrays of ``n`` items (originals, reconstructions) go side by side, in ``.npy`` as ``[n, arrays, ...]``.
    A table begins with the names of the columns, ``x0``, ``x1``, ... where the training data had none. ``across`` is
    the number of items in a line of the grid.
    """
    columns = tuple(map(np.asarray, columns))
    suffix = path.suffix.lower()
    if suffix == ".png":
        plotting.save_png(picture(model, columns, across), path)
    elif suffix == ".csv":
        write_atomically(path, _csv(columns, model._column_names()).encode())
    else:
        memory = io.BytesIO()
        np.save(memory, columns[0] if len(columns) == 1 else np.stack(columns, axis=1))
        write_atomically(path, memory.getvalue())


def write_samples(
    path: Path, model: Any, n: int, seed: int, label: Any = None, across: int | None = None, **how: Any
) -> int:
    """Draw ``n`` samples, of one ``label`` if that is given, and write them; how many they have become.

    Where there are labels a picture has a row for each, of about ``n`` samples in all. ``how`` is what else ``sample``
    is told.
    """
    if path.suffix.lower() == ".png":
        items, across = model._grid(n, seed, label, across, **how)
    else:
        items = model.sample(n, seed, **({} if label is None else {"y": label}), **how)
    write_items(path, model, items, across=across)
    return len(items)


def picture(model: Any, columns: tuple[np.ndarray, ...], across: int | None = None) -> np.ndarray:
    """The grid that :func:`write_items` draws, in pixels."""
    if model.binary_:  # ones are white
        columns = tuple(column.astype(np.float32) for column in columns)
    tiles = [plotting.as_pictures(column) for column in columns]
    pictures = np.concatenate(tiles, axis=2)
    if across is None:  # about square, although a tile is as many pictures wide as there are columns
        across = math.ceil(math.sqrt(len(pictures) / len(tiles)))
    reach = _reach(model)
    bounded = pictures.dtype != np.uint8 and math.isfinite(reach[0])
    shades = plotting.shades(pictures, reach if bounded else None)
    return plotting.grid(shades, across, scale=plotting.enlargement(tiles[0].shape[1:3]))


def _csv(columns: tuple[np.ndarray, ...], names: Sequence[str] | None) -> str:
    """A line of names and a line an item; reconstructions, the second array, are named ``r0``, or ``r_`` and a name."""
    table = np.concatenate([column.reshape(len(column), -1) for column in columns], axis=1)
    if names is None:
        numbers = range(table.shape[1] // len(columns))
        header = [f"{letter}{i}" for letter in "xr"[: len(columns)] for i in numbers]
    else:
        header = [f"{prefix}{name}" for prefix in ("", "r_")[: len(columns)] for name in names]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(header)
    np.savetxt(text, table, "%d" if table.dtype.kind in "biu" else "%.9g", ",")
    return text.getvalue()


def spread(n: int, total: int) -> np.ndarray:
    """``n`` row numbers, at most ``total``, evenly spread: data are often sorted by class."""
    return np.linspace(0, total - 1, min(n, total)).round().astype(int)

"""What the command line writes: samples as a picture or a table, and the folder of a training run."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minigen import checks, plotting
from minigen.estimators.gan import RANGES
from minigen.files import write_atomically

MODEL = "model.safetensors"
RUN_FILES = (MODEL, "history.csv", "losses.png", "samples.*", "samples-epoch-*.*", "reconstructions.*")
"""What a training writes into its folder."""

ITEM_FILES = (".png", ".csv", ".npy")
LEAST_SIDE = 8  # shorter flat rows are taken for tables, although 4, 9 or 16 columns could be squares
TILE = 64  # smaller pictures are enlarged to about this many pixels


# --- samples ------------------------------------------------------------------------------------


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


def write_items(path: Path, model: Any, *columns: np.ndarray, across: int | None = None) -> None:
    """Write items of ``model``, ``[n, ...]``: a grid (``.png``), a line an item (``.csv``) or the array (``.npy``).

    Several arrays of ``n`` items (originals, reconstructions) go side by side, in ``.npy`` as ``[n, arrays, ...]``.
    ``across`` is the number of items in a line of the grid.
    """
    suffix = path.suffix.lower()
    if suffix == ".png":
        plotting.save_png(_picture(model, columns, across), path)
    elif suffix == ".csv":
        write_atomically(path, _csv(columns).encode())
    else:
        memory = io.BytesIO()
        np.save(memory, columns[0] if len(columns) == 1 else np.stack(columns, axis=1))
        write_atomically(path, memory.getvalue())


def _picture(model: Any, columns: tuple[np.ndarray, ...], across: int | None) -> np.ndarray:
    if model.binary_:  # ones are white
        columns = tuple(column.astype(np.float32) for column in columns)
    tiles = [plotting.as_pictures(column) for column in columns]
    pictures = np.concatenate(tiles, axis=2)
    if across is None:  # about square, although a tile is as many pictures wide as there are columns
        across = math.ceil(math.sqrt(len(pictures) / len(tiles)))
    low, high = _reach(model)
    if not math.isfinite(low):  # any value goes: the lowest in the picture is black, the highest white
        low, high = float(pictures.min()), float(pictures.max())
        high = high if high > low else low + 1
    scale = max(1, TILE // max(tiles[0].shape[1:3]))
    return plotting.grid(pictures, across, value_range=(low, high), scale=scale)


def _csv(columns: tuple[np.ndarray, ...]) -> str:
    table = np.concatenate([column.reshape(len(column), -1) for column in columns], axis=1)
    width = table.shape[1] // len(columns)
    names = [f"{letter}{i}" for letter in "xr"[: len(columns)] for i in range(width)]
    text = io.StringIO()
    np.savetxt(text, table, "%d" if table.dtype.kind in "biu" else "%.9g", ",", header=",".join(names), comments="")
    return text.getvalue()


def spread(n: int, total: int) -> np.ndarray:
    """``n`` row numbers, at most ``total``, evenly spread: data are often sorted by class."""
    return np.linspace(0, total - 1, min(n, total)).round().astype(int)


# --- the folder of a run --------------------------------------------------------------------------


def run_folder(kind: str, out: Path | None, *, resume: Path | None, force: bool) -> Path:
    """The folder that a training of ``kind`` writes into; nothing is created or removed yet.

    ``out`` is what the user asked for; by default ``runs/kind``, or the first of ``runs/kind-2``, ... that holds no
    run. A training that goes on from a folder's own model may write there again; any other run is replaced only with
    ``force``. Raises ``ValueError``.
    """
    if resume is not None and continues(out, resume):
        return resume.parent
    if out is None:
        base = Path("runs") / kind
        return base if force else next(folder for folder in _numbered(base) if not run_files(folder))
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: {out} is no folder")
    if run_files(out) and not force:
        raise ValueError(f"--out: {out} holds a run already; choose another folder, or --force to replace that run")
    return out


def continues(out: Path | None, resume: Path | None) -> bool:
    """Whether a training goes on in the folder whose own model it begins with."""
    if resume is None or resume.name != MODEL:
        return False
    return out is None or out.resolve() == resume.parent.resolve()


def _numbered(base: Path) -> Iterator[Path]:
    yield base
    n = 2
    while True:
        yield base.with_name(f"{base.name}-{n}")
        n += 1


def run_files(folder: Path) -> list[Path]:
    """The files of an earlier run in ``folder``."""
    return sorted(path for pattern in RUN_FILES for path in folder.glob(pattern) if path.is_file())

"""Labels of data for the command line: a data set's own, a column of its table, or a file of one label a row."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from minigen.datasets.dataset import Dataset
from minigen.datasets.load import TEXTS, load_file, resolve
from minigen.datasets.tables import labelled_csv, labelled_parquet, text_labels
from minigen.errors import ArgumentError
from minigen.paths import user_path

OWN = "own"


def resolve_labelled(data: str, labels: str) -> tuple[Any, np.ndarray]:
    """The data behind ``data``, as :func:`minigen.datasets.resolve` has it, and the label of each of its rows, ``[N]``.

    ``labels`` is ``"own"`` for those of a data set; the name of a column of a table, which then is no part of the data;
    or a file with one label a row: ``.npy``, IDX, or text with a label a line. Labels are integers or strings. Raises
    ``ValueError`` where there are no such labels, or not one for each row.
    """
    if labels == OWN:
        items = resolve(data)
        if not isinstance(items, Dataset):
            raise ArgumentError("labels", f": {data} has no labels of its own; name a column or a file of labels")
        return items, items.labels
    if not os.path.isfile(user_path(labels)):
        return _column(data, labels)
    items, found = resolve(data), _file(user_path(labels))
    if len(found) != len(items):
        raise ArgumentError("labels", f"must be one for each of the {len(items)} rows of {data}, not {len(found)}")
    return items, found


def _ending(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").rpartition(".")[2]


def _column(data: str, name: str) -> tuple[Any, np.ndarray]:
    ending = _ending(Path(data))
    if not os.path.isfile(os.path.expanduser(data)) or ending not in (*TEXTS, "parquet"):
        raise ArgumentError(
            "labels",
            f"must be {OWN!r} (those of a data set), a column of a table or a file, not {name!r}: there is no such "
            f"file, and {data} is no .csv or .parquet file",
        )
    return (labelled_parquet if ending == "parquet" else labelled_csv)(user_path(data), name)


def _file(path: Path) -> np.ndarray:
    if _ending(path) in TEXTS:
        return text_labels(path)
    try:
        # Text in a .npy file is no numbers, which is all that load_file takes; objects are never loaded.
        found = np.load(path, allow_pickle=False) if path.suffix.lower() == ".npy" else np.asarray(load_file(path))
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: {error}") from error
    if found.ndim != 1:
        raise ArgumentError("labels", f"must be one a row, [N], but {path} holds an array of shape {found.shape}")
    return found

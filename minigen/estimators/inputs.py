"""Data for a model that is trained already: the same items as in its training, in the same type."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigen.backend import Array
from minigen.errors import ArgumentError, ArgumentTypeError


def check_items(model: Any, name: str, item_shape: tuple[int, ...]) -> None:
    """Raise ValueError unless ``item_shape`` is that of the training data.

    A flat item stands for one of several dimensions and the other way round: a model of ``[N, 28, 28]`` takes
    ``[N, 784]`` too, in C order.
    """
    trained, features, wanted = model.item_shape_, math.prod(item_shape), math.prod(model.item_shape_)
    flat = 1 in (len(item_shape), len(trained))
    if item_shape != trained and not (flat and features == wanted):
        raise ArgumentError(
            name,
            f"must have items of shape {trained}, not {item_shape}: {name} has {features} "
            f"features, but {type(model).__name__} is expecting {wanted} features as input",
        )


def in_trained_type(model: Any, name: str, X: Any, rows: Array) -> Array:
    """``rows``, which were made of ``X``, in the type of the training data, uint8 or float32.

    A model of uint8 takes other whole numbers from 0 to 255, in lists too. Raises ValueError for those out of that
    range, and TypeError where one is floating and the other uint8: whether 1 is white or nearly black, only the caller
    knows.
    """
    trained = model.data_dtype_
    if rows.dtype == trained:
        return rows
    dtype = getattr(X, "dtype", None)
    if not isinstance(dtype, np.dtype):  # a list, a table, another library's array
        dtype = np.asarray(X).dtype if isinstance(rows, np.ndarray) else rows.dtype
    if trained == np.uint8 and dtype.kind in "biu":
        least, most = float(rows.min()), float(rows.max())
        if least < 0 or most > 255:
            raise ArgumentError(
                name, f"must lie in [0, 255], like the uint8 data of the training, not in [{least:g}, {most:g}]"
            )
        return rows.astype(np.uint8)
    raise ArgumentTypeError(name, f"must be {trained} like the data of the training, not {dtype}")

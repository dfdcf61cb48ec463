"""The conditions of rows: labels, or numbers beside a row, as users give them and as the networks take them.

``y`` of one dimension holds labels: integers, strings or bools. ``y`` of two dimensions holds numbers, ``[N, C]``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigen.datasets.frames import library_of, listed
from minigen.datasets.load import as_numbers, check_on_host
from minigen.errors import ArgumentError, ArgumentTypeError
from minigen.estimators.scaling import Columns, measure
from minigen.models.conditional import Condition
from minigen.placement import Placement
from minigen.training.checkpoint import check_tensor

Label = int | str | bool


@dataclass(frozen=True)
class Labels:
    """The labels of the training data: ``classes`` in order, and how many rows had each."""

    classes: tuple[Label, ...]
    counts: tuple[int, ...]

    @property
    def kind(self) -> Condition:
        return Condition(len(self.classes), labelled=True)

    def codes(self, name: str, y: Any, rows: int) -> np.ndarray:
        """``y``, a label or one a row, as its places in ``classes``, ``int32[rows]``. Raises TypeError, ValueError."""
        values = _spread(name, _labels(name, y), rows)
        classes = np.array(self.classes)
        if values.dtype.kind != classes.dtype.kind and not {values.dtype.kind, classes.dtype.kind} <= set("iu"):
            raise ArgumentTypeError(name, f"must hold {self._described()}, not {values.dtype}")
        places = np.minimum(np.searchsorted(classes, values), len(classes) - 1)
        unknown = classes[places] != values
        if unknown.any():
            raise ArgumentError(
                name, f"holds the label {values[unknown.argmax()].item()!r}, but the model knows {self._described()}"
            )
        return places.astype(np.int32)

    def draw(self, uniforms: np.ndarray) -> np.ndarray:
        """Labels as frequent as in the training data, ``int32[n]``, from ``uniforms[n]`` in [0, 1)."""
        until = np.cumsum(self.counts)
        return np.searchsorted(until / until[-1], uniforms, side="right").clip(0, len(until) - 1).astype(np.int32)

    def balanced(self, rows: int) -> np.ndarray:
        """Each class in turn, ``int32[rows]``."""
        return np.arange(rows, dtype=np.int32) % np.int32(len(self.classes))

    def _described(self) -> str:
        return f"the labels {listed(tuple(map(repr, self.classes)))}"


@dataclass(frozen=True)
class Numbers:
    """Numbers beside each row; the networks take them standardised by mean and deviation of the training data's."""

    columns: Columns

    @property
    def kind(self) -> Condition:
        return Condition(len(self.columns.mean), labelled=False)

    def codes(self, name: str, y: Any, rows: int) -> np.ndarray:
        """``y[C]``, the same for all rows, or ``y[rows, C]`` as the networks take it, ``float32``."""
        values = as_numbers(name, _host(name, y), np.float64)
        width = len(self.columns.mean)
        if values.shape not in ((width,), (rows, width)):
            raise ArgumentError(name, f"must have shape ({width},) or ({rows}, {width}), not {values.shape}")
        values = np.broadcast_to(values, (rows, width))
        return ((values - self.columns.mean) / self.columns.scale).astype(np.float32)


Conditions = Labels | Numbers


def group_count(conditions: Conditions | None) -> int:
    """How many groups rows fall into: one for each class, or one where there are no labels."""
    return len(conditions.classes) if isinstance(conditions, Labels) else 1


def group_of_rows(groups: int, codes: np.ndarray | None, n: int) -> np.ndarray:
    """The group of each of ``n`` rows, ``int[n]``: where there are several, the row's class, ``codes[n]``."""
    return np.zeros(n, np.intp) if groups == 1 or codes is None else codes.astype(np.intp)


def learn(y: Any, rows: int, ops: Placement) -> Conditions:
    """What the conditions ``y`` of training data are. Raises TypeError or ValueError for others than labels of one
    kind, one a row, or finite numbers ``[rows, C]``."""
    values = _host("y", y)
    if np.ndim(values) == 0:
        raise ArgumentError("y", f"must have a label, or numbers [C], for each of the {rows} rows, not {y!r}")
    if len(values) != rows:
        raise ArgumentError("y", f"must have as many entries as X has rows, {rows}, not {len(values)}")
    if values.ndim == 1:
        classes, counts = np.unique(_labels("y", values), return_counts=True)
        if len(classes) > max(2, rows // 2):
            warnings.warn(
                f"y has {len(classes)} different labels for {rows} rows: each is learnt from next to nothing; for "
                "numbers beside the rows give y[N, C], such as y.reshape(-1, 1) in floating numbers",
                UserWarning,
                stacklevel=5,
            )
        return Labels(tuple(classes.tolist()), tuple(counts.tolist()))
    if values.ndim != 2 or not values.shape[1]:
        raise ArgumentError("y", f"must have shape [N] (labels) or [N, C] (numbers beside a row), not {values.shape}")
    return Numbers(measure(as_numbers("y", values, np.float64), ops))


def _host(name: str, y: Any) -> np.ndarray:
    """``y`` as an array of the host."""
    check_on_host(name, y)
    if np.ma.isMaskedArray(y):
        raise ArgumentTypeError(name, f"must have no mask: fill it first, {name}.filled(value)")
    if library_of(y):
        y = y.to_numpy()
    try:
        values = np.asarray(y)
        if values.dtype.kind == "U" and isinstance(y, (list, tuple)) and not all(isinstance(one, str) for one in y):
            return np.array(y, object)  # NumPy would make strings of numbers
        return values
    except ValueError as error:  # lists of different lengths
        raise ArgumentError(name, f"must be labels [N] or numbers [N, C]: {error}") from error


def _labels(name: str, y: Any) -> np.ndarray:
    """Integers, strings or bools, a label or one a row; whole numbers in floats, as tables hold them, as integers."""
    values = _host(name, y)
    if values.ndim > 1:
        raise ArgumentError(name, f"must be one label, or one a row, not an array of shape {values.shape}")
    if values.dtype == object:
        values = _of_one_kind(name, values)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ArgumentError(name, "must have a label for every row, but some are NaN or infinite")
        if (values != np.rint(values)).any():
            raise ArgumentError(
                name,
                f"must be labels (integers or strings), not fractions such as {values.flat[0]}; numbers beside a row "
                f"have two dimensions, {name}.reshape(-1, 1)",
            )
        return values.astype(np.int64)
    if values.dtype.kind not in "biuU" and not values.dtype.kind == "T":
        raise ArgumentTypeError(name, f"must be labels (integers or strings) or numbers [N, C], not {values.dtype}")
    return values.astype(str) if values.dtype.kind == "T" else values


def _of_one_kind(name: str, values: np.ndarray) -> np.ndarray:
    """Python's objects, all of one kind, as an array of that kind."""
    kinds: dict[Any, Any] = {str: str, (bool, np.bool_): bool, (int, np.integer): np.int64, (float, int): np.float64}
    for kind, dtype in kinds.items():
        if all(isinstance(value, kind) for value in values.flat):
            return values.astype(dtype)
    other = next((v for v in values.flat if not isinstance(v, str)), None)
    raise ArgumentTypeError(name, f"must be labels of one kind, integers or strings, but one is {other!r}")


def _spread(name: str, values: np.ndarray, rows: int) -> np.ndarray:
    if values.shape not in ((), (rows,)):
        raise ArgumentError(name, f"must be one label or have one for each of the {rows} rows, not {len(values)}")
    return np.broadcast_to(values, (rows,))


def to_file(conditions: Conditions | None) -> dict[str, Any]:
    """What the settings in a model file say of them; the statistics of numbers are among its tensors."""
    if not isinstance(conditions, Labels):
        return {"classes": None, "counts": None}
    return {"classes": list(conditions.classes), "counts": list(conditions.counts)}


def from_file(fitted: Mapping[str, Any], tensors: dict[str, np.ndarray]) -> Conditions | None:
    """Those that a model file tells of; None for a model without, and for files from before there were any.

    Raises ValueError where its parts do not agree.
    """
    classes, counts = fitted.get("classes"), fitted.get("counts")
    if classes is not None:
        sorted_ones = np.unique(np.array(classes)).tolist()
        if sorted_ones != list(classes) or {type(c) for c in classes} not in ({int}, {str}, {bool}):
            raise ValueError(f"classes must be different labels of one kind in their order, not {classes!r}")
        if counts is None or len(counts) != len(classes) or any(type(n) is not int or n < 1 for n in counts):
            raise ValueError(f"counts must be {len(classes)} numbers of rows, not {counts!r}")
        return Labels(tuple(classes), tuple(counts))
    if "conditions.mean" not in tensors and "conditions.std" not in tensors:
        return None
    width = len(tensors["conditions.mean"])
    for name in ("conditions.mean", "conditions.std"):
        check_tensor(tensors, name, (width,), np.float64)
    if (tensors["conditions.std"] < 0).any():
        raise ValueError("conditions.std must be at least 0")
    return Numbers(Columns(tensors["conditions.mean"], tensors["conditions.std"]))

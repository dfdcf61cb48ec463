"""What the settings in a model file may be, field by field: a right digest does not mean that the values are right."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from minigen import checks
from minigen.datasets import frames
from minigen.errors import ArgumentError, ArgumentTypeError
from minigen.estimators.scaling import RANGES
from minigen.training import evaluations

Check = Callable[[str, Any], Any]
"""Of a field's name and its value; raises TypeError or ValueError that names the field."""


def _mapping(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise ArgumentTypeError(name, f"must be an object, not {value!r}")


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ArgumentTypeError(name, f"must be a string, not {value!r}")


def _text_or_nothing(name: str, value: Any) -> None:
    if value is not None:
        _text(name, value)


def _shape(name: str, value: Any) -> None:
    _list(name, value)
    if not value:
        raise ArgumentError(name, "must have at least one dimension")
    for i, size in enumerate(value):
        checks.integer(f"{name}[{i}]", size, 1)


def _list(name: str, value: Any) -> None:
    if not isinstance(value, list):
        raise ArgumentTypeError(name, f"must be a list, not {value!r}")


def _seconds(name: str, value: Any) -> None:
    _list(name, value)
    for i, seconds in enumerate(value):
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
            raise ValueError(f"{name}[{i}] must be a finite number of at least 0, not {seconds!r}")


def _names(name: str, value: Any) -> None:
    if value is not None:
        _list(name, value)
        for i, text in enumerate(value):
            _text(f"{name}[{i}]", text)


def _list_or_nothing(name: str, value: Any) -> None:
    if value is not None:
        _list(name, value)


def _one_of(*known: Any) -> Check:
    return lambda name, value: checks.choice(name, value, known)


FIELDS: dict[str, Check] = {
    "model": _one_of("gan", "vae"),
    "params": _mapping,
    "fitted": _mapping,
    "fitted.item_shape_": _shape,
    "fitted.data_dtype_": _text,
    "fitted.source_": _text_or_nothing,
    "fitted.labels_source_": _text_or_nothing,
    "fitted.left_out_": _one_of(True, False),
    "fitted.frame_": _one_of(None, *frames.LIBRARIES),
    "fitted.columns": _names,
    "fitted.classes": _list_or_nothing,
    "fitted.counts": _list_or_nothing,
    "fitted.scale_": lambda name, value: checks.number(name, value, 0, exclude_low=True),
    "fitted.shift_": lambda name, value: checks.number(name, value, -math.inf),
    "fitted.output_": _one_of(*RANGES),
    "history": _mapping,
    "history.seconds": _seconds,
    "history.stop_reason": _one_of("", "finished", "callback", "early stopping", "interrupted", "diverged", "error"),
    "history.metrics": evaluations.check_file,
}
"""Every field but the hyper-parameters in ``params``, which the model checks like those that a user gives."""

NEWER = (
    *(f"fitted.{name}" for name in ("source_", "labels_source_", "left_out_", "frame_")),
    *(f"fitted.{name}" for name in ("columns", "classes", "counts")),
    "history.metrics",
)
"""Fields that older files of the same format do not have."""
ONLY_GAN = ("fitted.output_",)


def check(settings: Any) -> None:
    """Raise KeyError, TypeError or ValueError, which names the field, unless every field of ``settings`` can be."""
    _mapping("settings", settings)
    for name, check_field in FIELDS.items():
        group, _, field = name.rpartition(".")
        values = settings[group] if group else settings
        if (name in NEWER and field not in values) or (name in ONLY_GAN and settings["model"] != "gan"):
            continue
        if field not in values:
            raise KeyError(f"{name} is missing")
        check_field(name, values[field])
    output = settings["params"].get("output", "auto")
    if settings["model"] == "gan" and output not in ("auto", settings["fitted"]["output_"]):
        raise ValueError(f"fitted.output_ must be {output!r} like params.output")

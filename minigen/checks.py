"""Argument checks: each names the argument, what came and what is allowed.

They raise :class:`~minigen.errors.ArgumentError`, a ``ValueError``, and :class:`~minigen.errors.ArgumentTypeError`, a
``TypeError``, whose ``argument`` is the ``name`` given to the check.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from minigen.errors import ArgumentError, ArgumentTypeError

SEED_LIMIT = 2**32
FLOAT32_TINY, FLOAT32_MAX = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # the smallest normal number, the largest


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """``value`` as an int in ``[low, high]``; ``TypeError`` if it is no integer, ``ValueError`` if out of range."""
    allowed = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ArgumentTypeError(name, f"must be {allowed}, not {value!r}")
    n = int(value)
    if n < low or (high is not None and n > high):
        raise ArgumentError(name, f"must be {allowed}, not {n}")
    return n


def number(name: str, value: Any, low: float, high: float = math.inf, *, exclude_low: bool = False) -> float:
    """``value`` as a finite float in ``[low, high)``, or ``(low, high)`` with ``exclude_low``.

    Nor may it lie so far out that a float32, in which the devices compute, has only infinity or 0 for it.
    """
    bracket = "(" if exclude_low else "["
    allowed = f"a finite number in {bracket}{low:g}, {high:g})"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentTypeError(name, f"must be {allowed}, not {value!r}")
    x = float(value)
    if not math.isfinite(x) or x < low or x >= high or (exclude_low and x == low):
        raise ArgumentError(name, f"must be {allowed}, not {value}")
    if x and not FLOAT32_TINY <= abs(x) <= FLOAT32_MAX:
        raise ArgumentError(name, f"must be {allowed} that a float32 can hold, not {value}")
    return x


def choice(name: str, value: Any, known: Iterable[Any]) -> Any:
    """``value`` if it is one of ``known``; the ``ValueError`` lists them."""
    known = tuple(known)
    if value not in known:
        raise ArgumentError(name, f"must be one of {', '.join(map(repr, known))}, not {value!r}")
    return value


def widths(name: str, value: Any) -> tuple[int, ...]:
    """Sizes of hidden layers: an int or a sequence of them, each at least 1; empty means no hidden layer."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        value = (value,)
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ArgumentTypeError(name, f"must be a sequence of layer sizes such as (256, 512), not {value!r}")
    return tuple(integer(f"{name}[{i}]", size, 1) for i, size in enumerate(value))


def seed(name: str, value: Any) -> int:
    """A seed of Philox: an integer from 0 to 2**32 - 1."""
    return integer(name, value, 0, SEED_LIMIT - 1)


def writable_folder(name: str, folder: str | os.PathLike[str]) -> Path:
    """Create ``folder`` if need be and prove that a file can be written in it, before hours of work depend on that."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(f"{name}: cannot write in {path}: {error.strerror or error}") from error
    return path

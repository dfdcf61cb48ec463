"""How a row of :mod:`minigen.ops` is written down, and what follows from it: the checks of arguments.

See :func:`operation`, :class:`Row`, and for the notation of buffers the docstring of :mod:`minigen.ops`.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from minigen import checks
from minigen.errors import ArgumentError, ArgumentTypeError
from minigen.step.record import Operation, declare

Method = TypeVar("Method", bound=Callable[..., None])
Check = Callable[[str, Any], Any]

BUFFER = re.compile(r"([=+]?)(\w+)(\??)(?::(\w+))?\[([^\]]*)\]")
MOST = 2**31 - 1  # rows, steps: what a kernel's int32 holds


@dataclass(frozen=True)
class Buffer:
    """One buffer of an operation; ``access`` is ``""`` (read), ``"="`` (written) or ``"+"`` (both)."""

    name: str
    access: str
    optional: bool
    dtype: str
    shape: tuple[str, ...] | None
    """A number or a letter for each dimension, None for any shape."""

    @property
    def read(self) -> bool:
        return self.access != "="

    @property
    def written(self) -> bool:
        return self.access != ""


def parse(text: str) -> tuple[Buffer, ...]:
    """The buffers of a row."""
    found = []
    for access, name, optional, dtype, shape in BUFFER.findall(text):
        sizes = None if shape == "..." else tuple(shape.split(","))
        found.append(Buffer(name, access, bool(optional), dtype or "float", sizes))
    return tuple(found)


@dataclass(frozen=True)
class Row:
    """What is known of an operation."""

    name: str
    recorded_as: str
    """What the recorder and the backends know it as: several operations may be one kernel with different settings."""
    buffers: tuple[Buffer, ...]
    formula: str
    """What it computes, see :func:`written`."""
    settings: Mapping[str, Check]
    """By name, what checks a value: ``check(name, value)`` gives it as the kernels take it, or raises."""
    implied: Mapping[str, Any]
    """Settings that the operation's name stands for."""
    renamed: Mapping[str, str]
    """Buffers that are recorded under another name."""
    flops: Callable[[Mapping[str, int]], float]
    moved: Callable[[Mapping[str, int]], float] | None
    """Bytes, where it is not every buffer once for each access."""
    in_place: bool
    """Whether what it writes may be the very buffer that it reads: each element depends on itself alone."""
    also: Callable[[dict[str, int], dict[str, Any]], None] | None
    """Raises where sizes and settings do not fit each other."""
    unused: Callable[[Mapping[str, Any]], tuple[str, ...]]
    """Buffers that a call with these settings does not read, though they are given."""
    signature: inspect.Signature = field(repr=False, compare=False)
    summary: str
    """The first sentence of its docstring."""

    def call(self, backend: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Operation:
        """The checked call. Raises TypeError or ValueError that names the argument."""
        bound = self.signature.bind(backend, *given, **named)
        bound.apply_defaults()
        arguments = bound.arguments
        settings = {name: check(name, arguments[name]) for name, check in self.settings.items()}
        buffers = {buffer.name: arguments[buffer.name] for buffer in self.buffers}
        sizes = self._check_buffers(backend, buffers)
        if self.also:
            self.also(sizes, {**settings, **buffers})
        self._check_overlap(backend, buffers)
        used = [b for b in self.buffers if buffers[b.name] is not None and b.name not in self.unused(settings)]
        kept = {self.renamed.get(b.name, b.name): buffers[b.name] for b in used}
        every = sum((b.read + b.written) * int(buffers[b.name].nbytes) for b in used)
        return Operation(
            self.recorded_as,
            kept,
            {"steps_ahead": 0, **self.implied, **settings},
            (self.name,),
            sizes,
            flops=self.flops(sizes),
            bytes=self.moved(sizes) if self.moved else every,
        )

    def _check_buffers(self, backend: Any, buffers: dict[str, Any]) -> dict[str, int]:
        """The value of each letter."""
        sizes: dict[str, int] = {}
        common: tuple[int, ...] | None = None
        present = [(buffer, buffers[buffer.name]) for buffer in self.buffers]
        present = [(buffer, array) for buffer, array in present if array is not None or not buffer.optional]
        for buffer, array in present:
            self._check_kind(backend, buffer, array)
            if buffer.shape is None:
                common = tuple(array.shape) if common is None else common
            elif array.ndim == len(buffer.shape):
                for letter, size in zip(buffer.shape, array.shape, strict=True):
                    if letter.rstrip("+").isalpha():
                        sizes.setdefault(letter.rstrip("+"), int(size))
        for buffer, array in present:
            wanted = common if buffer.shape is None else tuple(_size(letter, sizes) for letter in buffer.shape)
            if tuple(array.shape) != wanted:
                text = ", ".join("any" if size is None else str(size) for size in wanted or ())
                comma = "," if len(wanted or ()) == 1 else ""
                raise ArgumentError(buffer.name, f"must have shape ({text}{comma}), not {tuple(array.shape)}")
            if buffer.shape and buffer.shape[0].endswith("+") and array.shape[0] == 0:
                raise ArgumentError(buffer.name, "has no rows, the mean loss of nothing is not defined")
        if common is not None:
            sizes["n"] = math.prod(common)
        sizes |= {f"{buffer.name}.itemsize": array.itemsize for buffer, array in present if buffer.dtype == "data"}
        return sizes

    def _check_kind(self, backend: Any, buffer: Buffer, array: Any) -> None:
        if not isinstance(array, backend.array_type):
            library = backend.array_type.__module__.partition(".")[0]
            raise ArgumentTypeError(buffer.name, f"must be a {library}.ndarray, not {type(array).__name__}")
        dtype = backend.dtype if buffer.dtype in ("float", "data") else np.dtype(buffer.dtype)
        if array.dtype != dtype and not (buffer.dtype == "data" and array.dtype == np.uint8):
            raise ArgumentTypeError(buffer.name, f"must be {dtype}, not {array.dtype}")
        if not array.flags.c_contiguous:
            raise ArgumentError(buffer.name, f"must be C-contiguous, its strides are {array.strides}")
        if isinstance(array, np.ndarray):
            if buffer.written and not array.flags.writeable:
                raise ArgumentError(buffer.name, "is an output and must be writeable, but it is read-only")
            if not array.flags.aligned:
                raise ArgumentError(buffer.name, f"must be aligned to its dtype {array.dtype}")

    def _check_overlap(self, backend: Any, buffers: dict[str, Any]) -> None:
        spans = {
            name: (start := backend.address(array), start + int(array.nbytes))
            for name, array in buffers.items()
            if array is not None and array.nbytes
        }
        for buffer in self.buffers:
            if not buffer.written or buffer.name not in spans:
                continue
            first, end = spans[buffer.name]
            for other, (start, stop) in spans.items():
                if other == buffer.name or end <= start or stop <= first or (self.in_place and start == first):
                    continue
                raise ArgumentError(buffer.name, f"and {other} must not share memory")


def _size(letter: str, sizes: Mapping[str, int]) -> int | None:
    """``3``, ``B`` or ``2L`` as a number; None for a letter that no buffer has told."""
    factor, name = re.fullmatch(r"(\d*)([A-Za-z]*)\+?", letter).groups()  # type: ignore[union-attr]
    if not name:
        return int(factor)
    return int(factor or 1) * sizes[name] if name in sizes else None


OPERATIONS: dict[str, Row] = {}
"""Every row by the name of its operation."""


def operation(
    buffers: str,
    formula: str = "",
    *,
    recorded_as: str | None = None,
    implied: Mapping[str, Any] | None = None,
    renamed: Mapping[str, str] | None = None,
    flops: Callable[[Mapping[str, int]], float] = lambda n: 0,
    moved: Callable[[Mapping[str, int]], float] | None = None,
    in_place: bool = False,
    also: Callable[[dict[str, int], dict[str, Any]], None] | None = None,
    unused: Callable[[Mapping[str, Any]], tuple[str, ...]] = lambda settings: (),
    **settings: Check,
) -> Callable[[Method], Method]:
    """Make a method of :class:`minigen.ops.Operations` a row; ``buffers`` as said there, ``formula`` in
    :func:`written`, the rest see :class:`Row`."""

    def enter(method: Method) -> Method:
        row = Row(
            method.__name__,
            recorded_as or method.__name__,
            parse(buffers),
            formula,
            settings,
            implied or {},
            renamed or {},
            flops,
            moved,
            in_place,
            also,
            unused,
            inspect.signature(method),
            (method.__doc__ or "").partition("\n\n")[0].strip(),
        )
        OPERATIONS[row.name] = row
        known = [(row.renamed.get(buffer.name, buffer.name), buffer) for buffer in row.buffers]
        reads, writes = ([n for n, b in known if b.read], [n for n, b in known if b.written])
        declare(row.recorded_as, reads, writes)

        @functools.wraps(method)
        def call(self: Any, *given: Any, **named: Any) -> None:
            self.do(row.call(self, given, named))

        return call  # type: ignore[return-value]

    return enter


# --- checks of settings -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class OneOf:
    """The value has to be one of ``known``."""

    known: tuple[str, ...]

    def __call__(self, name: str, value: Any) -> Any:
        return checks.choice(name, value, self.known)


def within(low: float, high: float = math.inf, exclude_low: bool = False) -> Check:
    return lambda name, value: checks.number(name, value, low, high, exclude_low=exclude_low)


def whole(low: int, high: int = MOST) -> Check:
    return lambda name, value: checks.integer(name, value, low, high)


def flag(name: str, value: Any) -> bool:
    return bool(checks.choice(name, value, (True, False)))


def real(name: str, value: Any) -> float:
    return float(value)


# --- formulas ---------------------------------------------------------------------------------------------

OPTIONAL = re.compile(r"\[([ +,;{][^\]]*)\]")
LINEAR = re.compile(r" \* linear'+\(\w+\)(, from x = linear\(\w+\))?|linear\(((?:[^()]|\([^()]*\))*)\)")


def written(row: Row, settings: Mapping[str, Any], buffers: Collection[str]) -> str:
    """The formula of a call of an operation with these ``settings``, given the ``buffers`` of these names.

    In a row's formula ``{name}`` is the value of a setting, ``{+}`` is the ``+`` of ``+=`` where the call accumulates,
    and what is in ``[...]`` is left out where a buffer that it names is not given, or a setting in it is 0.
    """

    def kept(match: re.Match[str]) -> str:
        known = {buffer.name for buffer in row.buffers}
        there = all(word in buffers for word in re.findall(r"\w+", match[1]) if word in known)
        return match[1] if there and all(settings[name] for name in re.findall(r"\{(\w+)\}", match[1])) else ""

    values = {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in settings.items()}
    text = OPTIONAL.sub(kept, row.formula).replace("{+}", "+" if settings.get("accumulate") else "")
    return LINEAR.sub(r"\2", text.format_map(values))


def table() -> str:
    """The rows as a table in Markdown, which ``docs/operations.md`` holds."""
    lines = ["| operation | formula | reads | writes | settings | what it does |", "| --- " * 6 + "|"]
    for row in OPERATIONS.values():
        shown = {b.name: f"`{b.name}[{', '.join(b.shape or ('...',))}]`" for b in row.buffers}
        reads = " ".join(shown[b.name] for b in row.buffers if b.read)
        writes = " ".join(shown[b.name] for b in row.buffers if b.written)
        settings = []
        for name, check in row.settings.items():
            allowed = f": {', '.join(check.known)}" if isinstance(check, OneOf) else ""
            settings.append(f"`{name}`{allowed}")
        what = re.sub(r":\w+:`", "`", row.summary).replace("``", "`").replace("|", "\\|")
        what = " ".join(what.split())  # a row of a table is one line
        formula = re.sub(r"\{(\w+)\}", r"\1", row.formula.replace("{+}", "")).replace("|", "\\|")
        lines.append(f"| `{row.name}` | `{formula}` | {reads} | {writes} | {'; '.join(settings)} | {what} |")
    return "\n".join(lines) + "\n"

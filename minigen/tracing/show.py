"""A trace as text and as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

import numpy as np

from minigen.models.network import Network
from minigen.notebook import STYLE
from minigen.tracing.records import Record, norm

FEW = 64  # numbers of an array that are shown in full
SHORT = 200  # characters of a formula in a table


def text(records: Sequence[Record], parts: Mapping[str, str], networks: Iterable[Network] | None = None) -> str:
    """Every call: formula, buffers with shapes and norms, file and line; where the ``networks`` are given, with the
    numbers in place of the norms."""
    known = None if networks is None else {net.name: net for net in networks}
    lines: list[str] = []
    for (step, part), calls in groupby(records, lambda record: (record.step, record.part)):
        lines += ["", f"step {step + 1}, {part}: {parts.get(part, '')}".rstrip(": ")]
        for record in calls:
            lines += _lines(record, known)
    return "\n".join(lines[1:]) + "\n"


def _lines(record: Record, networks: Mapping[str, Network] | None) -> Iterator[str]:
    yield f"{record.number:4}  {record.formula}"
    shown = _sizes(record) if networks is None else _values(record, networks)
    yield from (f"        {line}" for line in shown)
    derived = f", derived in {record.reference}" if record.reference else ""
    about = f" of {record.layer}" if record.layer else ""
    yield f"        {record.operation}{about}, {record.file}:{record.line}{derived}"


def _sizes(record: Record) -> Iterator[str]:
    read = "; ".join(_size(record, name, array) for name, array in record.inputs.items())
    written = "; ".join(_size(record, name, array) for name, array in record.outputs.items())
    yield read
    yield f"-> {written}"


def _size(record: Record, name: str, array: np.ndarray) -> str:
    return f"{_called(record, name)} {shape(array)}{magnitude(array)}"


def magnitude(array: np.ndarray) -> str:
    """The value of a single number, the norm of several floating ones."""
    if array.size == 1:
        return f" = {array.reshape(-1)[0]:.6g}"
    return f" |{norm(array):.4g}|" if array.dtype.kind == "f" else ""


def shape(array: np.ndarray) -> str:
    return "[" + ", ".join(map(str, array.shape)) + "]"


def _called(record: Record, name: str) -> str:
    own = record.names[name]
    return f"{name} = {own}" if own and own != name else name


def _values(record: Record, networks: Mapping[str, Network]) -> Iterator[str]:
    for sign, arrays in (("  ", record.inputs), ("->", record.outputs)):
        for name, array in arrays.items():
            called = _called(record, name)
            net = networks.get(record.names[name].removeprefix("average of ").rpartition(".")[0])
            if net is None or array.shape != net.params.shape:
                yield from _block(f"{sign} {called} {shape(array)}: ", array)
                continue
            yield f"{sign} {called}, of each parameter:"  # between them is padding
            keys = [f"{layer.name}.{part}" for layer in net.layers for part in layer.shapes]
            for key, (_, values) in zip(keys, net.named(array), strict=True):
                yield from _block(f"     {key} {shape(values)}: ", values)


def _block(head: str, array: np.ndarray) -> Iterator[str]:
    first, *more = numbers(array).splitlines()
    yield head + first
    yield from (" " * len(head) + line for line in more)


def numbers(array: np.ndarray) -> str:
    """The values of an array, its middle left out where it is long."""
    return np.array2string(array, precision=4, max_line_width=100, threshold=FEW, edgeitems=2)


def html(records: Sequence[Record], parts: Mapping[str, str]) -> str:
    """A table, a row an operation, in the style of minigen's notebooks."""
    heads = "<tr><th>#</th><th>formula</th><th>reads</th><th>writes</th><th>layer</th><th>where</th></tr>"
    body: list[str] = []
    for (step, part), calls in groupby(records, lambda record: (record.step, record.part)):
        title = f"step {step + 1}, {part}: {parts.get(part, '')}".rstrip(": ")
        body.append(f'<tr class="changed"><th colspan="6">{escape(title)}</th></tr>')
        body += [_row(record) for record in calls]
    return f'<div class="minigen"><style>{STYLE}</style><table>{heads}{"".join(body)}</table></div>'


def _whole_shape(line: str) -> str:
    """The line of a buffer, to be broken before its shape only."""
    name, bracket, rest = line.partition(" [")
    return name + bracket + rest.replace(" ", "&nbsp;")


def _row(record: Record) -> str:
    formula = record.formula if len(record.formula) <= SHORT else f"{record.formula[:SHORT]}…"
    reads, writes = (
        "<br>".join(_whole_shape(escape(_size(record, name, array))) for name, array in arrays.items())
        for arrays in (record.inputs, record.outputs)
    )
    place = f"{Path(record.file).name}:{record.line}"  # the whole path would not leave room for the rest
    cells = (str(record.number), escape(formula), reads, writes, escape(record.layer), escape(place))
    title = escape(f"{record.operation}, {record.file}")
    return f'<tr title="{title}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'

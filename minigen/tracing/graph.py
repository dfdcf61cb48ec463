"""A traced step as a graph for mermaid: operations, and what each takes from which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from minigen.tracing.records import Record

ESCAPES = str.maketrans({'"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "#": "#35;"})


def mermaid(records: Sequence[Record]) -> str:
    """The ``flowchart`` of these records of one step, a frame around each part of it. GitHub draws it in a block of
    ``mermaid``."""
    lines = ["flowchart TD"]
    for number, (part, of_part) in enumerate(groupby(records, lambda record: record.part)):
        lines.append(f'  subgraph part{number}["{part.replace("_", " ")}"]')
        lines.append("    direction TB")  # a frame that no arrow leaves would lie across its chart's direction
        lines += [f'    {_id(record)}["{_label(record)}"]' for record in of_part]
        lines.append("  end")
    lines += [f'  {_id(writer)} -->|"{_text(name)}"| {_id(reader)}' for writer, reader, name in edges(records)]
    return "\n".join(lines) + "\n"


def edges(records: Sequence[Record]) -> Iterator[tuple[Record, Record, str]]:
    """(writer, reader, name of the buffer in the reader) for all that an operation reads and another wrote last."""
    for i, reader in enumerate(records):
        found: dict[int, str] = {}
        for name in reader.inputs:
            for j in _writers(records[:i], reader.spans[name]):
                found.setdefault(j, reader.names[name] or name)
        yield from ((records[j], reader, name) for j, name in sorted(found.items()))


def _writers(before: Sequence[Record], span: tuple[int, int]) -> Iterator[int]:
    """Who wrote what lies at ``span``: from the last one back, until all of it is written."""
    missing = [span]
    for j in reversed(range(len(before))):
        written = [before[j].spans[name] for name in before[j].outputs]
        left = missing
        for one in written:
            left = [part for hole in left for part in _without(hole, one)]
        if left != missing:
            yield j
        missing = left
        if not missing:
            return


def _without(hole: tuple[int, int], written: tuple[int, int]) -> list[tuple[int, int]]:
    start, stop = max(hole[0], written[0]), min(hole[1], written[1])
    if start >= stop:
        return [hole]
    return [part for part in ((hole[0], start), (stop, hole[1])) if part[0] < part[1]]


def _id(record: Record) -> str:
    return f"op{record.number}"


def _label(record: Record) -> str:
    head = f"{record.operation} {record.layer}".strip()
    return "<br/>".join([head, *map(_text, record.formula.split("; "))])


def _text(text: str) -> str:
    return text.translate(ESCAPES)

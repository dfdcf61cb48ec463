"""The table of `bench.ladder`'s result file."""

from __future__ import annotations

import statistics
from typing import Any

from bench.ladder.rungs import lines_of_code
from bench.report import commit, number, table


def tables(result: dict[str, Any]) -> dict[str, str]:
    """``kernels``: a row a rung, microseconds at each shape, and how many times the floor that is."""
    shapes, limits = result["shapes"], result["limits"]
    floors = [floor_seconds(shape, limits) for shape in shapes]
    rows = []
    for record in result["rows"]:
        timed = record["samples"] or [None] * len(shapes)
        cells = [timing(taken, floor) for taken, floor in zip(timed, floors, strict=True)]
        lines = lines_of_code(record["source"], record["name"]) or ""
        name = f"{record['language']}, {record['name']}"
        rows.append([name, str(lines), *cells, f"{record['error']:.1e}", record["where"]])
    if limits:
        rows.append(["floor: FLOPs over peak", "", *(number(1e6 * floor) for floor in floors if floor), "", ""])
    header = ["y = x W + b, B × I × O", "lines of code"]
    header += [f"{B} × {n_in} × {n_out}, µs (times the floor)" for B, n_in, n_out in shapes]
    return {"kernels": table([*header, "largest error", "run by"], rows) + "\n" + conditions(result)}


def floor_seconds(shape: list[int], limits: dict[str, Any] | None) -> float | None:
    """Of a product of this B, I, O; None where no limit was measured."""
    B, n_in, n_out = shape
    return 2 * B * n_in * n_out / (1e9 * limits["peak_gflops"]) if limits else None


def timing(taken: list[float] | None, floor: float | None) -> str:
    if taken is None:
        return "–"
    middle = statistics.median(taken)
    return number(1e6 * middle) + (f" ({number(middle / floor)})" if floor else "")


def conditions(result: dict[str, Any]) -> str:
    machine, limits = result["machine"], result["limits"]
    where = machine.get("gpu") or f"one core of {machine['cpu']}"
    peak = f", peak {number(limits['peak_gflops'])} GFLOP/s ({limits['peak_method']})" if limits else ""
    left_out = "".join(f" {language} was left out: {reason}." for language, reason in result["skipped"].items())
    return (
        f"Medians; the error is of an element, as a share of its terms. {where}{peak}; {result['compiler']}; "
        f"commit {commit(result)}, {result['created']}.{left_out}\n"
    )

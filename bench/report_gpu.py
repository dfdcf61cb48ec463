"""Tables of what ``bench/gpu.sh`` measured, the lower bound beside each figure; part of :mod:`bench.report`.

A stage that was cut off has what it had by then; a table that would be empty is left out.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

from bench.report import cell_table, commit, ladder_tables, many_tables, number, table

Result = dict[str, Any]
OF_THEIR_OWN = {"many": many_tables, "ladder": ladder_tables}
"""Stages whose results have the form of a file of their own."""


def tables(result: Result) -> dict[str, str]:
    """``machine`` and ``stages``, then one or more for each stage that has measured something."""
    found = {"machine": machine_table(result), "stages": stage_table(result)}
    makers: dict[str, Callable[[Result], dict[str, str]]] = {
        "smoke": smoke_tables,
        "costs": cost_tables,
        "sanitizer": sanitizer_tables,
        "training": training_tables,
        "tests": test_tables,
        "tune": tune_tables,
        "kernels": kernel_tables,
        "kernels-torch": kernel_tables,
    }
    steps = [step for name, part in parts(result) if name.startswith("steps") for step in part.get("steps", []) if step]
    profiles = dict(parts(result)).get("ncu", {})
    found |= {"steps": steps_table(steps)} if any(step.get("graphs") for step in steps) else {}
    found |= {f"launches-{s['model']}-{s['precision']}": launch_table(s, profiles) for s in steps if s.get("launches")}
    for name, part in parts(result):
        if name.startswith("compare"):
            found |= compare_tables(name, part)
        elif name.startswith("kernels"):
            found |= {f"kernels-{who}": text for who, text in makers[name](part).items()}
        elif name in OF_THEIR_OWN:
            found |= {f"{name}-{of}": text for of, text in OF_THEIR_OWN[name](part).items()}
        elif name in makers:
            found |= makers[name](part)
    return found


def parts(result: Result) -> Iterator[tuple[str, Result]]:
    """What each stage measured, by its name."""
    for name, record in result["stages"].items():
        if isinstance(record.get("result"), dict):
            yield name, record["result"]


def us(samples: list[float] | None) -> str:
    """Microseconds of the median."""
    return number(1e6 * statistics.median(samples)) if samples else "–"


def machine_table(result: Result) -> str:
    facts = dict(parts(result)).get("facts", {})
    rows = [[key, str(facts[key])] for key in ("detail", "python", "system", "cores") if key in facts]
    if "card" in facts:
        card = facts["card"]
        rows.append(["multiprocessors", str(card["multiprocessors"])])
        rows.append(["clock", f"{number(card['clock'] / 1e9)} GHz at most"])
        rows.append(["memory", f"{number(card['bandwidth'] / 1e9)} GB/s, from {facts['card_from']}"])
    rows += [[key, value] for key, value in sorted(facts.get("versions", {}).items())]
    rows += [["measured", result["created"]], ["commit", commit(result)], ["sources", result["digest"][:12]]]
    return table(["machine", ""], rows)


def stage_table(result: Result) -> str:
    rows = [
        [
            name,
            record["status"],
            number(record["seconds"]) if "seconds" in record else "–",
            str(record.get("estimate", "–")),
        ]
        for name, record in result["stages"].items()
    ]
    return table(["stage", "outcome", "seconds", "estimated"], rows)


def smoke_tables(part: Result) -> dict[str, str]:
    rows = []
    for record in part.get("milestones", []):
        error = record.get("error") or record.get("skipped") or ""
        largest = f"{record['largest_error']:.0e}" if "largest_error" in record else ""
        said = error.replace("|", "/").replace("\n", " ")[:200]
        rows.append([record["name"], record["status"], number(record.get("seconds", 0)), largest or said])
    return {"smoke": table(["milestone", "outcome", "seconds", "largest error"], rows)} if rows else {}


def steps_table(steps: list[Result]) -> str:
    sizes = sorted({int(size) for step in steps for size in step.get("graphs", {})})
    rows = []
    for step in steps:
        graphs = step.get("graphs", {})
        best = min((statistics.median(samples) for samples in graphs.values()), default=None)
        cells = []
        for size in sizes:
            samples = graphs.get(str(size))
            text = us(samples)
            cells.append(f"**{text}**" if samples and statistics.median(samples) == best else text)
        bound = bounds(step)
        finite = "" if step.get("finite", True) else ", **not finite**"
        name = f"{step['model'].upper()}, {step['precision']}{finite}"
        rows.append([name, bound, *cells, us(step.get("without_graphs"))])
    header = ["µs a step; steps a graph:", "lower bound", *map(str, sizes), "no graph"]
    origins = sorted({step["lower_bounds_from"] for step in steps if "lower_bounds_from" in step})
    note = "Lower bounds: each launch's arithmetic or traffic; behind the stroke without what the L2 cache holds"
    return table(header, rows) + f"\n{note}, on {'; '.join(origins)}.\n"


def bounds(record: Result) -> str:
    """Microseconds at least, if all bytes came from memory, and if those did that the cache cannot hold."""
    keys = ("lower_bound_seconds", "lower_bound_with_cache_seconds")
    return " / ".join(number(1e6 * record[key]) for key in keys if key in record)


def launch_table(step: Result, profiles: Result) -> str:
    """Each launch alone, beside the profiler's view of it where that has as many launches."""
    seen = profiles.get(step["model"], {}).get("launches", []) if step["precision"] == "tf32x3" else []
    profiled = seen if len(seen) == len(step["launches"]) else [{}] * len(step["launches"])
    rows = []
    for launch, profile in zip(step["launches"], profiled, strict=True):
        shares = [profile.get(key) for key in ("compute_percent", "memory_percent", "occupancy_percent")]
        rows.append(
            [
                launch["kernel"],
                str(launch["programs"]),
                bounds(launch),
                us(launch.get("samples")),
                number(1e6 * profile["seconds"]) if profile.get("seconds") else "–",
                *("–" if share is None else f"{share:.0f} %" for share in shares),
            ]
        )
    timed = [launch["samples"] for launch in step["launches"] if launch.get("samples")]
    total = number(1e6 * sum(map(statistics.median, timed))) if len(timed) == len(step["launches"]) else "–"
    rows.append(["sum", "", bounds(step), total, *[""] * 4])
    header = [
        "launch",
        "programs",
        "lower bound, µs",
        "in a graph of itself, µs",
        "profiled, µs",
        "compute",
        "memory",
        "occupancy",
    ]
    return table(header, rows)


def cost_tables(part: Result) -> dict[str, str]:
    rows = []
    for cost in part.get("costs", []):
        about = {key: value for key, value in cost.items() if key not in ("name", "samples")}
        facts = ", ".join(f"{key} {value}" for key, value in about.items())
        if cost["name"].startswith("byte"):
            text = f"{number(1e-9 / statistics.median(cost['samples']))} GB/s"
        else:
            text = f"{us(cost['samples'])} µs" if cost["samples"] else str(about.get("clusters", "–"))
        rows.append([cost["name"], facts, text])
    return {"costs": table(["cost of one", "at", "median"], rows)} if rows else {}


def sanitizer_tables(part: Result) -> dict[str, str]:
    rows = [
        [tool, str(found["exit_code"]), found["summary"].replace("|", "/")]
        for tool, found in part.items()
        if isinstance(found, dict)
    ]
    return {"sanitizer": table(["tool", "exit code", "its last line"], rows)} if rows else {}


def compare_tables(name: str, part: Result) -> dict[str, str]:
    cells = [cell for cell in part.get("cells", []) if cell["contenders"]]
    return {f"{name}-{cell['spec']['model']}" if len(cells) > 1 else name: cell_table(cell) for cell in cells}


def training_tables(part: Result) -> dict[str, str]:
    rows = []
    for model in ("gan", "vae"):
        for run in part.get(model, []):
            figures = [number(run[key]) if key in run else "–" for key in ("seconds", "seconds_in_steps")]
            rows.append([model.upper(), str(run["epochs"]), run.get("skipped", figures[0]), figures[1]])
    return {"training": table(["model", "epochs", "seconds", "of them in steps"], rows)} if rows else {}


def test_tables(part: Result) -> dict[str, str]:
    rows = [
        [
            record["file"],
            record["backends"],
            record["selected"],
            "passed" if record["passed"] else "**failed**",
            record["summary"].strip("= ").replace("|", "/"),
        ]
        for record in part.get("parts", [])
    ]
    missing = part.get("of", len(rows)) - len(rows)
    rest = f"\n{missing} parts did not come to their turn.\n" if missing else ""
    return {"tests": table(["tests of", "on", "selected", "outcome", "summary"], rows) + rest} if rows else {}


def tune_tables(part: Result) -> dict[str, str]:
    rows = []
    for entry in part.get("entries", []):
        tile = ", ".join(f"{key} {value}" for key, value in entry["tile"].items())
        took = [number(1e6 * entry[key]) for key in ("seconds", "table_seconds")]
        rows.append([f"{entry['operation']}, {entry['kind']}", *took, str(entry["measured"]), tile])
    header = ["products", "best, µs", "the table's, µs", "measured", "tile"]
    return {"tune": table(header, rows)} if rows else {}


def kernel_tables(part: Result) -> dict[str, str]:
    rows = []
    for record in part.get("dense", part.get("rows", [])):
        who = f"PyTorch, {record['mode']}" if "mode" in record else "minigen"
        rate = record["flops"] / statistics.median(record["samples"]) / 1e12
        shape = " x ".join(map(str, record["shape"]))
        rows.append([record["operation"], who, shape, record["precision"], us(record["samples"]), number(rate)])
    header = ["product", "by", "B x I x O", "precision", "µs", "TFLOP/s"]
    return {"torch" if "torch" in part else "minigen": table(header, rows)} if rows else {}

"""Tables and plots from the result files, so that no figure is typed by hand.

    python -m bench.report            # rewrite the tables of README.md and bench/README.md, and the plots
    python -m bench.report --check    # say what would change, change nothing

A document asks for a table with a pair of comments that name a file of `bench/results` and one of its tables,

    <!-- bench:compare-cpu/gan -->
    <!-- /bench:compare-cpu/gan -->

and ``bench:everything`` stands for all tables and plots of all files.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench.environment import RESULTS, ROOT
from bench.peers import PEERS
from bench.spec import WIDTHS, Spec

DOCUMENTS = (ROOT / "README.md", ROOT / "bench" / "README.md")
PLOTS = ROOT / "bench" / "plots"
SCHEMAS = {1}
MARKER = re.compile(r"(<!-- bench:(?P<name>[\w./-]+) -->\n)(?P<body>.*?)(<!-- /bench:(?P=name) -->)", re.DOTALL)
SWEEPS: dict[str, tuple[str, Callable[[Spec], float]]] = {
    "batch": ("batch", lambda s: s.batch),
    "width": ("hidden units", lambda s: s.hidden[0]),
    "depth": ("hidden layers", lambda s: len(s.hidden)),
    "data": ("rows of the data set", lambda s: s.n),
    "threads": ("threads", lambda s: s.threads),
}


def load_results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Every result file by its stem. Raises ValueError for a schema that this report does not know."""
    results = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        if result.get("kind") not in TABLES:
            continue  # another tool's file
        if result.get("schema") not in SCHEMAS:
            raise ValueError(f"{path.name} has schema {result.get('schema')!r}; known: {sorted(SCHEMAS)}")
        results[path.stem] = result
    return results


# --- numbers and Markdown ---------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    digits = 2
    while digits < 9 and value < 10 ** (2 - digits) and value > 0:
        digits += 1
    return f"{value:.{max(0, digits - (value >= 10))}f}"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def label(name: str) -> str:
    return PEERS[name].label if name in PEERS else name


# --- bench.compare ----------------------------------------------------------------------------------------------------


def median(record: dict[str, Any]) -> float | None:
    return statistics.median(record["samples"]) if record["status"] == "timed" else None


def spec_of(cell: dict[str, Any]) -> Spec:
    return Spec.from_json(cell["spec"])


FLOORS = {
    "arithmetic_seconds": "floor: FLOPs over peak",
    "memory_seconds": "bytes over copy bandwidth (a cache can beat it)",
}
"""The machine's limits under a step, as `bench.floor` gives them, and what the tables call them."""


def floors(cell: dict[str, Any]) -> dict[str, float]:
    """Label to seconds; empty for a smoke run, which measures no limits."""
    return {text: cell["floor"][kind] for kind, text in FLOORS.items() if kind in cell["floor"]}


def by_speed(contenders: dict[str, Any]) -> list[str]:
    """The timed ones, fastest first, then the others."""
    return sorted(contenders, key=lambda name: (median(contenders[name]) is None, median(contenders[name]) or 0.0))


def compare_tables(result: dict[str, Any]) -> dict[str, str]:
    """``machine``, and for each model its first cell, its grid of batches and its sweeps."""
    tables = {"machine": machine_table(result)}
    for model in dict.fromkeys(cell["spec"]["model"] for cell in result["cells"]):
        cells = [cell for cell in result["cells"] if cell["spec"]["model"] == model]
        tables[model] = cell_table(cells[0])
        for name, group in groups(cells).items():
            tables[f"{model}-{name}"] = sweep_table(name, group)
        if "elbo" in cells[0]:
            tables[f"{model}-elbo"] = elbo_table(cells[0]["elbo"])
    return tables


def groups(cells: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Cells that differ from the first one in one respect, by that respect; and the wide model's batches."""
    base = spec_of(cells[0])

    def only(cell: dict[str, Any], varied: str) -> bool:
        s = spec_of(cell)
        same = {
            "batch": s.batch == base.batch, "data": s.n == base.n, "threads": s.threads == base.threads,
            "shape": s.hidden == base.hidden,
        }
        if varied == "width":
            same["shape"] = len(s.hidden) == 1
        if varied == "depth":
            same["shape"] = set(s.hidden) == set(base.hidden)
        return all(same[key] for key in same if key != varied)

    found = {name: [cell for cell in cells if only(cell, name)] for name in SWEEPS}
    wide = [cell for cell in cells if spec_of(cell).hidden == WIDTHS[base.model]["wide"]]
    found["wide-batch"] = [cell for cell in wide if spec_of(cell).n == base.n and spec_of(cell).threads == base.threads]
    several = {name: group for name, group in found.items() if len(group) > 1}
    return {name: sorted(group, key=lambda cell: position(name, cell)) for name, group in several.items()}


def position(name: str, cell: dict[str, Any]) -> float:
    return SWEEPS[name.removeprefix("wide-")][1](spec_of(cell))


def machine_table(result: dict[str, Any]) -> str:
    machine = result["machine"]
    rows = [[key, str(value)] for key, value in machine.items()]
    for threads, limits in result["limits"].items():
        what = f"{number(limits['peak_gflops'])} GFLOP/s ({limits['peak_method']})"
        rows.append([f"limits, {threads} threads", f"{what}, copy {number(limits['bandwidth_gbytes'])} GB/s"])
    versions: dict[str, str] = {}
    for cell in result["cells"]:
        for record in cell["contenders"].values():
            versions |= record.get("versions", {})
    rows += [[key, str(value)] for key, value in sorted(versions.items())]
    rows.append(["load before the run", number(result["load_before"])])
    rows += [["data", result["data"]], ["measured", result["created"]], ["commit", commit(result)]]
    return table(["machine", ""], rows)


def commit(result: dict[str, Any]) -> str:
    if result["commit"] is None:
        return "unknown"
    return result["commit"][:12] + (" with changes" if result["dirty"] else "")


def cell_table(cell: dict[str, Any]) -> str:
    """One cell in full: every contender, fastest first, with the limits."""
    spec = spec_of(cell)
    contenders = cell["contenders"]
    own = median(contenders["minigen"]) if "minigen" in contenders else None
    rows = []
    for name in by_speed(contenders):
        record = contenders[name]
        middle = median(record)
        if middle is None:
            rows.append([label(name), record["reason"].replace("|", "/"), *[""] * 6])
            continue
        low, _, high = statistics.quantiles(record["samples"], n=4, method="inclusive")
        rows.append([
            label(name), number(1e3 * middle), f"{number(1e3 * low)} to {number(1e3 * high)}",
            number(middle / own) if own else "", number(spec.batch / middle / spec.whole_rows),
            number(statistics.median(record["startup_seconds"])), memory(record),
            f"{record['check']['loss_error']:.0e}, {record['check']['weight_error']:.0e}",
        ])  # fmt: skip
    for text, limit in floors(cell).items():
        rows.append([text, number(1e3 * limit), "", number(limit / own) if own else "", *[""] * 4])
    header = [
        f"{spec.model.upper()}, {'-'.join(map(str, spec.hidden))}, batch {spec.batch}", "step, ms", "quartiles",
        "times minigen's", "epochs/s", "start-up, s", "memory, MB", "error: losses, weights",
    ]  # fmt: skip
    return table(header, rows)


def memory(record: dict[str, Any]) -> str:
    parts = [record["peak_bytes"], record["device_peak_bytes"]]
    return " + ".join(f"{part / 1e6:.0f}" for part in parts if part is not None)


def sweep_table(name: str, cells: list[dict[str, Any]]) -> str:
    """Milliseconds a step: contenders down, the swept size across; the fastest of each column in bold."""
    title = SWEEPS[name.removeprefix("wide-")][0]
    names = list(dict.fromkeys(contender for cell in cells for contender in cell["contenders"]))
    best = [min(filter(None, map(median, cell["contenders"].values())), default=None) for cell in cells]
    rows = []
    for contender in names:
        row = [label(contender)]
        for cell, fastest in zip(cells, best, strict=True):
            value = median(cell["contenders"][contender]) if contender in cell["contenders"] else None
            text = "–" if value is None else number(1e3 * value)
            row.append(f"**{text}**" if value is not None and value == fastest else text)
        rows.append(row)
    for text in floors(cells[0]):
        rows.append([text, *(number(1e3 * floors(cell)[text]) for cell in cells)])
    return table([f"ms a step; {title}:", *(f"{position(name, cell):g}" for cell in cells)], rows)


def elbo_table(race: dict[str, Any]) -> str:
    rows = []
    order = sorted(race["contenders"].items(), key=lambda item: item[1]["seconds"] or float("inf"))
    for name, outcome in order:
        took = "not reached" if outcome["seconds"] is None else number(outcome["seconds"])
        rows.append([label(name), took, str(outcome["epochs"]), f"{outcome['curve'][-1][1]:.1f}"])
    return table([f"to a test negative ELBO of {race['target']:g} nats", "seconds", "epochs", "reached, nats"], rows)


# --- pytest bench -----------------------------------------------------------------------------------------------------


def kernel_tables(result: dict[str, Any]) -> dict[str, str]:
    """One table for each operation, microseconds a call: cases down, libraries across, minigen's share of the limit."""
    operations: dict[str, dict[str, dict[str, Any]]] = {}
    for benchmark in result["benchmarks"]:
        info = benchmark["extra_info"]
        operations.setdefault(info["operation"], {}).setdefault(info["case"], {})[info["library"]] = info
    return {operation: kernel_table(cases) for operation, cases in operations.items()}


def kernel_table(cases: dict[str, dict[str, Any]]) -> str:
    libraries = list(dict.fromkeys(library for case in cases.values() for library in case))
    ours = [library for library in libraries if library.startswith("minigen")]
    rows = []
    for case, infos in cases.items():
        fastest = min(info["seconds"] for info in infos.values())
        row = [case]
        for library in libraries:
            if library not in infos:
                row.append("–")
                continue
            seconds = infos[library]["seconds"]
            text = number(1e6 * seconds)
            row.append(f"**{text}**" if seconds == fastest else text)
        rows.append([*row, *(limit_share(infos.get(library)) for library in ours)])
    return table(["µs a call", *libraries, *(f"{library}: of the limit" for library in ours)], rows)


def limit_share(info: dict[str, Any] | None) -> str:
    if info is None:
        return "–"
    if "gflops" in info:
        return f"{info['gflops']:.0f} GFLOP/s, {info['percent_of_peak']:.0f} %"
    return f"{info['gbytes_per_second']:.1f} GB/s, {info['percent_of_bandwidth']:.0f} %"


def vae_tables(result: dict[str, Any]) -> dict[str, str]:
    """Ten epochs of the VAE on MNIST: one line a run."""
    lines = ["| device | seed | training loss, nats | test negative ELBO, nats | seconds |", "|---|---|---|---|---|"]
    for run in result["runs"]:
        figures = f"{run['train_loss']:.2f} | {run['test_negative_elbo']:.2f} | {number(run['seconds'])}"
        floor = ", ".join(name for name in (run["device"], run.get("precision")) if name)
        lines.append(f"| {floor} | {run['seed']} | {figures} |")
    return {"runs": "\n".join(lines) + "\n"}


TABLES: dict[str, Callable[[dict[str, Any]], dict[str, str]]] = {
    "compare": compare_tables,
    "kernels": kernel_tables,
    "vae-mnist": vae_tables,
}


# --- documents --------------------------------------------------------------------------------------------------------


def all_tables(results: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Every table of every file, ``stem/table``, and ``everything``."""
    tables = {}
    everything = []
    for stem, result in results.items():
        everything.append(f"## {stem}\n")
        if result.get("quick"):
            everything.append("A smoke run: its figures mean nothing.\n")
        for name, text in TABLES[result["kind"]](result).items():
            tables[f"{stem}/{name}"] = text
            everything.append(f"### {name}\n\n{text}")
            if name in sweep_plots(result):
                everything.append(f"![{stem}, {name}](plots/{stem}-{name}.png)\n")
    tables["everything"] = "\n".join(everything) if everything else "No result files yet.\n"
    return tables


def render(text: str, tables: dict[str, str]) -> str:
    """``text`` with its tables made anew. Raises ValueError for a table that no result file has."""

    def replacement(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in tables:
            raise ValueError(f"no table {name!r} in the result files; known: {', '.join(sorted(tables))}")
        return f"{match[1]}\n{tables[name]}\n{match[4]}"

    return MARKER.sub(replacement, text)


def documents() -> dict[Path, tuple[str, str]]:
    """Each document that exists: its text, and its text as the result files have it."""
    tables = all_tables(load_results())
    texts = {path: path.read_text() for path in DOCUMENTS if path.exists()}
    return {path: (text, render(text, tables)) for path, text in texts.items()}


# --- plots ------------------------------------------------------------------------------------------------------------


def sweep_plots(result: dict[str, Any]) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """The sweeps of a comparison with at least three points: table name to (axis, cells)."""
    if result["kind"] != "compare":
        return {}
    plots = {}
    for model in dict.fromkeys(cell["spec"]["model"] for cell in result["cells"]):
        cells = [cell for cell in result["cells"] if cell["spec"]["model"] == model]
        for name, group in groups(cells).items():
            if len(group) > 2:
                plots[f"{model}-{name}"] = (name, group)
    return plots


def plot(path: Path, title: str, name: str, cells: list[dict[str, Any]]) -> None:
    """Milliseconds a step over the swept size, both logarithmic, with the limits."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    x = [position(name, cell) for cell in cells]
    for contender in dict.fromkeys(c for cell in cells for c in cell["contenders"]):
        values = [median(cell["contenders"].get(contender, {"status": "missing"})) for cell in cells]
        points = [(a, 1e3 * b) for a, b in zip(x, values, strict=True) if b is not None]
        if points:
            width = 2.5 if contender == "minigen" else 1
            axes.plot(*zip(*points, strict=True), "o-", label=label(contender), linewidth=width, markersize=4)
    for text, style in zip(floors(cells[0]), ("k--", "k:"), strict=False):
        axes.plot(x, [1e3 * floors(cell)[text] for cell in cells], style, label=text)
    axes.set(xscale="log", yscale="log", xlabel=SWEEPS[name.removeprefix("wide-")][0], ylabel="ms a step", title=title)
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a document is out of date")
    check = parser.parse_args(arguments).check
    stale = 0
    for path, (present, wanted) in documents().items():
        if present != wanted:
            stale += 1
            print(f"{path.name}: {'out of date' if check else 'rewritten'}")
            if not check:
                path.write_text(wanted)
    if check:
        return 1 if stale else 0
    for stem, result in load_results().items():
        for table_name, (name, cells) in sweep_plots(result).items():
            plot(PLOTS / f"{stem}-{table_name}.png", f"{stem}: {table_name}", name, cells)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Tables and plots from the result files, so that no figure is typed by hand.

    python -m bench.report            # rewrite the tables of README.md and bench/RESULTS.md, and the plots
    python -m bench.report --check    # say what would change, change nothing

A document asks for a table with a pair of comments that name a file of `bench/results` and one of its tables,

    <!-- bench:compare-spr-amx/gan -->
    <!-- /bench:compare-spr-amx/gan -->

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

DOCUMENTS = (ROOT / "README.md", ROOT / "bench" / "RESULTS.md", ROOT / "bench" / "ladder" / "README.md")
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


AXES = {
    "batch": "batch, rows",
    "width": "width, units of the hidden layer",
    "depth": "depth, hidden layers",
    "data": "data set, rows",
    "threads": "threads",
}
"""The swept sizes as a plot's axis says them."""


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


# --- bench.gpu --------------------------------------------------------------------------------------------------------

NO_GPU = "No GPU has run minigen yet: there is no result file of one, and so no figure.\n"
NO_LADDER = "Not measured yet: there is no result file of `python -m bench.ladder`, and so no figure.\n"


def gpu_tables(result: dict[str, Any]) -> dict[str, str]:
    """A call of ``bench/gpu.sh``: see :mod:`bench.report_gpu`, which needs this module's numbers and tables."""
    from bench import report_gpu

    return report_gpu.tables(result)


# --- bench.compare ----------------------------------------------------------------------------------------------------


def median(record: dict[str, Any]) -> float | None:
    """None where it was not timed, or not yet when the file was written."""
    return statistics.median(record["samples"]) if record["status"] == "timed" and record.get("samples") else None


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
    """``machine``, and for each model its first cell, the wide model's, the race to an ELBO and the sweeps.

    A file of ``--sweep`` has the sweeps alone: its first cell is in the comparison's own file too.
    """
    tables = {"machine": machine_table(result)}
    for model, cells in by_model(result).items():
        if not is_sweep(result):
            tables[model] = cell_table(cells[0])
            wide = [cell for cell in cells if spec_of(cell).hidden == WIDTHS[model]["wide"]]
            tables |= {f"{model}-wide": cell_table(wide[0])} if wide else {}
        if "elbo" in cells[0]:
            tables[f"{model}-elbo"] = elbo_table(cells[0]["elbo"])
        for name, group in groups(cells).items():
            tables[f"{model}-{name}"] = sweep_table(name, group) + "\n" + who_wins(name, group)
    return tables


def by_model(result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    models: dict[str, list[dict[str, Any]]] = {}
    for cell in result["cells"]:
        models.setdefault(cell["spec"]["model"], []).append(cell)
    return models


def is_sweep(result: dict[str, Any]) -> bool:
    return bool(result.get("arguments", {}).get("sweep"))


def groups(cells: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Cells that differ from the first one in one respect, by that respect; and the wide model's batches."""
    base = spec_of(cells[0])

    def only(cell: dict[str, Any], varied: str) -> bool:
        s = spec_of(cell)
        same = {
            "batch": s.batch == base.batch,
            "data": s.n == base.n,
            "threads": s.threads == base.threads,
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
            reason = record.get("reason", "not timed any more").replace("|", "/")
            if reason.startswith("ValueError: precision must be"):
                reason = "not on this processor"
            rows.append([label(name), reason, *[""] * 6])
            continue
        low, _, high = statistics.quantiles(record["samples"], n=4, method="inclusive")
        rows.append(
            [
                label(name),
                number(1e3 * middle),
                f"{number(1e3 * low)} to {number(1e3 * high)}",
                number(middle / own) if own else "",
                number(spec.batch / middle / spec.whole_rows),
                number(statistics.median(record["startup_seconds"])),
                memory(record),
                f"{record['check']['loss_error']:.0e}, {record['check']['weight_error']:.0e}",
            ]
        )
    for text, limit in floors(cell).items():
        rows.append([text, number(1e3 * limit), "", number(limit / own) if own else "", *[""] * 4])
    header = [
        f"{spec.model.upper()}, {'-'.join(map(str, spec.hidden))}, batch {spec.batch}",
        "step, ms",
        "quartiles",
        "times minigen's",
        "epochs/s",
        "start-up, s",
        "memory, MB",
        "error: losses, weights",
    ]
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


def who_wins(name: str, cells: list[dict[str, Any]]) -> str:
    """One sentence: where another is ahead of minigen, in whichever precision that is fastest, and by how much."""
    ahead, compared = [], 0
    for cell in cells:
        times = {contender: median(record) for contender, record in cell["contenders"].items()}
        timed = {contender: seconds for contender, seconds in times.items() if seconds is not None}
        ours = [timed.pop(contender) for contender in list(timed) if contender.startswith("minigen")]
        if not ours or not timed:
            continue
        compared += 1
        fastest = min(timed, key=lambda contender: timed[contender])
        if timed[fastest] < min(ours):
            part = number(timed[fastest] / min(ours))
            ahead.append(f"{label(fastest)} at {position(name, cell):g} ({part} of minigen's time)")
    if not compared:
        return ""
    return f"Ahead of minigen: {'; '.join(ahead)}.\n" if ahead else f"minigen is the fastest in all {compared}.\n"


def elbo_table(race: dict[str, Any]) -> str:
    rows = []
    order = sorted(race["contenders"].items(), key=lambda item: item[1]["seconds"] or float("inf"))
    for name, outcome in order:
        took = "not reached" if outcome["seconds"] is None else number(outcome["seconds"])
        last = f"{outcome['curve'][-1][1]:.1f}"
        rows.append([label(name), took, str(outcome["steps"]), number(outcome["epochs"]), last])
    header = [f"to a test negative ELBO of {race['target']:g} nats", "seconds", "steps", "epochs", "reached, nats"]
    return table(header, rows)


# --- bench.kernels ----------------------------------------------------------------------------------------------------


def kernel_tables(result: dict[str, Any]) -> dict[str, str]:
    """``machine``, and one table for each operation."""
    operations: dict[str, dict[tuple[str, str], dict[str, dict[str, Any]]]] = {}
    for info in result["benchmarks"]:
        cases = operations.setdefault(info["operation"], {})
        cases.setdefault((info["case"], info["precision"]), {})[info["library"]] = info
    tables = {operation: kernel_table(cases) for operation, cases in operations.items()}
    return {"machine": kernel_machine_table(result)} | tables


def kernel_machine_table(result: dict[str, Any]) -> str:
    limits = result["limits"]
    rows = [[key, str(value)] for key, value in (result["machine"] | result["versions"]).items()]
    rows += [[f"NumPy's OpenBLAS, {key}", str(value)] for key, value in result["openblas"].items()]
    rows += [
        ["peak", f"{number(limits['peak_gflops'])} GFLOP/s ({limits['peak_method']})"],
        ["bandwidth of a copy", f"{number(limits['bandwidth_gbytes'])} GB/s"],
        ["not installed", ", ".join(result["not_installed"]) or "–"],
        ["measured", result["created"]],
        ["commit", commit(result)],
    ]
    return table(["machine", ""], rows)


def kernel_table(cases: dict[tuple[str, str], dict[str, dict[str, Any]]]) -> str:
    """Microseconds a call and the share of the limit; cases down, libraries across, each case's fastest in bold."""
    libraries = list(dict.fromkeys(library for case in cases.values() for library in case))
    ours = [library for library in libraries if library.startswith("minigen")]
    rows = []
    for (case, precision), infos in cases.items():
        fastest = min(info["seconds"] for info in infos.values())
        row = [case, precision]
        for library in libraries:
            info = infos.get(library)
            row.append("–" if info is None else timing(info, info["seconds"] == fastest))
        rows.append([*row, *(rates(infos.get(library)) for library in ours)])
    header = ["µs a call (% of the limit)", "precision", *libraries, *(f"{library}: rate" for library in ours)]
    return table(header, rows)


def timing(info: dict[str, Any], fastest: bool) -> str:
    text = number(1e6 * info["seconds"])
    share = info["percent_of_peak"] if "gflops" in info else info["percent_of_bandwidth"]
    return f"{f'**{text}**' if fastest else text} ({share:.0f} %)"


def rates(info: dict[str, Any] | None) -> str:
    if info is None:
        return "–"
    arithmetic = f"{info['gflops']:.0f} GFLOP/s, " if "gflops" in info else ""
    return f"{arithmetic}{info['gbytes_per_second']:.1f} GB/s"


def vae_tables(result: dict[str, Any]) -> dict[str, str]:
    """Ten epochs of the VAE on MNIST: one line a run."""
    lines = ["| device | seed | training loss, nats | test negative ELBO, nats | seconds |", "|---|---|---|---|---|"]
    for run in result["runs"]:
        figures = f"{run['train_loss']:.2f} | {run['test_negative_elbo']:.2f} | {number(run['seconds'])}"
        backend = ", ".join(name for name in (run["device"], run.get("precision")) if name)
        lines.append(f"| {backend} | {run['seed']} | {figures} |")
    return {"runs": "\n".join(lines) + "\n"}


CHOSEN = ("as it chooses", "OMP_NUM_THREADS=8")  # contenders of which minigen chooses the threads
CHOSEN_LIMIT = 1.15  # times the best fixed number that it may take


def busy_tables(result: dict[str, Any]) -> dict[str, str]:
    """Milliseconds a step beside busy loops, and times the best fixed number of threads of this version."""
    loads = sorted(result["cells"])
    cells = {load: {n: [1e3 * s for s in samples] for n, samples in result["cells"][load].items()} for load in loads}
    # The mean, since a training takes the sum: beside busy loops a turn falls into a fast or a slow placement.
    means = {load: {name: statistics.mean(samples) for name, samples in cell.items()} for load, cell in cells.items()}
    best = {load: min(means[load][name] for name in ("1 thread", "2 threads")) for load in loads}
    header = ["ms a step, mean (times the best fixed number), range", *(f"{n} busy loops beside it" for n in loads)]
    rows = []
    for name in cells[loads[0]]:
        row = [name]
        for load in loads:
            low, high = min(cells[load][name]), max(cells[load][name])
            ratio = f"{number(means[load][name])} ({means[load][name] / best[load]:.2f})"
            row.append(f"{ratio}, {number(low)} to {number(high)}")
        rows.append(row)
    ratios = [means[load][name] / best[load] for load in loads for name in CHOSEN if name in means[load]]
    worst = max(ratios)
    verdict = f"at most {CHOSEN_LIMIT} is {'reached' if worst <= CHOSEN_LIMIT else '**not** reached'}"
    fewest = min(len(samples) for cell in result["cells"].values() for samples in cell.values())
    facts = result["machine"]
    where = f"What minigen chooses, at worst: {worst:.2f} times the best fixed number; {verdict}."
    where += f" A sample is one {result.get('sample', 'epoch of 10 steps')}; at least {fewest} each.\n\n"
    where += f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}; commit {commit(result)}, {result['created']}"
    return {"steps": table(header, rows) + f"\n{where}\n"}


def quality_tables(result: dict[str, Any]) -> dict[str, str]:
    """Of samples and likelihoods: see :mod:`bench.report_quality`, which needs this module's numbers and tables."""
    from bench import report_quality

    made: dict[str, str] = getattr(report_quality, f"{result['kind']}_tables")(result)
    return made


def many_tables(result: dict[str, Any]) -> dict[str, str]:
    """Of models trained at once: see :mod:`bench.report_many`, which needs this module's numbers and tables."""
    from bench import report_many

    return report_many.tables(result)


def ladder_tables(result: dict[str, Any]) -> dict[str, str]:
    """Of the ladder of dense kernels: see :mod:`bench.report_ladder`, which needs this module's numbers and tables."""
    from bench import report_ladder

    return report_ladder.tables(result)


def synthetic_tables(result: dict[str, Any]) -> dict[str, str]:
    """Of :mod:`bench.tables`: see :mod:`bench.report_tables`, which needs this module's numbers and tables."""
    from bench import report_tables

    return report_tables.tables(result)


def use_tables(result: dict[str, Any]) -> dict[str, str]:
    """Of anomalies, augmentation and neighbours: see :mod:`bench.report_use`."""
    from bench import report_use

    made: dict[str, str] = getattr(report_use, f"{result['kind']}_tables")(result)
    return made


TABLES: dict[str, Callable[[dict[str, Any]], dict[str, str]]] = {
    "gpu": gpu_tables,
    "compare": compare_tables,
    "kernels": kernel_tables,
    "vae-mnist": vae_tables,
    "busy": busy_tables,
    "digits": quality_tables,
    "pacgan": quality_tables,
    "iwae": quality_tables,
    "anomalies": use_tables,
    "augmentation": use_tables,
    "neighbours": use_tables,
    "penalty_cost": quality_tables,
    "ladder": ladder_tables,
    "many": many_tables,
    "tables": synthetic_tables,
}


# --- documents --------------------------------------------------------------------------------------------------------


def all_tables(results: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Every table of every file, ``stem/table``; ``everything``; ``gpu`` and ``ladder``: those of all machines, or that
    none was measured."""
    tables = {}
    everything = []
    for stem, result in results.items():
        everything.append(f"## {stem}\n")
        if result.get("quick") or result.get("rehearsal"):
            everything.append("A smoke run: its figures mean nothing.\n")
        for name, text in TABLES[result["kind"]](result).items():
            tables[f"{stem}/{name}"] = text
            everything.append(f"### {name}\n\n{text}")
            if name in sweep_plots(result):
                everything.append(f"![{stem}, {name}](plots/{stem}-{name}.png)\n")
    contents = "".join(f"- [{stem}](#{stem}): {result['created'][:10]}\n" for stem, result in results.items())
    tables["everything"] = "\n".join([contents, *everything]) if everything else "No result files yet.\n"
    measured = [stem for stem, result in results.items() if result["kind"] == "gpu" and not result.get("rehearsal")]
    steps = [f"### {stem}\n\n{tables[f'{stem}/steps']}" for stem in measured if f"{stem}/steps" in tables]
    tables["gpu"] = "\n".join(steps) or (NO_GPU if not measured else "No step was timed.\n")
    ladders = [f"### {stem}\n\n{tables[f'{stem}/kernels']}" for stem in results if results[stem]["kind"] == "ladder"]
    tables["ladder"] = "\n".join(ladders) or NO_LADDER
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
    """The sweeps of a comparison: table name to (axis, cells)."""
    if result["kind"] != "compare":
        return {}
    return {
        f"{model}-{name}": (name, group)
        for model, cells in by_model(result).items()
        for name, group in groups(cells).items()
    }


def plot_title(cells: list[dict[str, Any]], name: str, machine: dict[str, Any]) -> str:
    """What is held while the axis varies."""
    spec = spec_of(cells[0])
    held = {
        "batch": f"batch {spec.batch}",
        "threads": f"{spec.threads} threads",
        "data": f"{spec.n} rows",
        "shape": f"hidden {'-'.join(map(str, spec.hidden))}",
    }
    varied = name.removeprefix("wide-")
    held.pop({"width": "shape", "depth": "shape"}.get(varied, varied))
    if varied == "depth":
        held["units"] = f"layers of {spec.hidden[0]} units"
    where = machine.get("gpu") or machine["cpu"]
    return f"{spec.model.upper()}: a training step by {SWEEPS[varied][0]}\n{', '.join(held.values())}, float32; {where}"


COLOURS = (
    "#d62728",
    "#7f7f7f",
    "#8c564b",
    "#ff7f0e",
    "#e6b800",
    "#bcbd22",
    "#1f77b4",
    "#17becf",
    "#2ca02c",
    "#98df8a",
    "#9467bd",
    "#e377c2",
)
MARKERS = "osv^D*pX<>hP"


def style_of(contender: str) -> dict[str, Any]:
    """A contender's colour and marker, the same in every plot; minigen's line is thick."""
    place = list(PEERS).index(contender) if contender in PEERS else 1
    own = contender == "minigen"
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "linewidth": 2.8 if own else 1.2,
        "markersize": 6 if own else 5,
        "zorder": 3 if own else 2,
    }


def plot(path: Path, title: str, name: str, cells: list[dict[str, Any]]) -> None:
    """Milliseconds a step over the swept size, both logarithmic, with the limits."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    x = [position(name, cell) for cell in cells]
    curves = {}
    for contender in dict.fromkeys(c for cell in cells for c in cell["contenders"]):
        values = [median(cell["contenders"].get(contender, {"status": "missing"})) for cell in cells]
        points = [(a, 1e3 * b) for a, b in zip(x, values, strict=True) if b is not None]
        if points:
            curves[contender] = points
    # The legend in the order of the lines at their right end.
    for contender in sorted(curves, key=lambda c: -curves[c][-1][1]):
        axes.plot(*zip(*curves[contender], strict=True), label=label(contender), **style_of(contender))
    for text, style in zip(floors(cells[0]), ("k--", "k:"), strict=False):
        axes.plot(x, [1e3 * floors(cell)[text] for cell in cells], style, label=text.replace(" (", "\n("))
    axes.set(xscale="log", yscale="log", xlabel=AXES[name.removeprefix("wide-")], ylabel="time of one step, ms")
    axes.set_title(title, fontsize=10)
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    pyplot.close(figure)


def draw(result: dict[str, Any], stem: Path) -> None:
    """All plots of a file, ``stem-<table>.png``."""
    for table_name, (name, cells) in sweep_plots(result).items():
        title = plot_title(cells, name, result["machine"])
        plot(stem.with_name(f"{stem.name}-{table_name}.png"), title, name, cells)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a document is out of date")
    parser.add_argument("--plots-of", type=Path, metavar="FILE", help="draw this file's plots beside it, nothing else")
    options = parser.parse_args(arguments)
    if options.plots_of:
        draw(json.loads(options.plots_of.read_text()), options.plots_of.with_suffix(""))
        return 0
    check = options.check
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
        draw(result, PLOTS / stem)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Tables of `bench.digits`, `bench.pacgan`, `bench.iwae` and `bench.penalty_cost`, for `bench.report`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from bench.digits import PEER
from bench.iwae import PAPER as IWAE_PAPER
from bench.pacgan import DATA, PAPER
from bench.report import commit, table

Run = dict[str, Any]


def grouped(runs: Iterable[Run], *keys: str) -> dict[tuple[Any, ...], list[Run]]:
    """Runs that agree in ``keys``, in the order in which they first appear."""
    found: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        found.setdefault(tuple(run[key] for key in keys), []).append(run)
    return found


def spread(values: Iterable[float], digits: int) -> str:
    """The mean, and of several runs the range."""
    values = list(values)
    text = f"{statistics.mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def percent(values: Iterable[float], digits: int = 1) -> str:
    return spread((100 * value for value in values), digits)


def where(result: Run) -> str:
    facts = result["machine"]
    commits = sorted({commit(run) for run in result.get("runs", [result])})
    machine = f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}"
    return f"\n{machine}; commit {', '.join(commits)}; {result['created']}\n"


# --- bench.digits -----------------------------------------------------------------------------------------------------


def digits_tables(result: Run) -> dict[str, str]:
    """A table for each data set and number of epochs, the best setting first, the real test set above all."""
    tables = {}
    for (data, epochs), runs in grouped(result["runs"], "data", "epochs").items():
        tables[f"{data}-{epochs}-epochs"] = digits_table(data, epochs, runs, result)
    return tables


def digits_table(data: str, epochs: int, runs: list[Run], result: Run) -> str:
    header = [
        f"{data}, {epochs} epochs, mean (range)",
        "seeds",
        "Frechet distance",
        "precision",
        "recall",
        "classes, % of samples, fewest to most",
        "doubtful, %",
        "CPU seconds",
    ]
    real = result["real"][data]
    rows = [["real test set", "", *figures([real]), ""]]
    settings = grouped(runs, "setting")
    for (setting,), own in sorted(settings.items(), key=lambda item: mean_distance(item[1])):
        cost = spread((run["cpu_seconds"] for run in own), 0)
        rows.append([setting, str(len(own)), *figures(own), cost])
    says = f"The classifier is right on {100 * real['accuracy']:.1f} % of the test set.\n"
    return table(header, rows) + "\n" + says + settings_list(settings) + where(result | {"runs": runs})


def mean_distance(runs: list[Run]) -> float:
    return statistics.mean(run["frechet_distance"] for run in runs)


def figures(runs: list[Run]) -> list[str]:
    shares = [share for run in runs for share in run["classes"]]
    return [
        spread((run["frechet_distance"] for run in runs), 2),
        spread((run["precision"] for run in runs), 3),
        spread((run["recall"] for run in runs), 3),
        f"{100 * min(shares):.1f} to {100 * max(shares):.1f}",
        percent(run["doubtful"] for run in runs),
    ]


def settings_list(settings: dict[tuple[Any, ...], list[Run]]) -> str:
    """What each name stands for."""
    lines = []
    for (name,), runs in settings.items():
        given = ", ".join(f"{key}={value}" for key, value in runs[-1]["settings"].items())
        none = "its own settings, `bench/pytorch_gan.py`" if name == PEER else "the defaults"
        lines.append(f"- {name}: {f'`{given}`' if given else none}\n")
    return "\n" + "".join(lines)


# --- bench.pacgan -----------------------------------------------------------------------------------------------------


def pacgan_tables(result: Run) -> dict[str, str]:
    """One table for each number of steps, beside the paper's figures after 400,000."""
    tables = {}
    for (steps,), runs in grouped(result["runs"], "steps").items():
        header = [f"{steps} steps, mean (range)", "seeds", "modes", "high quality, %", "divergence, nats"]
        header += ["CPU seconds", "the paper: modes", "the paper: high quality, %"]
        rows = []
        for (data, setting), own in grouped(runs, "data", "setting").items():
            paper = PAPER.get((data, setting), {})
            row = [f"{data} of {len(DATA[data][0])}, {setting}", str(len(own)), spread((r["modes"] for r in own), 1)]
            row += [percent(r["high_quality"] for r in own), spread((r["divergence"] for r in own), 2)]
            row.append(spread((r["cpu_seconds"] for r in own), 0))
            row += [f"{paper['modes']}" if "modes" in paper else "–"]
            row += [f"{100 * paper['high_quality']:.1f}" if "high_quality" in paper else "–"]
            rows.append(row)
        settings = settings_list(grouped(runs, "setting"))
        tables[f"{steps}-steps"] = table(header, rows) + settings + where(result | {"runs": runs})
    return tables


# --- bench.iwae -------------------------------------------------------------------------------------------------------


def iwae_tables(result: Run) -> dict[str, str]:
    tables = {}
    for (epochs, rows), runs in grouped(result["runs"], "epochs", "rows").items():
        header = [f"{epochs} epochs of {rows} pictures: draws", "bound, nats", "negative log-likelihood, nats"]
        header += ["CPU seconds", "the paper after 3,280 epochs, nats"]
        lines = []
        for (k,), own in sorted(grouped(runs, "draws").items()):
            nll = spread((run["negative_log_likelihood"] for run in own), 2)
            bound, cost = spread((r["bound"] for r in own), 2), spread((r["cpu_seconds"] for r in own), 0)
            lines.append([f"k = {k}", bound, nll, cost, f"{IWAE_PAPER[k]}" if k in IWAE_PAPER else "–"])
        last = runs[-1]
        says = f"By {last['score_draws']} draws for each of {last['test_rows']} test pictures.\n"
        tables[f"{epochs}-epochs-of-{rows}"] = table(header, lines) + "\n" + says + where(result | {"runs": runs})
    return tables


# --- bench.penalty_cost -----------------------------------------------------------------------------------------------


def penalty_cost_tables(result: Run) -> dict[str, str]:
    """Each penalty's time in forward and backward passes of the same rows, and its share of multiplications."""
    header = [f"discriminator, batch {result['batch']}, {result['threads']} threads", "activation", "one pass, ms"]
    header += ["r1, passes", "by multiplications", "gradient_penalty, passes", "by multiplications"]
    lines = []
    for cell in result["cells"]:
        times = {name: statistics.median(samples) for name, samples in cell["seconds"].items()}
        line = ["-".join(map(str, cell["sizes"])), cell["activation"], f"{1000 * times['pass']:.3f}"]
        for penalty in ("r1", "gradient_penalty"):
            line.append(f"{times[penalty] / times['pass']:.2f}")
            line.append(f"{cell['flops'][penalty] / cell['flops']['pass']:.2f}")
        lines.append(line)
    says = "A pass is forward and all parameters' gradients; `gradient_penalty` makes a forward pass of its own.\n"
    return {"passes": table(header, lines) + "\n" + says + where(result | {"runs": [result]})}

"""Tables of `bench.anomalies`, `bench.augmentation` and `bench.neighbours`, which `bench.report` writes."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from bench.report import table
from bench.report_quality import grouped, spread, where


def anomalies_tables(result: dict[str, Any]) -> dict[str, str]:
    """ROC-AUC of each detector by group of sets, the mean over seeds; the best mean over all sets first.

    The first table leaves out detectors that were not measured on all sets; where there are such, a second one has
    every detector on the sets that all were measured on. Each set counts as much as any other, so that a group of ten
    weighs more than a set alone. Times are means over sets, beside those of pyod's VAE.
    """
    by_detector = {detector: of_sets(runs) for (detector,), runs in grouped(result["runs"], "detector").items()}
    every = max(by_detector.values(), key=len)
    held_out = {run["set"] for run in result["runs"] if run["held_out"]}
    whole = {detector: found for detector, found in by_detector.items() if found.keys() == every.keys()}
    tables = {"roc-auc": auc_table(whole, list(every), held_out) + where(result)}
    common = [name for name in every if all(name in found for found in by_detector.values())]
    if len(whole) < len(by_detector) and common:
        tables["roc-auc-of-all-detectors"] = auc_table(by_detector, common, held_out) + where(result)
    return tables


def auc_table(whole: dict[str, dict[str, tuple[float, float]]], every: list[str], held_out: set[str]) -> str:
    """ROC-AUC and seconds of detectors on the sets ``every``, which all of them were measured on."""
    groups: dict[str, list[str]] = {}
    for name in every:
        groups.setdefault(name.rstrip("0123456789 "), []).append(name)
    unseen, seen = ([name for name in every if (name in held_out) == out] for out in (True, False))
    columns = {"all sets": every, "held out": unseen, "chosen on": seen, **groups}
    order = sorted(whole, key=lambda detector: -mean_auc(whole[detector], every))
    peer = whole.get("pyod VAE")
    lines = []
    for detector in order:
        found = whole[detector]
        seconds = mean_seconds(found, every)
        cells = [f"{mean_auc(found, names):.3f}" if names else "" for names in columns.values()]
        times = "" if peer is None else f"{mean_seconds(peer, every) / seconds:.1f}"
        lines.append([detector, f"**{cells[0]}**", *cells[1:], f"{seconds:.2f}", times])
    counted = [f"{name} ({len(names)})" for name, names in columns.items()]
    header = ["mean ROC-AUC (sets)", *counted, "seconds a set", "times as fast as pyod's VAE"]
    return table(header, lines)


def of_sets(runs: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """By set, the means over seeds of ROC-AUC and seconds."""
    return {
        name: (statistics.mean(run["roc_auc"] for run in of_set), statistics.mean(run["seconds"] for run in of_set))
        for (name,), of_set in grouped(runs, "set").items()
    }


def mean_auc(found: dict[str, tuple[float, float]], names: Iterable[str]) -> float:
    return statistics.mean(found[name][0] for name in names)


def mean_seconds(found: dict[str, tuple[float, float]], names: Iterable[str]) -> float:
    return statistics.mean(found[name][1] for name in names)


def neighbours_tables(result: dict[str, Any]) -> dict[str, str]:
    """Seconds of the nearest neighbours that `minigen.metrics` looks for."""
    header = [f"nearest of {result['others']:,} rows for {result['rows']:,}, {result['columns']} columns", "seconds"]
    rows = [[who, spread(seconds, 1)] for who, seconds in result["seconds"].items()]
    return {"seconds": table(header, rows) + where(result)}


def augmentation_tables(result: dict[str, Any]) -> dict[str, str]:
    header = ["training rows", "seeds", "balanced accuracy", "recall of the rare digits", "seconds"]
    rows = [
        [
            method,
            str(len(runs)),
            *(spread((run[key] for run in runs), 3) for key in ("balanced_accuracy", "rare_recall")),
            spread((run["seconds"] for run in runs), 0),
        ]
        for (method,), runs in grouped(result["runs"], "method").items()
    ]
    return {"accuracy": table(header, rows) + where(result)}

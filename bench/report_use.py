"""Tables of `bench.anomalies` and `bench.augmentation`; `bench.report` puts them into the documents."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from bench.report import table
from bench.report_quality import grouped, spread, where


def anomalies_tables(result: dict[str, Any]) -> dict[str, str]:
    """ROC-AUC of each detector by group of sets, the mean over seeds; the best mean over all sets first.

    Detectors that were not measured on all sets are left out. Each set counts as much as any other, so that a group of
    ten weighs more than a set alone. Times are means over sets, beside those of pyod's VAE.
    """
    by_detector = {detector: of_sets(runs) for (detector,), runs in grouped(result["runs"], "detector").items()}
    every = max(by_detector.values(), key=len)
    whole = {detector: found for detector, found in by_detector.items() if found.keys() == every.keys()}
    groups: dict[str, list[str]] = {}
    for name in every:
        groups.setdefault(name.rstrip("0123456789 "), []).append(name)
    held_out = {run["set"] for run in result["runs"] if run["held_out"]}
    seen = [name for name in every if name not in held_out]
    columns = {"all sets": list(every), "held out": sorted(held_out), "chosen on": seen, **groups}
    order = sorted(whole, key=lambda detector: -mean_auc(whole[detector], every))
    peer = whole.get("pyod VAE")
    lines = []
    for detector in order:
        found = whole[detector]
        seconds = statistics.mean(seconds for _, seconds in found.values())
        cells = [f"{mean_auc(found, names):.3f}" if names else "" for names in columns.values()]
        times = "" if peer is None else f"{statistics.mean(s for _, s in peer.values()) / seconds:.1f}"
        lines.append([detector, f"**{cells[0]}**", *cells[1:], f"{seconds:.2f}", times])
    counted = [f"{name} ({len(names)})" for name, names in columns.items()]
    header = ["mean ROC-AUC (sets)", *counted, "seconds a set", "times as fast as pyod's VAE"]
    return {"roc-auc": table(header, lines) + where(result)}


def of_sets(runs: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """By set, the means over seeds of ROC-AUC and seconds."""
    return {
        name: (statistics.mean(run["roc_auc"] for run in of_set), statistics.mean(run["seconds"] for run in of_set))
        for (name,), of_set in grouped(runs, "set").items()
    }


def mean_auc(found: dict[str, tuple[float, float]], names: Iterable[str]) -> float:
    return statistics.mean(found[name][0] for name in names)


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

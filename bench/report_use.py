"""Tables of `bench.anomalies` and `bench.augmentation`; `bench.report` puts them into the documents."""

from __future__ import annotations

import statistics
from typing import Any

from bench.report import table
from bench.report_quality import grouped, spread, where


def anomalies_tables(result: dict[str, Any]) -> dict[str, str]:
    """ROC-AUC of each detector by set, the mean over seeds; the best mean over all sets first."""
    sets = list(dict.fromkeys(run["set"] for run in result["runs"]))
    rows = []
    for (detector,), runs in grouped(result["runs"], "detector").items():
        means = [statistics.mean(run["roc_auc"] for run in runs if run["set"] == name) for name in sets]
        seconds = statistics.mean(run["seconds"] for run in runs)
        rows.append((statistics.mean(means), [detector, *(f"{mean:.3f}" for mean in means)], f"{seconds:.1f}"))
    rows.sort(key=lambda row: -row[0])
    header = ["ROC-AUC", "mean", *sets, "seconds a set"]
    lines = [[cells[0], f"**{mean:.3f}**", *cells[1:], seconds] for mean, cells, seconds in rows]
    return {"roc-auc": table(header, lines) + where_of(result)}


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
    return {"accuracy": table(header, rows) + where_of(result)}


def where_of(result: dict[str, Any]) -> str:
    return where(result | {"runs": [result]})

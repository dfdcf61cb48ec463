"""Tables of `bench.tables`; `bench.report` puts them into the documents."""

from __future__ import annotations

from typing import Any

from bench.report import number, table
from bench.report_quality import grouped, where

FIGURES = {
    "quality": "quality",
    "sdmetrics_quality": "SDMetrics' quality",
    "f1_mean": "F1",
    "r2_price": "R² of price",
    "accuracy_cut": "accuracy of cut",
    "r2_mdvis": "R² of visits",
    "detection_auc": "detection AUC",
    "nearer_to_training_rows": "nearer to training rows",
    "seconds": "training, s",
    "peak_bytes": "peak memory, MB",
}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """A table for each data set, a line a model."""
    made = {}
    for (data,), runs in grouped(result["runs"], "data").items():
        shown = [key for key in FIGURES if any(key in run for run in runs)]
        lines = [[_name(run), *(_cell(run, key) for key in shown)] for run in runs]
        made[data] = table([data, *(FIGURES[key] for key in shown)], lines) + where({**result, "runs": runs})
    return made


def _name(run: dict[str, Any]) -> str:
    if run["epochs"] is None:
        return run["model"]
    threads = {1: ", 1 thread"}.get(run.get("threads"), "")  # two are the usual number
    return f"{run['model']}, {run['epochs']} epochs{threads}"


def _cell(run: dict[str, Any], key: str) -> str:
    if key not in run:
        return ""
    if key == "peak_bytes":
        return number(run[key] / 1e6)
    return number(run[key]) if key == "seconds" else f"{run[key]:.3f}"

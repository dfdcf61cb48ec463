"""Tables of `bench.many`: models trained at once."""

from __future__ import annotations

import statistics
from typing import Any

from bench import report
from bench.many import CONTENDERS, ON_GPU

GOAL = 1.05  # times what the cores allow


def tables(result: dict[str, Any]) -> dict[str, str]:
    return {"model-steps": steps_table(result)} | (
        {"eight": eight_text(result)} if "alone" in result.get("eight", {}) else {}
    )


def steps_table(result: dict[str, Any]) -> str:
    """Model-steps a second by the number of models, medians; the fastest in bold."""
    on_gpu = result.get("device") == "cuda"
    rows = []
    for name, peer in (ON_GPU if on_gpu else CONTENDERS).items():
        row = [peer.label]
        for cell in result["cells"]:
            record = cell["contenders"][name]
            fastest = min(_seconds(other) for other in cell["contenders"].values())
            text = report.number(1 / _seconds(record)) if record.get("samples") else record["status"]
            row.append(f"**{text}**" if record.get("samples") and _seconds(record) == fastest else text)
        rows.append(row)
    counts = [f"{cell['models']} model{'s' * (cell['models'] > 1)}" for cell in result["cells"]]
    where = "" if on_gpu else f", {result['threads']} threads"
    text = report.table([f"model-steps a second{where}", *counts], rows)
    machine = result["machine"]["gpu" if on_gpu else "cpu"]
    return f"{text}\n{machine}; commit {report.commit(result)}, {result['created']}\n"


def _seconds(record: dict[str, Any]) -> float:
    return statistics.median(record["samples"]) if record.get("samples") else float("inf")


def eight_text(result: dict[str, Any]) -> str:
    """What is lost by training eight at once, over the cores, beside one alone on one thread."""
    eight = result["eight"]
    cores, alone = eight["cores"], _seconds(eight["alone"])
    ratio = cores * _seconds(eight["together"]) / alone
    verdict = "reached" if ratio <= GOAL else "not reached"
    text = (
        f"{eight['models']} models on {cores} cores take {ratio:.2f} times (their time one by one on one"
        f" thread / {cores}); at most {GOAL} is {verdict}."
    )
    if "apart" in eight:
        apart = cores * _seconds(eight["apart"]) / alone
        text += f" {cores} processes of one model each, which share nothing but the machine, take {apart:.2f} times."
    return f"{text}\n"

"""How long the nearest of 60,000 rows take to be found for 10,000 others of 784 numbers, and beside them scikit-learn.

    python -m bench.neighbours            # a minute on two cores
    python -m bench.neighbours --quick    # does it run, and do both find the same? its figures mean nothing

Real digits where MINIGEN_DATA names a folder that holds mnist/, else uint8 noise. Writes the seconds of each repetition
to `bench/results/neighbours-MACHINE.json`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import minigen
from bench.environment import RESULTS, machine, machine_name, provenance, write_json
from minigen.metrics.pairs import nearest


def data(rows: int, others: int) -> tuple[np.ndarray, np.ndarray, str]:
    if os.environ.get("MINIGEN_DATA"):
        sets = (minigen.datasets.mnist(split, download=False).images for split in ("test", "train"))
        few, many = (images.reshape(-1, 784) for images in sets)
        return few[:rows], many[:others], "mnist"
    rng = np.random.default_rng(0)
    few, many = (rng.integers(0, 256, (n, 784), np.uint8) for n in (rows, others))
    return few, many, "noise"


def by_sklearn(few: np.ndarray, many: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(many.astype(np.float64))
    distances, numbers = found.kneighbors(few.astype(np.float64))
    return distances**2, numbers


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.neighbours", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: its figures mean nothing")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / f"neighbours-{machine_name()}.json")
    options = parser.parse_args(arguments)
    few, many, source = data(*((200, 1000) if options.quick else (10_000, 60_000)))
    ways: dict[str, Callable[..., Any]] = {"minigen": nearest, "scikit-learn": by_sklearn}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for _ in range(options.repeats):
        for name, way in ways.items():
            begin = time.perf_counter()
            found[name] = way(few, many)
            seconds[name].append(time.perf_counter() - begin)
            print(f"{name}: {len(few)} x {len(many)} x 784: {seconds[name][-1]:.2f} s", flush=True)
    np.testing.assert_allclose(found["minigen"][0], found["scikit-learn"][0], rtol=1e-9)
    if not options.quick:
        shape = {"data": source, "rows": len(few), "others": len(many), "columns": 784}
        write_json(
            options.out,
            {"schema": 1, "kind": "neighbours", "machine": machine(), **shape, "seconds": seconds, **provenance()},
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The article's GAN step and the VAE's: from graphs of several sizes, without a graph, each launch alone, and memory.

Saved after every graph size and every launch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench import gpu_step
from bench.gpu_result import card_here, keep_busy, rehearsing, save
from bench.gpu_step import BATCH, COLUMNS, MANY_ROWS, MODELS

STEPS = 4 if rehearsing() else 512  # of a sample, a multiple of every graph's
GRAPHS = (1, 4) if rehearsing() else (32, 1, 8, 128, 4, 64, 16, 256)  # the present STEPS_PER_GRAPH first
REPEATS = 2 if rehearsing() else 15

Keep = Callable[[], None]


def measure_model(model: str, precision: str, rows: np.ndarray, result: dict[str, Any], keep: Keep) -> None:
    """Fill ``result``, and call ``keep`` whenever it has grown."""
    from minigen.cuda.backend import CudaBackend
    from minigen.cuda.tools.traffic import from_memory

    card, origin = card_here()
    result |= {"model": model, "precision": precision, "lower_bounds_from": f"{card.name}, {origin}"}
    ops = CudaBackend(precision=precision)
    executor: Any = ops.executor
    training = gpu_step.training_on(model, ops, rows)
    launches = gpu_step.launches_of(training)
    begin = time.perf_counter()
    calls = executor.prepare(launches)
    result["prepare_seconds"] = time.perf_counter() - begin
    result["dependent_launch"] = executor.dependent_problem or "yes"
    missed = from_memory(launches, ops.address, card.cache)
    result["launches"] = [describe(*pair, card, precision) for pair in zip(launches, missed, strict=True)]
    for bound in ("lower_bound_seconds", "lower_bound_with_cache_seconds"):
        result[bound] = sum(launch[bound] for launch in result["launches"])
    keep()
    # The training itself first: its state is as it should be. Launches out of their order spoil it.
    whole_steps(executor, calls, executor.prepare(launches, overlap=True), result, keep)
    weights = [float(np.abs(ops.download(net.params)).max()) for net in training.step.networks]
    result["finite"] = bool(np.isfinite(weights).all())
    free, total = executor.memory_info()
    result["memory"] = {"arena_peak": executor.arena.peak, "arena_in_use": executor.arena.in_use, "used": total - free}
    keep()
    single_launches(executor, launches, result, keep)


def describe(launch: Any, missed: int, card: Any, precision: str) -> dict[str, Any]:
    return {
        "kernel": launch.name,
        "programs": launch.grid[0],
        "warps": launch.num_warps,
        "fuses": launch.fuses,
        "flops": launch.flops,
        "bytes": launch.bytes,
        "bytes_from_memory": missed,
        "lower_bound_seconds": card.lower_bound(launch, precision),
        "lower_bound_with_cache_seconds": card.lower_bound(launch, precision, missed),
    }


def whole_steps(executor: Any, calls: list[Any], in_graphs: list[Any], result: dict[str, Any], keep: Keep) -> None:
    """Seconds a step from graphs of each size, of the calls ``in_graphs``, and without a graph."""
    from minigen.cuda.run.device import GraphProgram
    from minigen.cuda.tools import measure

    result |= {"steps_per_sample": STEPS, "graphs": {}}
    for number, steps_per_graph in enumerate(GRAPHS):
        program = GraphProgram(executor, in_graphs, steps_per_graph)
        keep_busy(executor, lambda program=program: program.run(STEPS), 0.1 if number else 1.0)
        samples = measure.samples(executor, lambda program=program: program.run(STEPS), REPEATS)
        result["graphs"][steps_per_graph] = [seconds / STEPS for seconds in samples]
        keep()
        us = 1e6 * statistics.median(result["graphs"][steps_per_graph])
        print(f"{result['model']} {result['precision']}, {steps_per_graph} steps a graph: {us:.2f} us", flush=True)

    def direct() -> None:
        for _ in range(max(1, STEPS // 8)):
            with executor.device:
                for call in calls:
                    call()

    samples = measure.samples(executor, direct, 2 if rehearsing() else 5)
    result["without_graphs"] = [seconds / max(1, STEPS // 8) for seconds in samples]
    keep()


def single_launches(executor: Any, launches: Any, result: dict[str, Any], keep: Keep) -> None:
    """Seconds of each launch alone, its inputs in the cache."""
    from minigen.cuda.tools import measure

    copies, repeats = (2, 2) if rehearsing() else (50, 20)
    for launch, record in zip(launches, result["launches"], strict=True):
        record["samples"] = measure.launch_samples(executor, launch, copies, repeats)
        keep()


def table(result: dict[str, Any]) -> str:
    head = f"{result['model']} {result['precision']}, at least {1e6 * result['lower_bound_seconds']:.2f} us: "
    graphs = {n: 1e6 * statistics.median(samples) for n, samples in sorted(result["graphs"].items())}
    lines = [head + ", ".join(f"{n} a graph {us:.2f} us" for n, us in graphs.items())]
    lines += [f"  {1e6 * statistics.median(x['samples']):8.2f} us  {x['kernel']}" for x in result["launches"]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", nargs="+", default=["tf32x3", "tf32", "ieee", "bf16"])
    options = parser.parse_args()
    rows = gpu_step.pixels(MANY_ROWS)
    results: list[dict[str, Any]] = []

    def keep() -> None:
        save({"rows": MANY_ROWS, "columns": COLUMNS, "batch": BATCH, "steps": results})

    for precision in options.precision:
        for model in MODELS:
            results.append({})
            measure_model(model, precision, rows, results[-1], keep)
            print(table(results[-1]), flush=True)


if __name__ == "__main__":
    main()

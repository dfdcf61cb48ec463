"""The article's GAN step and the VAE's: each launch alone, the whole step from graphs of several sizes, and memory."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from bench.gpu_result import save

ROWS, COLUMNS = 468 * 128, 784  # whole batches: the programs here know no smaller one
STEPS = 512  # of a sample, a multiple of every graph's
GRAPHS = (1, 4, 16, 32, 64, 128, 256)
MODELS = {"gan": {}, "vae": {"hidden": (400,), "latent_dim": 20}}


def measure(model: str, precision: str, rows: np.ndarray) -> dict[str, Any]:
    from minigen.cuda import timing
    from minigen.cuda.backend import CudaBackend
    from minigen.cuda.device import GraphProgram
    from minigen.cuda.explain import training_of

    ops = CudaBackend(precision=precision)
    executor: Any = ops.executor
    training = training_of(model, ops, rows, {**MODELS[model], "batch_size": 128})
    schedule = ops.schedule(lambda: training.spell_step(128))
    begin = time.perf_counter()
    ready = executor.prepare(schedule.launches)
    result: dict[str, Any] = {"model": model, "precision": precision, "prepare_seconds": time.perf_counter() - begin}

    def direct() -> None:
        for _ in range(STEPS // 8):
            for launch in ready:
                executor._launch(launch)

    # The training itself first: its state is as it should be. Launches out of their order spoil it.
    result["steps_per_sample"] = STEPS
    result["graphs"] = {}
    for steps_per_graph in GRAPHS:
        program = GraphProgram(executor, ready, steps_per_graph)
        samples = timing.samples(executor, lambda program=program: program.run(STEPS), 15)
        result["graphs"][steps_per_graph] = [seconds / STEPS for seconds in samples]
    result["without_graphs"] = [seconds / (STEPS // 8) for seconds in timing.samples(executor, direct, 5)]
    weights = [float(np.abs(ops.download(net.params)).max()) for net in training.networks]
    result["finite"] = bool(np.isfinite(weights).all())
    free, total = executor.memory_info()
    result["memory"] = {"arena_peak": executor.arena.peak, "arena_in_use": executor.arena.in_use, "used": total - free}
    result["launches"] = [
        {
            "kernel": launch.kernel.name, "programs": launch.grid[0], "warps": launch.num_warps, "fuses": launch.fuses,
            "flops": launch.flops, "bytes": launch.bytes, "samples": timing.launch_samples(executor, launch),
        }
        for launch in schedule.launches
    ]  # fmt: skip
    return result


def table(result: dict[str, Any]) -> str:
    head = f"{result['model']} {result['precision']}: "
    graphs = {n: 1e6 * float(np.median(samples)) for n, samples in result["graphs"].items()}
    lines = [head + ", ".join(f"{n} a graph {us:.2f} us" for n, us in graphs.items())]
    lines += [
        f"  {1e6 * float(np.median(launch['samples'])):8.2f} us  {launch['kernel']}" for launch in result["launches"]
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", nargs="+", default=["tf32x3", "tf32", "ieee", "bf16"])
    options = parser.parse_args()
    # Random pixels: on zeros a card can be faster than it is on data.
    rows = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS), np.uint8)
    results = []
    for precision in options.precision:
        for model in MODELS:
            results.append(measure(model, precision, rows))
            save({"rows": ROWS, "columns": COLUMNS, "batch": 128, "steps": results})
            print(table(results[-1]))


if __name__ == "__main__":
    main()

"""Check and time every rung of the ladder, and write ``bench/results/ladder-MACHINE.json``.

    python -m bench.ladder                # C++ and the libraries timed on one core; Triton and CUDA C++ checked
    python -m bench.ladder --quick        # a few seconds: every rung checked, small shapes, figures that mean nothing
    python -m bench.ladder --device cuda  # Triton and CUDA C++ timed on a GPU, with CuPy, and PyTorch for Triton

``python -m bench.report`` then makes the table of ``bench/ladder/README.md``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.worker import limit_threads

SHAPES = [(256, 784, 128), (512, 512, 512), (1024, 1024, 1024)]
"""B, I, O: the first layer of the article's discriminator, and squares, of which the last does not fit a core's cache
and has rows of a multiple of 1024."""
QUICK_SHAPES = [(32, 48, 64)]
SECONDS = 1.0  # of a rung at a shape, or FEWEST rounds
FEWEST, MOST = 3, 25  # rounds
ROUND_SECONDS = 0.01  # a round repeats a short call until then


def samples(run: Callable[[], None], wait: Callable[[], None], seconds: float, fewest: int) -> list[float]:
    """Seconds a call, a value a round, after a first call that does not count."""

    def timed(calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            run()
        wait()
        return (time.perf_counter() - begin) / calls

    timed(1)
    once = timed(1)
    calls = max(1, round(ROUND_SECONDS / max(once, 1e-7)))
    taken = [once] if calls == 1 else []
    while len(taken) < fewest or (sum(taken) * calls < seconds and len(taken) < MOST):
        taken.append(timed(calls))
    return [float(f"{value:.5g}") for value in taken]


def rungs(device: str, folder: Path, skipped: dict[str, str]) -> Iterator[Any]:
    """Those that can be had here; ``skipped`` gets the others' reasons."""
    from bench.ladder import rungs as ladder

    if device == "cpu":
        yield from ladder.cpp(folder)
    if not ladder.installed("triton") or not ladder.installed("torch"):
        skipped["Triton"] = "triton and torch are not installed"
    else:
        yield from ladder.triton(device)
    yield from ladder.cuda_on_gpu() if device == "cuda" else ladder.cuda_on_host(folder)
    yield from ladder.libraries(device)


def row(rung: Any, shapes: list[tuple[int, int, int]], quick: bool) -> dict[str, Any]:
    """What the result file has of a rung."""
    import numpy as np

    from bench.ladder import rungs as ladder

    record = {
        "language": rung.language,
        "name": rung.name,
        "source": rung.source,
        "where": rung.where,
        "error": float(f"{ladder.check(rung):.2g}"),
        "samples": None,
    }
    print(f"{rung.language}, {rung.name}: right to {record['error']:.1e}", end="", flush=True)
    if rung.timed:
        record["samples"] = []
        draw = np.random.default_rng(0)
        for B, n_in, n_out in shapes:
            sizes = ((B, n_in), (n_in, n_out), (n_out,), (B, n_out))
            arrays = [rung.upload(draw.standard_normal(size, dtype=np.float32)) for size in sizes]
            taken = samples(
                lambda arrays=arrays: rung.call(*arrays), rung.wait, 0 if quick else SECONDS, 1 if quick else FEWEST
            )
            record["samples"].append(taken)
            print(f"; {B} x {n_in} x {n_out}: {1e6 * sorted(taken)[len(taken) // 2]:.0f} µs", end="", flush=True)
    print(flush=True)
    return record


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ladder", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="small shapes, one round: does it work?")
    parser.add_argument("--out", type=Path, help="result file (default: bench/results/ladder-MACHINE.json)")
    options = parser.parse_args(arguments)
    if options.device == "cpu":
        limit_threads(1)
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported

    from bench import environment, floor
    from bench.ladder import rungs as ladder

    shapes = QUICK_SHAPES if options.quick else SHAPES
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="minigen-ladder-") as folder:
        limits = None if options.quick else floor.measure(1, options.device)
        rows = [row(rung, shapes, options.quick) for rung in rungs(options.device, Path(folder), skipped)]
    for language, reason in skipped.items():
        print(f"{language} left out: {reason}")
    version = subprocess.check_output([ladder.compiler(), "--version"], text=True).splitlines()[0]
    result = {
        "schema": 1,
        "kind": "ladder",
        "quick": options.quick,
        **environment.provenance(),
        "machine": environment.machine(options.device),
        "compiler": f"{version}; {' '.join(ladder.FLAGS)}",
        "limits": limits,
        "shapes": shapes,
        "skipped": skipped,
        "rows": rows,
    }
    out = options.out or environment.RESULTS / f"ladder-{environment.machine_name(options.device)}.json"
    environment.write_json(out, result)
    print(f"written: {out.name}; now run python -m bench.report")
    return 0


if __name__ == "__main__":
    sys.exit(main())

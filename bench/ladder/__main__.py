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

    found: dict[str, Callable[[], Iterator[Any]]] = {
        "C++": lambda: ladder.cpp(folder) if device == "cpu" else iter(()),
        "Triton": lambda: ladder.triton(device),
        "CUDA C++": lambda: ladder.cuda_on_gpu() if device == "cuda" else ladder.cuda_on_host(folder),
        "libraries": lambda: ladder.libraries(device),
    }
    if not ladder.installed("triton") or not ladder.installed("torch"):
        skipped["Triton"] = "triton and torch are not installed"
        del found["Triton"]
    for language, own in found.items():
        try:
            yield from own()
        except Exception as error:
            leave_out(device, skipped, language, error)


def leave_out(device: str, skipped: dict[str, str], what: str, error: Exception) -> None:
    """Go on without it on a GPU, where time is short; elsewhere raise."""
    if device == "cpu":
        raise error
    skipped[what] = f"{type(error).__name__}: {error}"[:500]


def compilers(device: str) -> str:
    """What the rungs that are timed are compiled with."""
    from bench.ladder import rungs as ladder

    if device == "cuda":
        return "NVRTC, ptxas"
    version = subprocess.check_output([ladder.compiler(), "--version"], text=True).splitlines()[0]
    return f"{version}; {' '.join(ladder.FLAGS)}"


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

    shapes = QUICK_SHAPES if options.quick else SHAPES
    at = options.device
    skipped: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    result = {
        "schema": 1,
        "kind": "ladder",
        "quick": options.quick,
        **environment.provenance(),
        "machine": environment.machine(at),
        "compiler": compilers(at),
        "limits": None,
        "shapes": shapes,
        "skipped": skipped,
        "rows": rows,
    }
    out = options.out or environment.RESULTS / f"ladder-{environment.machine_name(at)}.json"
    with tempfile.TemporaryDirectory(prefix="minigen-ladder-") as folder:
        for rung in rungs(at, Path(folder), skipped):
            try:
                rows.append(row(rung, shapes, options.quick))
            except Exception as error:
                leave_out(at, skipped, f"{rung.language}, {rung.name}", error)
            environment.write_json(out, result)
    result["limits"] = None if options.quick else floor.measure(1, at)
    environment.write_json(out, result)
    for language, reason in skipped.items():
        print(f"{language} left out: {reason}")
    print(f"written: {out.name}; now run python -m bench.report")
    return 0


if __name__ == "__main__":
    sys.exit(main())

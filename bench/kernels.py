"""All kernel benchmarks into one result file.

    python -m bench.kernels                               # bench/results/kernels-MACHINE.json
    python -m bench.kernels --operation dense --out dense.json
    python -m bench.kernels --device cuda

Runs ``pytest bench --benchmark-only`` in a process of its own; on a CPU with AVX-512 then once more the matrix products
of NumPy alone, with its OpenBLAS told to use AVX-512 (``OPENBLAS_CORETYPE``), which it may not recognise by itself on a
processor newer than it is. NumPy's own loops need no such word: they take the widest instruction set that they know.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import environment
from bench.conftest import LIBRARIES
from minigen import _native

OPERATIONS = tuple(sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py")))
DEVICES = {
    "cpu": ("minigen", "minigen-bf16x6", "numpy", "torch", "torch-compile"),
    "cuda": ("minigen-cuda", "cupy", "torch-cuda", "torch-compile-cuda"),
}
WIDE = "SKYLAKEX"
"""OpenBLAS' name of the oldest processor with AVX-512."""


def measure(operations: list[str], libraries: list[str], folder: Path, coretype: str | None = None) -> dict[str, Any]:
    """What pytest-benchmark writes. Raises RuntimeError where a benchmark fails."""
    out = folder / "benchmarks.json"
    chosen = [f"--library={name}" for name in libraries]
    command = [sys.executable, "-m", "pytest", "--benchmark-only", "--benchmark-quiet", "-q", "-r", "fE", *chosen]
    command += [f"--benchmark-json={out}", *(f"bench/bench_{name}.py" for name in operations)]
    told = {"OPENBLAS_CORETYPE": coretype} if coretype else {}
    ended = subprocess.run(command, cwd=environment.ROOT, env=os.environ | told)
    if ended.returncode:
        raise RuntimeError(f"pytest ended with code {ended.returncode}: see above")
    return json.loads(out.read_text())


def versions(libraries: list[str]) -> dict[str, str]:
    packages = sorted({LIBRARIES[name][1] for name in libraries})
    return {package: importlib.import_module(package).__version__ for package in packages}


def row(benchmark: dict[str, Any]) -> dict[str, Any]:
    """One benchmark: its note, and the samples in seconds a call."""
    note = {key: value for key, value in benchmark["extra_info"].items() if key != "limits"}
    calls = note["calls_per_round"]
    return note | {"samples": [float(f"{seconds / calls:.5g}") for seconds in benchmark["stats"]["data"]]}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.kernels", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=list(DEVICES), default="cpu")
    parser.add_argument("--operation", nargs="+", choices=OPERATIONS, default=list(OPERATIONS))
    parser.add_argument("--out", type=Path, help="result file (default: bench/results/kernels-MACHINE.json)")
    options = parser.parse_args(arguments)
    libraries = DEVICES[options.device]
    installed = [name for name in libraries if importlib.util.find_spec(LIBRARIES[name][1]) is not None]
    wide = options.device == "cpu" and "avx512" in _native.supported_isas()
    print(f"{len(options.operation)} operations, {', '.join(installed)}: minutes for each library", flush=True)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="minigen-bench-") as folder:
        found = measure(options.operation, installed, Path(folder))["benchmarks"]
        if wide and "dense" in options.operation:
            found += measure(["dense"], ["numpy"], Path(folder), WIDE)["benchmarks"]
    cores = {"by itself": environment.openblas_core()}
    cores |= {f"told {WIDE}": environment.openblas_core(WIDE)} if wide else {}
    result = {
        "schema": 1,
        "kind": "kernels",
        **environment.provenance(),
        "machine": environment.machine(options.device),
        "openblas": cores if options.device == "cpu" else {},
        "versions": versions(installed),
        "limits": found[0]["extra_info"]["limits"],
        "not_installed": [name for name in libraries if name not in installed],
        "seconds": round(time.perf_counter() - begin),
        "benchmarks": [row(benchmark) for benchmark in found],
    }
    out = options.out or environment.RESULTS / f"kernels-{environment.machine_name(options.device)}.json"
    environment.write_json(out, result)
    print(f"written: {out.name}, {len(found)} benchmarks in {result['seconds']} s; now run python -m bench.report")
    return 0


if __name__ == "__main__":
    sys.exit(main())

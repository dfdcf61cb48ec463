"""Where the time of each launch goes: Nsight Compute on one step of the GAN, then of the VAE.

The reports go to ``$STAGE_FILES`` (open them with ``ncu-ui``), a summary of each launch into the result. A model's
report is there when its run has ended, so the GAN's outlives a VAE's that is cut off.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import gpu_step
from bench.gpu_result import save
from bench.gpu_step import MANY_ROWS, MODELS, PRECISION

METRICS = {
    "gpu__time_duration.sum": "seconds",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "compute_percent",
    "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed": "memory_percent",
    "dram__bytes_read.sum": "dram_bytes_read",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy_percent",
    "sm__inst_executed_pipe_tensor.sum": "tensor_instructions",
    "smsp__issue_active.avg.pct_of_peak_sustained_active": "issue_percent",
    "launch__registers_per_thread": "registers",
    "launch__occupancy_limit_shared_mem": "blocks_by_shared_memory",
    "launch__waves_per_multiprocessor": "waves",
}
"""What the summary takes from a report, by the profiler's names; one that this version does not know is left out."""
SCALES = {
    "nsecond": 1e-9,
    "ns": 1e-9,
    "usecond": 1e-6,
    "us": 1e-6,
    "msecond": 1e-3,
    "ms": 1e-3,
    "Kbyte": 1e3,
    "Mbyte": 1e6,
    "Gbyte": 1e9,
}
SECONDS = 50  # for one model


def run_profiled(model: str) -> None:
    """Two steps to warm up, then one that the profiler looks at."""
    import cupy

    from minigen.cuda.backend import CudaBackend

    ops = CudaBackend(precision=PRECISION)
    executor: Any = ops.executor
    training = gpu_step.training_on(model, ops, gpu_step.pixels(MANY_ROWS))
    calls = executor.prepare(gpu_step.launches_of(training))
    with executor.device:
        for step in range(3):
            if step == 2:
                executor.synchronize()
                cupy.cuda.runtime.profilerStart()
            for call in calls:
                call()
        executor.synchronize()
        cupy.cuda.runtime.profilerStop()


def command_for(ncu: str, model: str, report: Path) -> list[str]:
    """The caches are left as they are: in a training a step finds its weights there. The clock may not be set here."""
    options = ["--set", "full", "--clock-control", "none", "--cache-control", "none", "--profile-from-start", "off"]
    own = [sys.executable, "-m", "bench.gpu_ncu", "--kernels", model]
    return [ncu, *options, "--force-overwrite", "--export", str(report), *own]


def number(text: str, unit: str) -> float | None:
    try:
        return float(text.replace(",", "")) * SCALES.get(unit, 1.0)
    except ValueError:
        return None


def summarize(text: str) -> list[dict[str, Any]]:
    """One record a launch from ``ncu --page raw --csv``: a line of names, one of units, one for each launch."""
    rows = list(csv.reader(io.StringIO(text[max(0, text.find('"ID"')) :])))
    if len(rows) < 3 or "Kernel Name" not in rows[0]:
        return []
    names, units, *launches = rows
    found = []
    for row in launches:
        if len(row) != len(names):
            continue
        record: dict[str, Any] = {"kernel": row[names.index("Kernel Name")]}
        for name, unit, value in zip(names, units, row, strict=True):
            if name in METRICS:
                record[METRICS[name]] = number(value, unit)
        found.append(record)
    return found


def called(command: list[str], seconds: float) -> tuple[int | None, str, str]:
    """Exit code (None: not done in time), standard output, errors."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        return None, (error.stdout or b"").decode(errors="replace"), f"not done within {seconds:.0f} s"
    except OSError as error:
        return 127, "", str(error)
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def profile(ncu: str, model: str, folder: Path) -> dict[str, Any]:
    """Run, and read the report."""
    report = folder / f"{model}.ncu-rep"
    code, output, errors = called(command_for(ncu, model, report), SECONDS)
    print(f"{output[-1500:]}\n{errors[-1500:]}", flush=True)
    if code != 0 or not report.exists():
        said = output + errors
        why = "no permission to read the counters" if "ERR_NVGPUCTRPERM" in said else said[-800:]
        return {"exit_code": code, "error": why}
    code, text, errors = called([ncu, "--import", str(report), "--page", "raw", "--csv", "--print-units", "base"], 20)
    (folder / f"{model}-ncu.csv").write_text(text)
    return {"exit_code": code, "launches": summarize(text)} | ({"error": errors[-800:]} if code else {})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernels", choices=list(MODELS), help="run a step of this model, which the profiler watches")
    options = parser.parse_args()
    if options.kernels:
        run_profiled(options.kernels)
        return 0
    ncu = shutil.which("ncu") or shutil.which("ncu", path="/usr/local/cuda/bin")
    if ncu is None:
        save({"status": "missing"})
        print("ncu is not installed")
        return 1
    folder = Path(os.environ.get("STAGE_FILES") or ".")
    result: dict[str, Any] = {}
    for model in MODELS:
        result[model] = {"error": "cut off"}
        save(result)
        result[model] = profile(ncu, model, folder)
        save(result)
        for launch in result[model].get("launches", []):
            print(
                model,
                ", ".join(f"{key} {value:.4g}" for key, value in launch.items() if isinstance(value, float)),
                launch["kernel"],
                flush=True,
            )
    return 0 if all(record.get("launches") for record in result.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())

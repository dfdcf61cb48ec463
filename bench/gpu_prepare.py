"""What ``bench/gpu.sh`` takes along so that no minute on a GPU goes into what can be done without one.

    python -m bench.gpu_prepare                    # into bench/prepared, for sm_90; a few minutes
    python -m bench.gpu_prepare --only kernels     # after a change of the kernels: the rest as it is

Compiled kernels of the training steps (they fit only the version of Triton that has made them: use the GPU machine's),
what each launch of a step must write (``tests/ptx`` runs the compiled PTX on NumPy), what the reference comes to after
:data:`STEPS` steps, and the program of ``gpu_costs.cu``. ``manifest.json`` says what it was made of.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench import gpu_step
from bench.environment import provenance
from bench.gpu_result import PREPARED, ROOT, digest, rehearsing, write
from bench.gpu_step import BATCH, FEW_ROWS, MANY_ROWS, MODELS, PRECISION, Touched

PARTS = ("kernels", "outputs", "reference", "costs")
STEPS = 4 if rehearsing() else 100
COSTS = ROOT / "bench" / "gpu_costs.cu"


# --- kernels ----------------------------------------------------------------------------------------------------------


def schedules(architecture: int) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """A name, the backend and the launches of every step that the calls run, the most important first."""
    from bench.peers.minigen_steps import Contender
    from bench.spec import WIDTHS, Spec, initial_weights
    from minigen.cuda.tools.report import planning_backend

    for precision in (PRECISION,) if rehearsing() else (PRECISION, "ieee", "tf32", "bf16"):
        for model in MODELS:
            ops = planning_backend(architecture, precision)
            training = gpu_step.training_on(model, ops, gpu_step.pixels(MANY_ROWS))
            yield f"{model} in {precision}", ops, gpu_step.launches_of(training)
    if rehearsing():
        return

    class Drawn(Contender):
        def backend(self) -> Any:
            return planning_backend(architecture, self.precision or self.spec.precision)

    for precision in (PRECISION, "ieee", "tf32"):
        for model in MODELS:
            spec = Spec(model, WIDTHS[model]["article"], BATCH, MANY_ROWS, device="cuda")
            Drawn.precision = precision
            contender = Drawn(spec, gpu_step.pixels(MANY_ROWS), initial_weights(spec))
            launches = contender.ops.schedule(lambda training=contender.training: training.step.compute(BATCH)).launches
            yield f"{model} of the comparison in {precision}", contender.ops, launches


def compile_kernels(folder: Path, architecture: int) -> dict[str, Any]:
    """Compile into ``folder/kernels``, leave out what no step wants any more: seconds by step, and the keys."""
    os.environ["MINIGEN_CACHE"] = str(folder)
    from minigen.cuda.run import compiler
    from minigen.cuda.run.device import DeviceExecutor

    seconds = {}
    for name, ops, launches in schedules(architecture):
        begin = time.perf_counter()
        DeviceExecutor.compile(ops.executor, launches)  # what a GPU's executor does, on one that only plans
        seconds[name] = round(time.perf_counter() - begin, 2)
        print(f"{name}: {len(launches)} launches, {seconds[name]:.1f} s", flush=True)
    for path in (folder / "kernels").iterdir():
        if path.name not in compiler._binaries:  # all that this process has compiled or read
            path.unlink()
    return {"seconds": seconds, "kernels": len(compiler._binaries)}


# --- outputs ----------------------------------------------------------------------------------------------------------


def ptx_executor(architecture: int) -> Any:
    """What runs compiled kernels without a GPU."""
    sys.path.insert(0, str(ROOT / "tests"))
    from ptx.executor import PtxExecutor

    return PtxExecutor(architecture)


def expected_outputs(model: str, executor: Any) -> dict[str, np.ndarray]:
    """What the buffers of a step hold before it, and what each launch changes: arrays by name, ``plan`` as JSON.

    ``start/b`` is buffer ``b`` before the step; ``launch/i/b`` the same after launch ``i``, where that has changed it.
    """
    from minigen.cuda.backend import CudaBackend

    ops = CudaBackend(executor=executor, precision=PRECISION)
    training = gpu_step.training_on(model, ops, gpu_step.pixels(FEW_ROWS))
    launches = gpu_step.launches_of(training)
    touched = Touched(launches, executor)
    now = [buffer.copy() for buffer in touched.buffers]
    arrays = {f"start/{b}": array for b, array in enumerate(now)}
    for i, launch in enumerate(launches):
        begin = time.perf_counter()
        executor.run(launch)
        for b, buffer in enumerate(touched.buffers):
            if buffer.tobytes() != now[b].tobytes():
                arrays[f"launch/{i}/{b}"] = now[b] = buffer.copy()
        print(f"{model} launch {i + 1} of {len(launches)}: {time.perf_counter() - begin:.1f} s", flush=True)
    plan = {"launches": [launch.name for launch in launches], "shapes": touched.shapes()}
    return arrays | {"plan": np.frombuffer(json.dumps(plan).encode(), np.uint8)}


def reference_run(model: str) -> dict[str, np.ndarray]:
    """Losses of :data:`STEPS` steps and the weights after them, in float64 and in float32."""
    from minigen.reference_backend import NumpyBackend

    arrays = {}
    for name, dtype in (("float64", np.float64), ("float32", np.float32)):
        training = gpu_step.training_on(model, NumpyBackend(dtype), gpu_step.pixels(FEW_ROWS))
        arrays["weights/start"] = np.concatenate([net.params for net in training.step.networks]).astype(np.float32)
        for _ in range(STEPS // training.steps_per_epoch):
            training.run(training.steps_per_epoch)
        if STEPS % training.steps_per_epoch:
            training.run(STEPS % training.steps_per_epoch)
        arrays[f"losses/{name}"] = np.array(training.recent_losses(STEPS))
        arrays[f"weights/{name}"] = np.concatenate([net.params for net in training.step.networks]).astype(np.float32)
    return arrays


# --- costs ------------------------------------------------------------------------------------------------------------


def build_costs(target: Path, architecture: int) -> None:
    """Compile ``gpu_costs.cu``. Raises where nvcc is missing or fails."""
    compiler = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if compiler is None:
        raise FileNotFoundError("nvcc is not installed")
    code = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
    subprocess.run([compiler, "-std=c++17", "-O2", code, str(COSTS), "-o", str(target)], check=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_prepare", description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", type=int, default=90, metavar="SM")
    parser.add_argument("--folder", type=Path, default=PREPARED)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    options = parser.parse_args(arguments)
    import triton

    if rehearsing():  # a pretended GPU has a CuPy that changes what is compiled for it
        importlib.import_module("cupy")
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {
        "schema": 1,
        **provenance(),
        "digest": digest(),
        "triton": triton.__version__,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
        "architecture": options.architecture,
        "rehearsal": rehearsing(),
        "parts": {},
    }
    manifest = folder / "manifest.json"
    if manifest.exists():
        facts["parts"] = json.loads(manifest.read_text()).get("parts", {})
    for part in options.only:
        print(f"--- {part}", flush=True)
        made: dict[str, Any] = {"digest": digest()}
        if part == "kernels":
            made |= compile_kernels(folder, options.architecture)
        elif part == "costs":
            build_costs(folder / "gpu_costs", options.architecture)
            made["source"] = hashlib.sha256(COSTS.read_bytes()).hexdigest()
        else:
            for model in MODELS:
                executor = ptx_executor(options.architecture)
                found = expected_outputs(model, executor) if part == "outputs" else reference_run(model)
                np.savez_compressed(folder / f"{part}-{model}.npz", **found)
        facts["parts"][part] = made
        write(manifest, facts)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 2**20:.1f} MiB, Triton {triton.__version__}, sm_{options.architecture}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

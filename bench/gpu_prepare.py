"""What ``bench/gpu.sh`` takes along so that no minute on a GPU goes into what can be done without one.

    python -m bench.gpu_prepare                    # into bench/prepared, for sm_90; a few minutes
    python -m bench.gpu_prepare --only kernels     # after a change of the kernels: the rest as it is
    python -m bench.gpu_prepare --calls A          # no kernels but those of the first call

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
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import gpu_kernels, gpu_step
from bench.environment import provenance
from bench.gpu_result import PREPARED, ROOT, digest, rehearsing, write
from bench.gpu_step import BATCH, FEW_ROWS, MODELS, PRECISION, Touched

CALLS = "ABC"
PARTS = ("kernels", "outputs", "reference", "costs")
STEPS = 4 if rehearsing() else 100
COSTS = ROOT / "bench" / "gpu_costs.cu"
TESTS = ROOT / "tests"


# --- kernels ----------------------------------------------------------------------------------------------------------


def compile_kernels(folder: Path, architecture: int, calls: Sequence[str]) -> dict[str, Any]:
    """Compile into ``folder/kernels`` what these calls want: seconds by work, and how many kernels there are.

    If it is all calls, what nobody wants any more goes. The calls' own work is done on a GPU that computes nothing:
    what it asks for is compiled.
    """
    os.environ["MINIGEN_CACHE"] = str(folder)
    if not rehearsing():
        pretend(architecture)
    from minigen.cuda.run import compiler

    seconds = {}
    for call, name, work in works():
        if call not in calls:
            continue
        begin, before = time.perf_counter(), len(compiler._binaries)
        work()
        seconds[name] = round(time.perf_counter() - begin, 2)
        print(f"{call}, {name}: {len(compiler._binaries) - before} kernels, {seconds[name]:.1f} s", flush=True)
    if set(calls) == set(CALLS):
        for path in (folder / "kernels").iterdir():
            if path.name not in compiler._binaries:  # all that this process has compiled or read
                path.unlink()
    return {"seconds": seconds, "kernels": len(compiler._binaries)}


def pretend(architecture: int) -> None:
    """From now on this process has a GPU, a stand-in for CuPy."""
    sys.path.insert(0, str(TESTS))
    from fake_cupy import FakeCupy, bindings

    from minigen.cuda.run import driver

    fake = FakeCupy(memory=2**36, capability=str(architecture), fill=0)
    sys.modules.update({"cupy": fake} | bindings(fake))
    driver._has_driver = lambda: True


def works() -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """What the calls do: a call, a name, and the work."""
    import minigen
    from bench import gpu_smoke, many
    from bench.peers import contender_class, many_minigen
    from bench.spec import WIDTHS, Spec, check_inputs, initial_weights

    rows = gpu_step.pixels(FEW_ROWS)

    def article(model: str, at_once: int = 1) -> Spec:
        return Spec(model, WIDTHS[model]["article"], BATCH, FEW_ROWS, device="cuda", at_once=at_once)

    def compared(module: str, model: str) -> None:
        spec = article(model)
        contender = contender_class(f"bench.peers.{module}")(spec, rows, initial_weights(spec))
        contender.check(*check_inputs(spec, 1))
        contender.run(2)

    for model in MODELS:
        yield "A", f"{model} in {PRECISION}", partial(compile_step, model, PRECISION)
    yield "A", "random numbers", lambda: gpu_smoke.random_numbers(on_cuda(PRECISION))
    yield "A", "several models", lambda: minigen.fit_many(gpu_smoke.models_of_two_kinds(), rows, progress=False)
    if rehearsing():
        return
    for call, model in (("B", "gan"), ("C", "vae")):
        for module in ("minigen_tf32x3", "minigen_steps"):
            yield call, f"{model} of the comparison, {module}", partial(compared, module, model)
    some = gpu_step.pixels(FEW_ROWS + 96)  # as many in the last batch as of 60,000 rows
    for name, train in (("GAN", minigen.train_gan), ("VAE", minigen.train_vae)):
        yield "B", name, partial(train, some, epochs=1, batch_size=BATCH, device="cuda", progress=False)
    for at_once in many.COUNTS["cuda"]:
        for exact in (False, True):
            work = partial(many_minigen.train, article("gan", at_once), rows, 1, exact)
            yield "C", f"{at_once} GANs, exact={exact}", work
    for precision in gpu_kernels.PRECISIONS:
        for shape in gpu_kernels.SHAPES:
            yield "C", f"products {shape} in {precision}", partial(compile_products, precision, shape)
    for precision in ("ieee", "tf32", "bf16"):
        for model in MODELS:
            yield "C", f"{model} in {precision}", partial(compile_step, model, precision)


def on_cuda(precision: str) -> Any:
    from minigen.cuda.backend import CudaBackend

    return CudaBackend(precision=precision)


def compile_step(model: str, precision: str) -> None:
    ops = on_cuda(precision)
    ops.executor.compile(gpu_step.launches_of(gpu_step.training_on(model, ops, gpu_step.pixels(FEW_ROWS))))


def compile_products(precision: str, shape: tuple[int, int, int]) -> None:
    ops = on_cuda(precision)
    layer = gpu_kernels.Layer(ops, *shape)
    calls = (layer.forward, layer.dgrad, layer.wgrad)
    ops.executor.compile([launch for call in calls for launch in ops.schedule(call, fuse=False).launches])


# --- outputs ----------------------------------------------------------------------------------------------------------


def ptx_executor(architecture: int) -> Any:
    """What runs compiled kernels without a GPU."""
    sys.path.insert(0, str(TESTS))
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
    parser.add_argument("--calls", default=CALLS, help="whose kernels are compiled: A, for example (default: all)")
    options = parser.parse_args(arguments)
    if not set(options.calls) <= set(CALLS):
        parser.error(f"the calls are {CALLS}, not {options.calls}")
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
            made |= compile_kernels(folder, options.architecture, options.calls)
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

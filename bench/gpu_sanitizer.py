"""Kernels under compute-sanitizer: no access outside of a buffer, no race in shared memory.

Without arguments it starts itself under each tool, for the CUDA C++ kernels on odd sizes, against the reference; with
``--triton`` for one fused step of the GAN, launch by launch, against what was recorded beforehand. Every buffer is an
allocation of its own and of its exact size, because the sanitizer does not see the blocks inside of an arena.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu_result import PREPARED, save
from minigen.cuda import cpp
from minigen.reference import batch, optimizer, random

TOOLS = ("memcheck", "racecheck")
FOUND = 9  # exit code for errors that the sanitizer found


def exact_executor() -> Any:
    """The device executor, but each buffer is an allocation of its own."""
    from minigen.cuda.run.device import DeviceExecutor

    class Exact(DeviceExecutor):
        def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
            nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            with self.device:
                memory = self.cupy.cuda.Memory(max(nbytes, 1))
            return self.cupy.ndarray(shape, dtype, self.cupy.cuda.MemoryPointer(memory, 0))

    return Exact()


def run_kernels(executor: Any) -> None:
    for n in (1, 5, 127, 4099, 1_000_003):
        check_random(executor, n)
        check_optimizers(executor, n)
    for D in (1, 3, 31, 784):
        for dtype in (np.uint8, np.float32):
            check_batch(executor, D, dtype)
    executor.synchronize()


def check_random(executor: Any, n: int) -> None:
    step = executor.upload(np.array([11], np.uint64))
    uniform, normal = (executor.empty((n,), np.float32) for _ in range(2))
    executor.run(cpp.random_uniform(uniform, 5, 6, step))
    executor.run(cpp.random_normal(normal, 5, 6, step))
    np.testing.assert_array_equal(executor.download(uniform), random.uniform((n,), 5, 6, 11))
    expected = random.normal((n,), 5, 6, 11, np.float64)
    np.testing.assert_allclose(executor.download(normal), expected, rtol=0, atol=3e-6)


def check_optimizers(executor: Any, n: int) -> None:
    """Two vectors at once; the second one is shorter."""
    rng = np.random.default_rng()
    step, rate = executor.upload(np.array([11], np.uint64)), 0.01
    for name, slots in (("adam", 2), ("sgd", 1)):
        host = [[rng.random(size, np.float32) for _ in range(2 + slots)] for size in (n, n // 2 + 1)]
        vectors = [tuple(map(executor.upload, [*arrays, np.array([rate], np.float32)])) for arrays in host]
        if name == "adam":
            executor.run(cpp.adam(executor, vectors, step))
        else:
            executor.run(cpp.sgd(executor, vectors, 0.9, 0.01))
        for arrays, buffers in zip(host, vectors, strict=True):
            doubles = [array.astype(np.float64) for array in arrays]
            wanted: Any = optimizer.sgd(*doubles, rate, 0.9, 0.01) if slots == 1 else optimizer.adam(*doubles, rate, 12)
            np.testing.assert_allclose(executor.download(buffers[0]), wanted[0], rtol=1e-5, atol=1e-6)


def check_batch(executor: Any, D: int, dtype: Any) -> None:
    rng = np.random.default_rng()
    step = executor.upload(np.array([11], np.uint64))
    host = rng.integers(0, 256, (50, D)).astype(dtype)
    data, chosen = executor.upload(host), batch.indices(7, 50, 5, 1, 11, 7, 7)
    indices, again = (executor.empty((7,), np.int32) for _ in range(2))
    gathered, taken = (executor.empty((7, D), np.float32) for _ in range(2))
    executor.run(cpp.batch_indices(indices, 50, 5, 1, step, 7, 7))
    executor.run(cpp.batch_gather(data, indices, gathered, 0.5, -1.0))
    executor.run(cpp.batch_take(data, again, taken, 5, 1, step, 7, 7, 0.5, -1.0))
    np.testing.assert_array_equal(executor.download(indices), chosen)
    np.testing.assert_array_equal(executor.download(again), chosen)
    np.testing.assert_array_equal(executor.download(gathered), host[chosen] * np.float32(0.5) - 1)
    np.testing.assert_array_equal(executor.download(taken), executor.download(gathered))


def run_step(executor: Any) -> None:
    """Each launch of one fused step of the GAN."""
    from bench import gpu_step
    from bench.gpu_smoke import Replay
    from minigen.cuda.backend import CudaBackend

    replay = Replay("gan", CudaBackend(executor=executor, precision=gpu_step.PRECISION), PREPARED)
    for i, launch in enumerate(replay.launches):
        if replay.problem:
            executor.run(launch)
            executor.synchronize()
            facts = replay.problem
        else:
            facts = str(replay.check(i))
        print(f"launch {i + 1}, {launch.name}: {facts}", flush=True)


def command_for(tool: str, sanitizer: str, kernels: str) -> list[str]:
    # What libraries ask the driver in vain while they start is no fault of a kernel; our own calls raise.
    options = ["--report-api-errors", "no"] if tool == "memcheck" else []
    own = [sys.executable, "-m", "bench.gpu_sanitizer", "--kernels", kernels]
    return [sanitizer, "--tool", tool, *options, "--error-exitcode", str(FOUND), *own]


def side_by_side(commands: dict[str, list[str]]) -> dict[str, Any]:
    """Run all at once: for each its exit code and the end of what it printed, saved as they end."""
    results: dict[str, Any] = {name: {"exit_code": None, "summary": "still running"} for name in commands}
    save(results)
    with tempfile.TemporaryDirectory(prefix="minigen-sanitizer-") as folder:
        logs = {name: Path(folder) / name for name in commands}
        running = {}
        for name, command in commands.items():
            with logs[name].open("wb") as log:
                running[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        begin = time.monotonic()
        while running:
            time.sleep(0.2)
            for name, process in list(running.items()):
                output = logs[name].read_text(errors="replace")
                last = (output.strip().splitlines() or ["nothing was printed"])[-1]
                code = process.poll()
                results[name] = {"exit_code": code, "summary": last, "seconds": time.monotonic() - begin}
                if code is not None:
                    del running[name]
                    print(f"--- {name}: exit code {code}\n{output[-3000:]}", flush=True)
            save(results)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--triton", action="store_true", help="a fused step of the GAN")
    parser.add_argument("--kernels", choices=["cpp", "triton"], help="run these kernels, which the sanitizer watches")
    options = parser.parse_args()
    if options.kernels:
        (run_step if options.kernels == "triton" else run_kernels)(exact_executor())
        return 0
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if sanitizer is None:
        save({"status": "missing"})
        print("compute-sanitizer is not installed")
        return 1
    kernels = "triton" if options.triton else "cpp"
    results = side_by_side({tool: command_for(tool, sanitizer, kernels) for tool in TOOLS})
    return 0 if all(result["exit_code"] == 0 for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

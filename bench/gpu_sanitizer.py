"""The CUDA C++ kernels under compute-sanitizer: no access outside of a buffer, no race in shared memory.

Run without arguments it starts itself under each tool; with ``--kernels`` it runs the kernels on odd sizes and compares
them with the book. Every buffer is an allocation of its own and of its exact size, because the sanitizer does not see
the blocks inside of an arena.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Any

import numpy as np

from bench.gpu_result import save

TOOLS = ("memcheck", "racecheck")
FOUND = 9  # exit code for errors that the sanitizer found


class ExactExecutor:
    """The device executor, but each buffer is an allocation of its own."""

    def __new__(cls) -> Any:
        from minigen.cuda.device import DeviceExecutor

        class Executor(DeviceExecutor):
            def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
                nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
                with self.device:
                    memory = self.cupy.cuda.Memory(max(nbytes, 1))
                return self.cupy.ndarray(shape, dtype, self.cupy.cuda.MemoryPointer(memory, 0))

        return Executor()


def run_kernels() -> None:
    from minigen.cuda import cpp
    from minigen.reference import batch, optimizer, random

    executor, rng = ExactExecutor(), np.random.default_rng()
    up = executor.upload
    step = up(np.array([11], np.uint64))
    for n in (1, 5, 127, 4099, 1_000_003):
        uniform, normal = (executor.empty((n,), np.float32) for _ in range(2))
        executor.run(cpp.random_uniform(uniform, 5, 6, step))
        executor.run(cpp.random_normal(normal, 5, 6, step))
        np.testing.assert_array_equal(executor.download(uniform), random.uniform((n,), 5, 6, 11))
        expected = random.normal((n,), 5, 6, 11, np.float64)
        np.testing.assert_allclose(executor.download(normal), expected, rtol=0, atol=3e-6)
        p, g, m, v = (rng.random(n, np.float32) for _ in range(4))
        rate = np.array([0.01], np.float32)
        state = [up(x) for x in (p, g, m, v, rate)]
        executor.run(cpp.adam(executor, [tuple(state), tuple(up(x) for x in (p, g, m, v, rate))], step))
        wanted = optimizer.adam(*(x.astype(np.float64) for x in (p, g, m, v)), float(rate[0]), 12)
        np.testing.assert_allclose(executor.download(state[0]), wanted[0], rtol=1e-5, atol=1e-6)
        state = [up(x) for x in (p, g, m, rate)]
        executor.run(cpp.sgd(executor, [tuple(state)], 0.9, 0.01))
        wanted = optimizer.sgd(*(x.astype(np.float64) for x in (p, g, m)), float(rate[0]), 0.9, 0.01)
        np.testing.assert_allclose(executor.download(state[0]), wanted[0], rtol=1e-5, atol=1e-6)
    for D in (1, 3, 31, 784):
        for dtype in (np.uint8, np.float32):
            data = rng.integers(0, 256, (50, D)).astype(dtype)
            indices, out = executor.empty((7,), np.int32), executor.empty((7, D), np.float32)
            executor.run(cpp.batch_indices(indices, 50, 5, 1, step, 7, 7))
            chosen = batch.indices(7, 50, 5, 1, 11, 7, 7)
            np.testing.assert_array_equal(executor.download(indices), chosen)
            executor.run(cpp.batch_gather(up(data), indices, out, 0.5, -1.0))
            np.testing.assert_array_equal(executor.download(out), data[chosen] * np.float32(0.5) - 1)
            again = executor.empty((7, D), np.float32)
            executor.run(cpp.batch_take(up(data), indices, again, 5, 1, step, 7, 7, 0.5, -1.0))
            np.testing.assert_array_equal(executor.download(again), executor.download(out))
    executor.synchronize()


def main() -> int:
    if sys.argv[1:] == ["--kernels"]:
        run_kernels()
        return 0
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if sanitizer is None:
        save({"status": "missing"})
        print("compute-sanitizer is not installed")
        return 1
    results: dict[str, Any] = {}
    for tool in TOOLS:
        command = [sanitizer, "--tool", tool, "--error-exitcode", str(FOUND), sys.executable, "-m"]
        run = subprocess.run([*command, "bench.gpu_sanitizer", "--kernels"], capture_output=True, text=True)
        output = run.stdout + run.stderr
        results[tool] = {"exit_code": run.returncode, "summary": output.strip().splitlines()[-1:]}
        save(results)
        print(f"--- {tool}: exit code {run.returncode}\n{output[-2000:]}")
    return 0 if all(result["exit_code"] == 0 for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

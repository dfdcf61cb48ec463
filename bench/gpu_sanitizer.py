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
from minigen.cuda import cpp
from minigen.reference import batch, optimizer, random

TOOLS = ("memcheck", "racecheck")
FOUND = 9  # exit code for errors that the sanitizer found


def exact_executor() -> Any:
    """The device executor, but each buffer is an allocation of its own."""
    from minigen.cuda.device import DeviceExecutor

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


def main() -> int:
    if sys.argv[1:] == ["--kernels"]:
        run_kernels(exact_executor())
        return 0
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if sanitizer is None:
        save({"status": "missing"})
        print("compute-sanitizer is not installed")
        return 1
    results: dict[str, Any] = {}
    for tool in TOOLS:
        # What libraries ask the driver in vain while they start is no fault of a kernel; our own calls raise.
        options = ["--report-api-errors", "no"] if tool == "memcheck" else []
        command = [sanitizer, "--tool", tool, *options, "--error-exitcode", str(FOUND), sys.executable, "-m"]
        run = subprocess.run([*command, "bench.gpu_sanitizer", "--kernels"], capture_output=True, text=True)
        output = run.stdout + run.stderr
        results[tool] = {"exit_code": run.returncode, "summary": output.strip().splitlines()[-1:]}
        save(results)
        print(f"--- {tool}: exit code {run.returncode}\n{output[-2000:]}")
    return 0 if all(result["exit_code"] == 0 for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

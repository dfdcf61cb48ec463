"""The floor under a step: the arithmetic and the traffic that no implementation avoids, over what this machine does.

    python -m bench.floor --threads 2

measures the machine: the peak of fused multiply-adds (`minigen._native.fma_peak_gflops`, or the largest matrix product
of NumPy where minigen is not built) and the bandwidth of a copy too large for any cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.spec import Spec
from bench.worker import limit_threads

COPY_BYTES = 1 << 30
MATMUL_SIZE = 4096


def flops(spec: Spec) -> int:
    """Floating-point operations of one step's matrix products, a multiply-add counted as two. All else is small.

    A layer's product costs ``2 B I O`` in each of forward, weight gradient and input gradient; the input gradient of a
    network's first layer is not needed, except where the generator trains through the discriminator.
    """
    first, second = spec.networks
    if spec.model == "vae":
        return spec.batch * (_training(first) + _training(second) + 2 * second[0] * second[1])
    discriminator_step = _forward(first) + 2 * _training(second)
    generator_step = _training(first) + 2 * _forward(second)
    return spec.batch * (discriminator_step + generator_step + _penalty(spec))


def _penalty(spec: Spec) -> int:
    """Of a row: a gradient back to the input, its tangent forward and the weights' gradients (`bench.oracle_variants`).

    WGAN-GP's rows lie between others, so that their forward pass comes first.
    """
    return {"gan-r1": 3, "wgan-gp": 4}.get(spec.model, 0) * _forward(spec.networks[1])


def _forward(sizes: tuple[int, ...]) -> int:
    return sum(2 * i * o for i, o in zip(sizes, sizes[1:], strict=False))


def _training(sizes: tuple[int, ...]) -> int:
    return 3 * _forward(sizes) - 2 * sizes[0] * sizes[1]


def bytes_moved(spec: Spec) -> int:
    """Bytes that one step must read and write: weights and both Adam moments once each way, and the batch as uint8.

    Gradients and activations count nothing: a perfect implementation keeps them near the core. Where weights and
    moments stay in a cache from step to step, the real traffic to memory is smaller still.
    """
    return 6 * 4 * spec.parameters + spec.batch * spec.columns


def floor(spec: Spec, machine: dict[str, Any] | None) -> dict[str, float]:
    """The floor of one step, in seconds where ``machine`` is as `measure` describes it."""
    counts: dict[str, float] = {"flops": flops(spec), "bytes": bytes_moved(spec)}
    if machine is None:
        return counts
    arithmetic = flops(spec) / (machine["peak_gflops"] * 1e9)
    memory = bytes_moved(spec) / (machine["bandwidth_gbytes"] * 1e9)
    return counts | {"arithmetic_seconds": arithmetic, "memory_seconds": memory}


def measure(threads: int, device: str = "cpu", precision: str = "ieee") -> dict[str, Any]:
    """Peak and bandwidth with ``threads`` cores, measured in a process of its own."""
    command = [sys.executable, "-m", "bench.floor", "--threads", str(threads), "--device", device]
    # CuPy's float32 products use TF32 when this is set.
    environment = os.environ | {"CUPY_TF32": str(int(precision == "tf32"))}
    root = Path(__file__).resolve().parent.parent
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def best_seconds(work: Any, repeats: int = 5) -> float:
    """Shortest of a few runs: a limit is what the machine does undisturbed."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def cpu_peak_gflops(threads: int) -> tuple[float, str]:
    try:
        from minigen import _native
    except ImportError:
        import numpy as np

        a = np.ones((MATMUL_SIZE, MATMUL_SIZE), np.float32)
        return 2 * MATMUL_SIZE**3 / best_seconds(lambda: a @ a) / 1e9, f"NumPy matmul of {MATMUL_SIZE}^3"
    return max(_native.fma_peak_gflops(threads, 0.3) for _ in range(3)), "fused multiply-adds in registers"


def cpu_bf16_peak(threads: int) -> dict[str, float]:
    """The peak of products in bf16, where minigen has them on this machine."""
    try:
        from minigen import _native
    except ImportError:
        return {}
    if not _native.supported_bf16():
        return {}
    return {"bf16_peak_gflops": max(_native.bf16_peak_gflops(threads, 0.3) for _ in range(3))}


def cpu_bandwidth_gbytes(threads: int) -> float:
    import numpy as np

    source, target = np.ones(COPY_BYTES, np.uint8), np.zeros(COPY_BYTES, np.uint8)
    parts = [slice(k * COPY_BYTES // threads, (k + 1) * COPY_BYTES // threads) for k in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        fastest = best_seconds(lambda: list(pool.map(lambda p: np.copyto(target[p], source[p]), parts)))
    return 2 * COPY_BYTES / fastest / 1e9


def cuda_limits() -> dict[str, Any]:
    import cupy

    a = cupy.ones((2 * MATMUL_SIZE, 2 * MATMUL_SIZE), cupy.float32)
    source, target = (cupy.zeros(COPY_BYTES, cupy.uint8) for _ in range(2))

    def waiting(work: Any) -> Any:
        def run() -> None:
            work()
            cupy.cuda.Device().synchronize()

        run()
        return run

    return {
        "peak_gflops": 2 * (2 * MATMUL_SIZE) ** 3 / best_seconds(waiting(lambda: a @ a)) / 1e9,
        "peak_method": f"cuBLAS matmul of {2 * MATMUL_SIZE}^3",
        "bandwidth_gbytes": 2 * COPY_BYTES / best_seconds(waiting(lambda: cupy.copyto(target, source))) / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the machine's arithmetic peak and memory bandwidth.")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    if arguments.device == "cuda":
        print(json.dumps(cuda_limits()))
        return
    limit_threads(arguments.threads)
    peak, method = cpu_peak_gflops(arguments.threads)
    limits = {"peak_gflops": peak, "peak_method": method} | cpu_bf16_peak(arguments.threads)
    print(json.dumps(limits | {"bandwidth_gbytes": cpu_bandwidth_gbytes(arguments.threads)}))


if __name__ == "__main__":
    main()

"""Kernels one by one: dense layers beside cuBLAS and torch.compile, CUDA C++ beside Triton, the card's ceilings.

Each matrix product's inputs are of three sets in turn, so that a set is not in the cache from the time before where
three do not fit. PyTorch is a stage of its own (``--torch``), which comes first: minigen's figures mean something
beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench.gpu_result import keep_busy, rehearsing, save

SHAPES = [(64, 48, 32)] if rehearsing() else [(1024, 1024, 1024), (4096, 4096, 4096)]
"""(B, I, O)"""
PRECISIONS = ("tf32x3", "bf16x6", "bf16x3", "tf32", "bf16", "ieee")
SETS = 3
REPEATS = 15
COPY = 2**31  # bytes

Samples = list[float]


# --- minigen ---------------------------------------------------------------------------------------


def dense(precision: str, shape: tuple[int, int, int]) -> list[dict[str, Any]]:
    from minigen.cuda.backend import CudaBackend
    from minigen.cuda.tools import measure

    ops = CudaBackend(precision=precision)
    executor: Any = ops.executor
    results = []
    layers = [Layer(ops, *shape) for _ in range(SETS)]
    for name in ("forward", "dgrad", "wgrad"):
        calls = [getattr(layer, name) for layer in layers]
        launches = [launch for call in calls for launch in ops.schedule(call, fuse=False).launches]
        graph = executor.record(executor.prepare(launches), 1)

        def work(graph: Any = graph) -> None:
            graph.launch(executor.stream)

        keep_busy(executor, work, 0.2 if results else 1.0)
        samples = measure.samples(executor, work, REPEATS)
        results.append(row(name, shape, precision, [s / SETS for s in samples]))
    return results


class Layer:
    """A dense layer with inputs and outputs of its own."""

    def __init__(self, ops: Any, B: int, n_in: int, n_out: int) -> None:
        rng = np.random.default_rng()
        shapes = {"x": (B, n_in), "W": (n_in, n_out), "b": (n_out,), "dz": (B, n_out)}
        self.ops = ops
        self.x, self.W, self.b, self.dz = (ops.upload(rng.standard_normal(s, np.float32)) for s in shapes.values())
        self.y, self.dx, self.dW, self.db = (ops.empty(shapes[name]) for name in ("dz", "x", "W", "b"))

    def forward(self) -> None:
        self.ops.dense_forward(self.x, self.W, self.b, self.y, "relu")

    def dgrad(self) -> None:
        self.ops.dense_dgrad(self.dz, self.W, self.dx, self.x, "relu")

    def wgrad(self) -> None:
        self.ops.dense_wgrad(self.x, self.dz, self.dW, self.db)


def both_languages() -> Iterator[dict[str, Any]]:
    """The optimizer, normals and the gather: which of the two kernels of each is faster."""
    from minigen.cuda import cpp
    from minigen.cuda.backend import CudaBackend
    from minigen.cuda.tools import measure

    ops = CudaBackend()
    executor: Any = ops.executor
    rng = np.random.default_rng()
    step, rate = ops.upload(np.zeros(1, np.uint64)), ops.upload(np.full(1, 1e-3, np.float32))
    data = ops.upload(rng.integers(0, 256, (60_000, 784), np.uint8))
    cases: list[tuple[str, int, Any, Callable[[], None]]] = []
    for n in (118_000, 2**24):
        p, g, m, v = (ops.upload(rng.random(n, np.float32)) for _ in range(4))
        launch = cpp.adam(executor, [(p, g, m, v, rate)], step)
        cases.append(("adam", n, launch, lambda p=p, g=g, m=m, v=v: ops.adam(p, g, m, v, rate, step)))
    for n in (12_800, 2**24):
        out = ops.empty((n,))
        launch = cpp.random_normal(out, 1, 2, step)
        cases.append(("random_normal", n, launch, lambda out=out: ops.random_normal(out, 1, 2, step)))
    for n in (128, 8192):
        out = ops.empty((n, 784))
        chosen = ops.upload(rng.integers(0, 60_000, n).astype(np.int32))
        launch = cpp.batch_gather(data, chosen, out, 1 / 127.5, -1.0)

        def gather(out: Any = out, chosen: Any = chosen) -> None:
            ops.batch_gather(data, chosen, out, 1 / 127.5, -1.0)

        cases.append(("batch_gather", n, launch, gather))
    for name, n, launch, call in cases:
        (triton,) = ops.schedule(call, fuse=False).launches
        timed = {"cuda": measure.launch_samples(executor, launch), "triton": measure.launch_samples(executor, triton)}
        yield {"operation": name, "n": n, "bytes": launch.bytes, **timed}


def row(name: str, shape: tuple[int, int, int], precision: str, samples: Samples) -> dict[str, Any]:
    B, n_in, n_out = shape
    return {
        "operation": name,
        "shape": shape,
        "precision": precision,
        "flops": 2 * B * n_in * n_out,
        "samples": samples,
    }


# --- PyTorch ---------------------------------------------------------------------------------------


def torch_main() -> None:
    """Eager (``_addmm_activation`` is cuBLAS with bias and ReLU in its epilogue), torch.compile, and the ceilings."""
    import torch

    result: dict[str, Any] = {"torch": torch.__version__, "rows": []}
    result["copy_bytes_per_second"] = copy_bandwidth(torch)
    save(result)
    for mode in ("eager", "compile"):  # compiling takes most of the time: what needs none comes first
        for shape in SHAPES:
            for precision in ("ieee", "tf32", "bf16"):
                torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
                for name, samples in torch_layer(torch, shape, precision, mode).items():
                    result["rows"].append(row(name, shape, precision, samples) | {"mode": mode})
                    rate = 2 * np.prod(shape, dtype=float) / float(np.median(samples)) / 1e12
                    print(f"torch {mode} {name} {shape} {precision}: {rate:.1f} TFLOP/s", flush=True)
                save(result)


def torch_layer(torch: Any, shape: tuple[int, int, int], precision: str, mode: str) -> dict[str, Samples]:
    B, n_in, n_out = shape
    kind = torch.bfloat16 if precision == "bf16" else torch.float32

    def draw(*size: int) -> Any:
        return torch.randn(size, device="cuda", dtype=kind)

    sets = [(draw(B, n_in), draw(n_in, n_out), draw(n_out), draw(B, n_out)) for _ in range(SETS)]

    def forward(x: Any, W: Any, b: Any, dz: Any) -> Any:
        return torch._addmm_activation(b, x, W) if mode == "eager" else torch.relu(torch.addmm(b, x, W))

    def dgrad(x: Any, W: Any, b: Any, dz: Any) -> Any:
        return (dz @ W.T) * (x > 0)

    def wgrad(x: Any, W: Any, b: Any, dz: Any) -> Any:
        return x.T @ dz, dz.sum(0)

    layer = {"forward": forward, "dgrad": dgrad, "wgrad": wgrad}
    if mode == "compile":
        layer = {name: torch.compile(function) for name, function in layer.items()}
    return {name: torch_samples(torch, function, sets) for name, function in layer.items()}


def torch_samples(torch: Any, function: Any, sets: list[Any]) -> Samples:
    """Seconds a call, from a graph of one call for each set."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for one in sets:
            function(*one)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [function(*one) for one in sets]
    samples = []
    for _ in range(3 + REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end) / 1e3 / len(sets))
    del kept
    return samples[3:]


def copy_bandwidth(torch: Any) -> Samples:
    """Bytes a second, read plus written, of a copy within the card's memory."""
    a = torch.randint(0, 256, (COPY,), device="cuda", dtype=torch.uint8)
    b = torch.empty_like(a)
    speeds = []
    for _ in range(3 + REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        b.copy_(a)
        end.record()
        end.synchronize()
        speeds.append(2 * COPY / (begin.elapsed_time(end) / 1e3))
    return speeds[3:]


def report(result: dict[str, Any]) -> None:
    """The end of the log: one line a product, TFLOP/s of the medians."""
    rates: dict[tuple[Any, ...], dict[str, float]] = {}
    for r in result["dense"]:
        key = (r["operation"], tuple(r["shape"]), r["precision"])
        rates.setdefault(key, {})["minigen"] = r["flops"] / float(np.median(r["samples"])) / 1e12
    for (name, shape, precision), found in rates.items():
        figures = ", ".join(f"{who} {rate:.1f}" for who, rate in found.items())
        print(f"{name:8} {'x'.join(map(str, shape)):16} {precision:7} TFLOP/s: {figures}")
    for r in result["languages"]:
        us = {language: 1e6 * float(np.median(r[language])) for language in ("cuda", "triton")}
        print(f"{r['operation']:14} n = {r['n']:9}: C++ {us['cuda']:.2f} us, Triton {us['triton']:.2f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", action="store_true", help="measure PyTorch")
    if parser.parse_args().torch:
        torch_main()
        return
    result: dict[str, Any] = {"dense": [], "languages": []}
    for shape in SHAPES:
        for precision in PRECISIONS:
            result["dense"] += dense(precision, shape)
            save(result)
    for languages in both_languages():
        result["languages"].append(languages)
        save(result)
    report(result)


if __name__ == "__main__":
    main()

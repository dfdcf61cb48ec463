"""Shared by the kernel benchmarks: who is measured, how a call is repeated, and what the machine could do.

    python -m bench.kernels                          # all, written to bench/results/kernels-MACHINE.json
    pytest bench --benchmark-only                    # the same on the terminal
    pytest bench/bench_random.py --benchmark-only --library minigen --library numpy

Each file `bench_<operation>.py` runs the shapes of the models and a sweep, for every library that is installed. A
kernel takes microseconds, so that one timed round repeats it; ``extra_info`` holds the median time of one call, its
GFLOP/s and GB/s (of the bytes that must move; a small shape moves them to a cache and can pass the memory's bandwidth),
and both as a share of what this machine does: of the bandwidth that `bench.floor` measured at the start, and of the
peak of multiply-adds measured right before and after the kernel (the larger), because the clock changes.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import environment, floor

THREADS = environment.cores()
ROUNDS = 25
WORK_PER_ROUND = {"cpu": (2e7, 2e8), "cuda": (2e9, 2e10)}
"""Bytes moved or FLOPs done after which a round ends; it repeats a call at most 1000 times."""


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect ``bench_*.py``, which pytest does not look for by itself unless one is named."""
    if file_path.match("bench_*.py") and not parent.session.isinitpath(file_path):
        return pytest.Module.from_parent(parent, path=file_path)
    return None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--library", action="append", choices=list(LIBRARIES), help="measure these alone (default: all installed)"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without the libraries that ``--library`` leaves out, and without the rows that nobody would learn from.

    The libraries of a case follow each other: the clock of a machine that others share changes by the minute.
    """
    chosen = config.getoption("--library") or list(LIBRARIES)
    amx = has_amx()

    def wanted(item: Any) -> bool:
        case = item.callspec.params
        if case["library"] == "minigen-bf16x6" and not (amx and list(item.iter_markers("in_bf16x6"))):
            return False  # no such kernel, or the same as minigen's
        return case["library"] in chosen and all(mark.args[0](**case) for mark in item.iter_markers("rows"))

    config.hook.pytest_deselected(items=[item for item in items if not wanted(item)])
    cases: dict[Any, int] = {}
    for item in items:
        cases.setdefault(case_of(item), len(cases))
    items[:] = sorted((item for item in items if wanted(item)), key=lambda item: cases[case_of(item)])


def case_of(item: Any) -> tuple[Any, ...]:
    """What a benchmark measures, whichever library does it."""
    return item.path, item.originalname, str({k: v for k, v in item.callspec.params.items() if k != "library"})


def pytest_configure(config: pytest.Config) -> None:
    """``--benchmark-only`` wins over the ``--benchmark-disable`` of the project's settings."""
    config.addinivalue_line("markers", "rows(where): measured only where where(library, ...) of the case is true")
    config.addinivalue_line("markers", "in_bf16x6: has a kernel for this precision")
    config.addinivalue_line("markers", "slow: of the tests; the project's settings deselect them by name")
    if config.getoption("benchmark_only", False):
        config.option.benchmark_disable = False


def has_cuda() -> bool:
    from minigen.device import devices

    return devices()["cuda"].usable


def has_amx() -> bool:
    try:
        from minigen import _native
    except ImportError:
        return False  # minigen is not built
    return "amx" in _native.supported_bf16()


class Minigen:
    """A backend of minigen: a call is captured once and repeated by the backend, as in training."""

    kind = "minigen"

    def __init__(self, device: str, precision: str = "") -> None:
        from minigen.device import get_backend

        self.device = device
        self.ops = get_backend(device, precision or ("ieee" if device == "cpu" else "auto"))
        self.array = self.ops.upload
        self.step = self.ops.upload(np.zeros(1, np.uint64))

    def repeated(self, call: Callable[[], Any], times: int) -> Callable[[], None]:
        program = self.ops.capture(call)

        def run() -> None:
            program.run(times)
            self.ops.download(self.step)  # waits

        return run


class Arrays:
    """NumPy or CuPy: formulas as a user writes them."""

    kind = "arrays"

    def __init__(self, package: str, device: str) -> None:
        self.xp = importlib.import_module(package)
        self.device = device
        self.array = self.xp.asarray

    def repeated(self, call: Callable[[], Any], times: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(times):
                call()
            if self.device == "cuda":
                self.xp.cuda.Device().synchronize()

        return run


class Torch:
    """PyTorch, eager or compiled."""

    kind = "torch"

    def __init__(self, device: str, compiled: bool) -> None:
        import torch

        self.torch, self.device, self.compiled = torch, device, compiled
        torch.set_num_threads(THREADS)

    def array(self, host: np.ndarray) -> Any:
        return self.torch.from_numpy(host).to(self.device)

    def repeated(self, call: Callable[[], Any], times: int) -> Callable[[], None]:
        if self.compiled:
            # The shapes of one benchmark share one piece of code, and PyTorch gives up compiling it after a few.
            self.torch._dynamo.reset()
            call = self.torch.compile(call, dynamic=False)

        def run() -> None:
            for _ in range(times):
                call()
            if self.device == "cuda":
                self.torch.cuda.synchronize()

        return run


LIBRARIES: dict[str, tuple[Callable[[], Any], str]] = {
    "minigen": (lambda: Minigen("cpu"), "minigen"),
    "minigen-bf16x6": (lambda: Minigen("cpu", "bf16x6"), "minigen"),
    "numpy": (lambda: Arrays("numpy", "cpu"), "numpy"),
    "torch": (lambda: Torch("cpu", compiled=False), "torch"),
    "torch-compile": (lambda: Torch("cpu", compiled=True), "torch"),
    "minigen-cuda": (lambda: Minigen("cuda"), "minigen"),
    "cupy": (lambda: Arrays("cupy", "cuda"), "cupy"),
    "torch-cuda": (lambda: Torch("cuda", compiled=False), "torch"),
    "torch-compile-cuda": (lambda: Torch("cuda", compiled=True), "torch"),
}


@pytest.fixture(scope="session")
def made() -> dict[str, Any]:
    """The libraries in use, each made once."""
    return {}


@pytest.fixture(params=list(LIBRARIES))
def library(request: pytest.FixtureRequest, made: dict[str, Any]) -> Any:
    """Every library in turn; skipped where it is not installed or has no GPU to run on."""
    make, package = LIBRARIES[request.param]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    if request.param in ("minigen-cuda", "cupy", "torch-cuda", "torch-compile-cuda") and not has_cuda():
        pytest.skip("no usable GPU")
    if request.param not in made:
        made[request.param] = make()
        coretype = os.environ.get("OPENBLAS_CORETYPE") if request.param == "numpy" else None
        made[request.param].name = f"numpy, OpenBLAS told {coretype}" if coretype else request.param
    return made[request.param]


@pytest.fixture(scope="session")
def limits() -> Callable[[str], dict[str, Any]]:
    """``limits(device)``: the measured peak and bandwidth, each device measured once."""
    known: dict[str, dict[str, Any]] = {}

    def of(device: str) -> dict[str, Any]:
        if device not in known:
            known[device] = floor.measure(THREADS, device)
        return known[device]

    return of


def peak_now(device: str, precision: str, machine: dict[str, Any]) -> float:
    """GFLOP/s of multiply-adds in registers at this minute's clock; on a GPU the product measured at the start."""
    bf16 = precision == "bf16"
    if device != "cpu" or importlib.util.find_spec("minigen._native") is None:
        return machine["bf16_peak_gflops" if bf16 else "peak_gflops"]
    from minigen import _native

    time.sleep(0.05)  # OpenBLAS's threads wait for more work in a loop, and would share the cores
    return max((_native.bf16_peak_gflops if bf16 else _native.fma_peak_gflops)(THREADS, 0.02) for _ in range(3))


@pytest.fixture
def measure(request: pytest.FixtureRequest, benchmark: Any, library: Any, limits: Any) -> Callable[..., None]:
    """``measure(call, bytes=..., flops=...)``: time ``call`` of the present library and note what it amounts to.

    ``precision`` is that of storage and products, ``library`` stands in for the present one.
    """
    operation = request.path.stem.removeprefix("bench_")
    parameters = [str(value) for name, value in request.node.callspec.params.items() if name != "library"]
    case = " ".join([request.node.originalname.removeprefix("test_"), *parameters])
    present = library.name

    def run(
        call: Callable[[], Any], *, bytes: int, flops: int = 0, precision: str = "float32", library: Any = library
    ) -> None:
        most_bytes, most_flops = WORK_PER_ROUND[library.device]
        times = int(max(1, min(1000, most_bytes / bytes, most_flops / max(flops, 1))))
        work = library.repeated(call, times)
        work()  # compilation and first touch are not the kernel's
        if benchmark.disabled:
            benchmark.pedantic(work)
            return
        machine = limits(library.device)
        peaks = [peak_now(library.device, precision, machine)] if flops else []
        benchmark.pedantic(work, rounds=ROUNDS, warmup_rounds=2)
        seconds = benchmark.stats.stats.median / times
        note = {"calls_per_round": times, "seconds": seconds, "gbytes_per_second": bytes / seconds / 1e9}
        note["percent_of_bandwidth"] = 100 * note["gbytes_per_second"] / machine["bandwidth_gbytes"]
        if flops:
            peaks.append(peak_now(library.device, precision, machine))
            note["gflops"] = flops / seconds / 1e9
            note["peak_gflops"] = max(peaks)
            note["percent_of_peak"] = 100 * note["gflops"] / note["peak_gflops"]
        benchmark.extra_info.update(note, operation=operation, case=case, library=present)
        benchmark.extra_info.update(precision=precision, device=library.device, limits=machine)

    return run


def normal(*shape: int) -> np.ndarray:
    """Standard normals, the same in every run."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)

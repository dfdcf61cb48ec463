"""Fixtures: the usable backends, a fresh seed for every test (``MINIGEN_TEST_SEED=n`` repeats one), and work in the
background, which begins before the first test and is waited for by the last ones."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:
    # A process a core: more threads wait for each other, spinning (boosted trees took 225 s of CPU instead of 5). NumPy
    # and scikit-learn read this when they are imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from fake_cupy import FakeCupy, bindings

from helpers import Arena
from minigen.device import devices, get_backend
from minigen.reference_backend import NumpyBackend


def make_backend(name: str) -> Any:
    """The backend of this name, such as ``cuda`` or ``cuda-bf16``; skips, saying why, where it cannot be used.

    ``cpu`` is ``ieee`` on every machine, also where the device's own choice is another.
    """
    device, _, precision = name.partition("-")
    if device == "numpy64":
        return NumpyBackend(np.float64)
    if device == "interpreter" or device.startswith("ptx"):
        return without_gpu(name)
    if device == "cpu":
        pytest.importorskip("minigen.cpu", reason="no compiled backend", exc_type=ImportError)
    return get_backend(device, precision or ("ieee" if device == "cpu" else "auto"))


def usable_backends() -> list[str]:
    """Those of the host, with products on AMX where it has that, and a GPU where there is one."""
    return ["numpy", "numpy64", "cpu", *["cpu-bf16x6"] * has_amx(), *["cuda"] * devices()["cuda"].usable]


def has_amx() -> bool:
    try:
        from minigen import _native
    except ImportError:
        return False
    return "amx" in _native.supported_bf16()


BACKENDS = os.environ.get("MINIGEN_TEST_BACKENDS", "").split() or usable_backends()
"""``numpy numpy64 cpu``, ``cpu-bf16x6`` on a processor with AMX, ``cuda`` on a machine with a GPU. The environment
variable names others: ``cuda-bf16`` and so on; the CUDA backend without a GPU, as Triton's ``interpreter`` runs it
(wants TRITON_INTERPRET=1), and ``ptx80``, ``ptx90``, ``ptx120-tf32`` and so on, as the compiler's PTX does."""


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    """Each backend in turn, as a Backend."""
    return make_backend(request.param)


def without_gpu(name: str = BACKENDS[0], **settings: Any) -> Any:
    """The CUDA backend on the host: ``interpreter``, or ``ptx90`` and so on. Programs run in random order, every access
    is checked."""
    from minigen.cuda.backend import CudaBackend

    device, _, precision = name.partition("-")
    executor: Any
    if device.startswith("ptx"):
        from ptx.executor import PtxExecutor

        executor = PtxExecutor(int(device.removeprefix("ptx")))
    else:
        from interpreter import InterpreterExecutor

        executor = InterpreterExecutor(shuffle=np.random.default_rng(), check=True)
    return CudaBackend(executor=executor, **{"precision": precision} if precision else {}, **settings)


@pytest.fixture
def seed() -> int:
    """A fresh seed, printed so that a failure shows it."""
    value = int(os.environ.get("MINIGEN_TEST_SEED", secrets.randbelow(2**32)))
    print(f"repeat with MINIGEN_TEST_SEED={value}")
    return value


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """Random numbers of the test."""
    return np.random.default_rng(seed)


@pytest.fixture
def arena(backend: Any, rng: np.random.Generator) -> Iterator[Arena]:
    """Guarded buffers on the backend, verified at the end of the test."""
    arena = Arena(backend, rng)
    yield arena
    arena.verify()


@pytest.fixture
def kernels_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty kernel cache, on disk and in memory."""
    from minigen.cuda.run import compiler

    monkeypatch.setenv("MINIGEN_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "_binaries", {})
    return tmp_path / "kernels"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, kernels_folder: Path) -> Callable[..., FakeCupy]:
    """A function that puts a pretended CuPy, and a driver, on this machine."""
    pytest.importorskip("triton", reason="no Triton")
    from minigen.cuda.run import device, driver

    def install(**properties: Any) -> FakeCupy:
        fake = FakeCupy(**properties)
        for name, module in {"cupy": fake, **bindings(fake)}.items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(driver, "_has_driver", lambda: True)
        monkeypatch.setattr(device, "_functions", {})
        return fake

    return install


@pytest.fixture
def pretend_gpu(install: Callable[..., FakeCupy]) -> FakeCupy:
    """A GPU that records launches and computes nothing."""
    return install()


@pytest.fixture
def computing_gpus(install: Callable[..., FakeCupy], monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeCupy]:
    """A function that puts GPUs on this machine on which ``device="cuda"`` computes, see computing_cuda.py."""
    import computing_cuda

    from minigen.cuda import backend

    monkeypatch.setattr(backend, "CudaBackend", computing_cuda.ComputingCuda)
    return install


# --- work in the background -----------------------------------------------------------------------------

_begun: dict[Any, Future[Any]] = {}  # by function and arguments: two tests may ask for the same


def pytest_configure(config: pytest.Config) -> None:
    text = "background(run=f): slow work; f gets the test's parameters, the fixture `result` is what it returns"
    config.addinivalue_line("markers", text)
    config.addinivalue_line(
        "markers", 'slow: left out unless asked for; every test: pytest -m "", these: pytest -m slow'
    )
    # Tests interrupt trainings, and a training leaves a signal alone that it was started to ignore, as a shell starts
    # its background jobs and nohup what it runs.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that wait for others' work are slow and come last."""
    for item in items:
        if item.get_closest_marker("background"):
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("background") is not None)


def pytest_report_header(config: pytest.Config) -> str | None:
    return 'without the slow tests; all: pytest -m ""' if config.option.markexpr == "not slow" else None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin, at the lowest priority: most tests leave a core idle."""
    chosen = [item for item in session.items if item.get_closest_marker("background")]
    chosen = [item for item in chosen if not any(mark.args[0] for mark in item.iter_markers("skipif"))]
    if not chosen or session.config.option.collectonly or hasattr(session.config, "workerinput"):
        return  # of pytest-xdist's processes each does its own tests' work, and nothing ahead
    context = multiprocessing.get_context("spawn")  # a fork would have its parent's locks and none of its threads
    folder = session.config.stash[_folder] = tempfile.TemporaryDirectory(prefix="minigen-tests-")
    pool = session.config.stash[_pool] = ProcessPoolExecutor(
        mp_context=context, initializer=_stand_back, initargs=(folder.name,)
    )
    for key in dict.fromkeys(_key(item) for item in chosen):
        function, arguments = key
        _begun[key] = pool.submit(_timed, function, dict(arguments))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Where the background's time went, the longest first."""
    ended = [
        (key, done) for key, done in _begun.items() if done.done() and not done.cancelled() and not done.exception()
    ]
    for key, done in sorted(ended, key=lambda pair: -pair[1].result()[1])[:40]:
        words = " ".join([key[0].__name__, *(f"{value}" for _, value in key[1])])
        terminalreporter.write_line(f"{done.result()[1]:6.1f} s of CPU: {words}")


def pytest_unconfigure(config: pytest.Config) -> None:
    if _pool in config.stash:
        config.stash[_pool].shutdown(cancel_futures=True)
        config.stash[_folder].cleanup()


_pool, _folder = pytest.StashKey[ProcessPoolExecutor](), pytest.StashKey[tempfile.TemporaryDirectory[str]]()


def _stand_back(cache: str) -> None:
    os.nice(19)
    os.environ["MINIGEN_CACHE"] = cache  # nothing compiled before counts
    os.environ["MINIGEN_COMPILE_PROCESSES"] = "1"  # every core has a process of this kind already


def _timed(function: Callable[..., Any], arguments: dict[str, Any]) -> tuple[Any, float]:
    """What ``function`` returns, and the seconds of CPU that it and its processes took."""
    before = sum(os.times()[:4])
    result = function(**arguments)
    return result, sum(os.times()[:4]) - before


def _key(item: Any) -> Any:
    function = item.get_closest_marker("background").kwargs["run"]
    return function, tuple(sorted(item.callspec.params.items())) if hasattr(item, "callspec") else ()


@pytest.fixture
def result(request: pytest.FixtureRequest) -> Any:
    """What the function of the test's mark ``background`` returns; raises what it raised."""
    key = function, arguments = _key(request.node)
    return _begun[key].result()[0] if key in _begun else function(**dict(arguments))

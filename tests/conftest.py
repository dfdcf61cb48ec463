"""Fixtures: the usable floors, and a fresh seed for every test (``MINIGEN_TEST_SEED=n`` repeats one)."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy

from helpers import Arena
from minigen.floors import devices, get_backend
from minigen.reference import NumpyBackend


def make_floor(name: str) -> Any:
    """The backend of this name, such as ``cuda`` or ``cuda-bf16``; skips, saying why, where it cannot be used.

    ``cpu`` is ``ieee`` on every machine, also where the device's own choice is another.
    """
    device, _, precision = name.partition("-")
    if device == "numpy64":
        return NumpyBackend(np.float64)
    if device == "interpreter":
        return interpreter(**{"precision": precision} if precision else {})
    if device == "cpu":
        pytest.importorskip("minigen.cpu", reason="no compiled floor", exc_type=ImportError)
    return get_backend(device, precision or ("ieee" if device == "cpu" else "auto"))


def usable_floors() -> list[str]:
    """Those of the host, with products on AMX where it has that, and a GPU where there is one."""
    return ["numpy", "numpy64", "cpu", *["cpu-bf16x6"] * has_amx(), *["cuda"] * devices()["cuda"].usable]


def has_amx() -> bool:
    try:
        from minigen import _native
    except ImportError:
        return False
    return "amx" in _native.supported_bf16()


FLOORS = os.environ.get("MINIGEN_TEST_FLOORS", "").split() or usable_floors()
"""``numpy numpy64 cpu``, ``cpu-bf16x6`` on a processor with AMX, ``cuda`` on a machine with a GPU. The environment
variable names others: ``cuda-bf16`` and so on, and ``interpreter``, the CUDA floor without a GPU, which wants
TRITON_INTERPRET=1."""


@pytest.fixture(params=FLOORS)
def floor(request: pytest.FixtureRequest) -> Any:
    """Each floor in turn, as a Backend."""
    return make_floor(request.param)


def interpreter(**settings: Any) -> Any:
    """The CUDA floor on Triton's interpreter, programs in random order, every access checked."""
    from minigen.cuda.backend import CudaBackend
    from minigen.cuda.interpreter import InterpreterExecutor

    executor = InterpreterExecutor(shuffle=np.random.default_rng(), check=True)
    return CudaBackend(executor=executor, **settings)


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
def arena(floor: Any, rng: np.random.Generator) -> Iterator[Arena]:
    """Guarded buffers on the floor, verified at the end of the test."""
    arena = Arena(floor, rng)
    yield arena
    arena.verify()


@pytest.fixture
def kernels_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty kernel cache, on disk and in memory."""
    from minigen.cuda import compiler

    monkeypatch.setenv("MINIGEN_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "_binaries", {})
    return tmp_path / "kernels"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, kernels_folder: Path) -> Callable[..., FakeCupy]:
    """A function that puts a pretended CuPy, and a driver, on this machine."""
    pytest.importorskip("triton", reason="no Triton")
    from minigen.cuda import device, driver

    def install(**properties: Any) -> FakeCupy:
        fake = FakeCupy(**properties)
        monkeypatch.setitem(sys.modules, "cupy", fake)
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

"""Programmatic dependent launch: in a graph, a launch is set up while the one before it still runs.

Its kernel waits by itself (:mod:`minigen.cuda.kernels.waiting` says why that is enough). CuPy's launches take no
attributes, hence cuda-bindings. Only graphs are made of such launches: one that Python starts comes too late to overlap
with the one before.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minigen.cuda.plan.codegen import FIRST_THAT_WAITS
from minigen.errors import DeviceError

SETTING = "MINIGEN_DEPENDENT_LAUNCH"
OLDEST_DRIVER = 12030  # whose graphs have such edges: CUDA programming guide, "CUDA Graphs", edge data


def find_problem(architecture: int, driver: int) -> str | None:
    """Why launches cannot be made so here, or are not to be; None if they are.

    ``driver`` is the newest CUDA that the driver runs, 1000 major + 10 minor. Raises ValueError for a setting that is
    neither 0 nor 1.
    """
    setting = os.environ.get(SETTING, "1")
    if setting not in ("0", "1"):
        raise ValueError(f"{SETTING} must be 0 or 1, not {setting!r}")
    if setting == "0":
        return f"{SETTING}=0"
    if architecture < FIRST_THAT_WAITS:
        return f"sm_{architecture} has none, sm_{FIRST_THAT_WAITS} is the first"
    if driver < OLDEST_DRIVER:
        return f"the driver runs CUDA up to {_text(driver)}, and {_text(OLDEST_DRIVER)} is needed"
    remedy = f"pip install 'cuda-bindings=={driver // 1000}.*'"
    version = _bindings_version()
    if version is None:
        return f"cuda-bindings is missing: {remedy}"
    if int(version.split(".")[0]) > driver // 1000:
        return f"cuda-bindings {version} is for a newer driver: {remedy}"
    return None


def _bindings_version() -> str | None:
    if not importlib.util.find_spec("cuda") or not importlib.util.find_spec("cuda.bindings"):
        return None
    from cuda import bindings

    return str(bindings.__version__)


def _text(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def call(
    function: Any, grid: tuple[int, int, int], threads: int, shared: int, stream: Any, arguments: tuple[Any, ...]
) -> Callable[[], None]:
    """The launch of a CuPy function whose kernel waits by itself, as a call that puts it on ``stream``.

    ``arguments`` are CuPy arrays, which the call keeps alive, and NumPy scalars.
    """
    from cuda.bindings import driver

    attribute = driver.CUlaunchAttribute()
    attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    attribute.value.programmaticStreamSerializationAllowed = 1
    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = grid
    config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
    config.sharedMemBytes, config.hStream = shared, stream.ptr
    config.attrs, config.numAttrs = [attribute], 1
    return partial(_launch, driver, config, function, _parameters(arguments), arguments)


def _launch(driver: Any, config: Any, function: Any, parameters: Any, arguments: tuple[Any, ...]) -> None:
    (status,) = driver.cuLaunchKernelEx(config, function.ptr, parameters, 0)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise DeviceError(f"the driver refused a dependent launch ({status.name}); {SETTING}=0 does without")


def _parameters(arguments: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Values and C types, as cuda-bindings takes them."""
    pairs: list[tuple[Any, Any]] = [
        (a.item(), a.dtype) if isinstance(a, np.generic) else (a.data.ptr, np.uintp) for a in arguments
    ]
    return tuple(value for value, _ in pairs), tuple(np.ctypeslib.as_ctypes_type(dtype) for _, dtype in pairs)

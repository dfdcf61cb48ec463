"""What stands between Python and the GPU: the driver, CuPy, Triton. What is missing, by name."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import sys
from typing import Any

from minigen.cuda.run import dependent
from minigen.cuda.run.build import OLDEST_ARCHITECTURE, OLDEST_TRITON

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
GIB = 2**30


def find_problem(index: int = 0) -> str | None:
    """Why GPU number ``index`` cannot be used, and what to do about it; None if it can.

    The driver is looked for first, without CuPy, so that this costs nothing on a machine without a GPU.
    """
    if not _has_driver():
        return f"no NVIDIA driver on this machine ({LIBRARY} is missing)"
    return _cupy_problem() or triton_problem() or _device_problem(index)


def describe(index: int = 0) -> str:
    """One line on GPU number ``index``, which must be usable."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(index)
    count = cupy.cuda.runtime.getDeviceCount()
    gpu = f"sm_{architecture(index)}, {properties['totalGlobalMem'] / GIB:.0f} GiB" + f", {count} GPUs" * (count > 1)
    versions = f"CuPy {cupy.__version__}, Triton {importlib.metadata.version('triton')}"
    return f"{properties['name'].decode()} ({gpu}), {versions}, {describe_launches(index)}"


def describe_launches(index: int = 0) -> str:
    """Whether steps are made of programmatic dependent launches on GPU number ``index``, and if not why."""
    import cupy

    problem = dependent.find_problem(architecture(index), cupy.cuda.runtime.driverGetVersion())
    return "with" + (f"out programmatic dependent launch: {problem}" if problem else " programmatic dependent launch")


def architecture(index: int) -> int:
    """Compute capability of GPU number ``index`` times ten, such as 90."""
    import cupy

    return int(cupy.cuda.Device(index).compute_capability)


def _has_driver() -> bool:
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def _cupy_problem() -> str | None:
    try:
        import cupy
    except ImportError as error:
        return f"CuPy is missing ({error}): pip install 'minigen-engine[cuda13]', or [cuda12] for an older driver"
    runtime = cupy.cuda.runtime
    try:
        if runtime.getDeviceCount() > 0:
            return None
    except runtime.CUDARuntimeError as error:
        return _driver_too_old(runtime) or f"the NVIDIA driver finds no GPU: {error}"
    return "the NVIDIA driver finds no GPU"


def _driver_too_old(runtime: Any) -> str | None:
    """The driver's version, 1000 major + 10 minor, is the newest CUDA that it can run; 0: it does not run."""
    driver, built = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver == 0:
        return "the NVIDIA driver does not start on this machine"
    if driver // 1000 >= built // 1000:
        return None
    major, minor = driver // 1000, driver % 1000 // 10
    remedy = f"install cupy-cuda{major}x instead" if major >= 12 else "update the driver"
    return f"the NVIDIA driver runs CUDA up to {major}.{minor}, this CuPy needs CUDA {built // 1000}: {remedy}"


def triton_problem() -> str | None:
    """Why Triton cannot be used, and what to install; None if it can."""
    wanted = ".".join(map(str, OLDEST_TRITON))
    if importlib.util.find_spec("triton") is None:
        return f"Triton is missing: pip install 'triton>={wanted}'"
    version = importlib.metadata.version("triton")
    if tuple(map(int, version.split(".")[:2])) < OLDEST_TRITON:
        return f"Triton {version} is too old: pip install 'triton>={wanted}'"
    return None


def _device_problem(index: int) -> str | None:
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
    if index >= count:
        return f"there is no cuda:{index}: this machine has {count} GPU{'s'[: count > 1]}, counted from cuda:0"
    found = architecture(index)
    if found < OLDEST_ARCHITECTURE:
        name = cupy.cuda.runtime.getDeviceProperties(index)["name"].decode()
        return f"cuda:{index} ({name}) is sm_{found}; minigen needs sm_{OLDEST_ARCHITECTURE} (Ampere) or newer"
    return None

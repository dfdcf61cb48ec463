"""The pretended driver refuses what CUDA refuses, and the real CuPy and cuda-bindings run on it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pretended_driver as driver
import pretended_gpu
import pytest

linux = pytest.mark.skipif(sys.platform != "linux", reason="a driver for Linux")
KERNEL = ".visible .entry nothing(\n .param .u64 .ptr p_0,\n .param .u32 p_1\n)\n.reqntid 32\n{\n ret;\n}\n"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> driver.Gpu:
    monkeypatch.setattr(driver, "gpu", driver.Gpu())
    return driver.gpu


def got(function: Any, *arguments: Any) -> int:
    """What a function writes to its first argument."""
    out = ctypes.c_void_p()
    function(ctypes.addressof(out), *arguments)
    return out.value or 0


def launch(gpu: driver.Gpu, **changes: Any) -> None:
    """One that is right, but for the changes."""
    memory, stream = got(driver.cudaMalloc, 100), changes.get("stream") or got(driver.cudaStreamCreateWithFlags, 1)
    text = KERNEL.encode()
    module = got(driver.cuModuleLoadData, ctypes.cast(ctypes.c_char_p(text), ctypes.c_void_p).value)
    function = got(driver.cuModuleGetFunction, module, ctypes.cast(ctypes.c_char_p(b"nothing"), ctypes.c_void_p).value)
    values = ctypes.c_uint64(memory), ctypes.c_uint32(7)
    pointers = (ctypes.c_void_p * 2)(*map(ctypes.addressof, values))
    sizes = {"gx": 3, "gy": 2, "bx": 32, "shared": 0} | changes
    grid, block = (sizes["gx"], sizes["gy"], 1), (sizes["bx"], 1, 1)
    driver.cuLaunchKernel(function, *grid, *block, sizes["shared"], stream, ctypes.addressof(pointers), None)
    gpu.wait()
    assert gpu.launched == 1


def test_a_launch_as_cuda_wants_it(gpu: driver.Gpu) -> None:
    launch(gpu)


@pytest.mark.parametrize("changes", [{"gx": 0}, {"gy": 65536}, {"bx": 2048}, {"shared": 49153}, {"stream": 5}])
def test_a_launch_that_cuda_refuses(gpu: driver.Gpu, changes: dict[str, Any]) -> None:
    with pytest.raises(driver.Refused):
        launch(gpu, **changes)


def test_a_thread_needs_a_context(gpu: driver.Gpu) -> None:
    errors: list[int] = []

    def load() -> None:
        try:
            driver.cuModuleLoadData(0, 0)
        except driver.Refused as error:
            errors.append(error.status)

    driver.cudaSetDevice(0)
    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    assert errors == [driver.NO_CONTEXT]


def test_copies_arrive_when_somebody_waits(gpu: driver.Gpu) -> None:
    memory, pinned = got(driver.cudaMalloc, 8), got(driver.cudaHostAlloc, 8, 0)
    stream = got(driver.cudaStreamCreateWithFlags, 1)
    host = gpu.pinned[pinned]
    host[:] = 1
    driver.cudaMemcpyAsync(memory, pinned, 8, 1, stream)
    host[:] = 2  # too early: the copy has not been made
    driver.cudaStreamSynchronize(stream)
    assert gpu.memory[memory].tolist() == [2] * 8
    with pytest.raises(driver.Refused, match="lies in no allocation"):
        driver.cudaMemcpyAsync(memory, np.zeros(8, np.uint8).ctypes.data, 8, 1, stream)


def test_what_a_capture_does_not_allow(gpu: driver.Gpu) -> None:
    memory, pinned = got(driver.cudaMalloc, 8), got(driver.cudaHostAlloc, 8, 0)
    stream = got(driver.cudaStreamCreateWithFlags, 1)
    driver.cudaStreamBeginCapture(stream, 2)
    for call in (
        lambda: driver.cudaMemcpyAsync(memory, pinned, 8, 1, stream),
        lambda: driver.cudaStreamSynchronize(stream),
        lambda: driver.cudaEventRecord(got(driver.cudaEventCreateWithFlags, 2), stream),
        lambda: driver.cuModuleLoadData(0, 0),
    ):
        with pytest.raises(driver.Refused) as error:
            call()
        assert error.value.status == driver.CAPTURE_UNSUPPORTED


TRAININGS = """
import cupy
import minigen
import numpy as np
from pretended_driver import gpu
settings = {"hidden": (8,), "latent_dim": 3, "batch_size": 16, "epochs": 1, "device": "cuda"}
models = lambda: [minigen.GAN(**settings, seed=seed) for seed in range(2)]
rows = np.random.default_rng(0).integers(0, 256, (32, 5), np.uint8)
together = minigen.fit_many(models(), rows, progress=False)
assert gpu.dependent, "programmatic dependent launches"
for model, alone in zip(together, models()):
    alone.fit(rows, progress=False)
    assert all(model._state[key].tobytes() == value.tobytes() for key, value in alone._state.items())
print("the same bits")
"""


@pytest.mark.slow
@linux
def test_trainings_on_the_real_cupy(tmp_path: Path) -> None:
    for package in ("cupy", "cuda.bindings", "triton"):
        pytest.importorskip(package, exc_type=ImportError)
    environment = pretended_gpu.make(tmp_path / "gpu", "computes")
    environment["PYTHONPATH"] += f":{pretended_gpu.TESTS.parent}"
    done = subprocess.run([sys.executable, "-c", TRAININGS], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "the same bits" in done.stdout, done.stderr[-3000:]

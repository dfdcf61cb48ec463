"""The CUDA C++ kernels without a GPU: run on the host against the reference, compiled by nvcc and NVRTC."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import relative_error
from minigen.cuda import cpp
from minigen.cuda.run import compiler
from minigen.errors import DeviceError
from minigen.reference import batch, optimizer, random

FILES = ("optimizer.cu", "random.cu", "batch.cu")
ARCHITECTURES = (80, 86, 89, 90, 100, 120)
MOST_REGISTERS = 64  # of a thread: four blocks of 256 threads then fit a multiprocessor's 65536
OFFSETS = (0, 1, 4)  # in elements, of a buffer from an aligned address: 4 floats keep 16-byte accesses possible


class HostExecutor:
    """Runs the kernels' own code thread by thread. Grids are cut, so that the loops over the grid go round."""

    def __init__(self, libraries: dict[str, ctypes.CDLL]) -> None:
        self.libraries = libraries

    def upload(self, host: np.ndarray, out: Any = None) -> np.ndarray:
        return host.copy()

    def address(self, buffer: np.ndarray) -> int:
        return buffer.ctypes.data

    def run(self, launch: Any, most_blocks: int = 2) -> None:
        file, name = launch.source
        library = self.libraries[file]
        grid = (min(launch.grid[0], most_blocks), *launch.grid[1:])
        threads = 32 * launch.num_warps
        set_indices(library, "gridDim", *grid)
        set_indices(library, "blockDim", threads, 1, 1)
        arguments = [
            ctypes.c_void_p(value.ctypes.data) if kind is None else np.ctypeslib.as_ctypes_type(kind)(value)
            for kind, value in zip(cpp.parameters(file, name), launch.args, strict=True)
        ]
        for y in range(grid[1]):
            for x in range(grid[0]):
                set_indices(library, "blockIdx", x, y, 0)
                for thread in range(threads):
                    set_indices(library, "threadIdx", thread, 0, 0)
                    getattr(library, name)(*arguments)


def set_indices(library: ctypes.CDLL, name: str, *values: int) -> None:
    (ctypes.c_uint32 * 3).in_dll(library, name)[:] = values


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """An executor for the kernels, compiled by the C++ compiler with bounds and alignment checked."""
    gcc = shutil.which("g++")
    if gcc is None:
        pytest.skip("no g++")
    folder, libraries = tmp_path_factory.mktemp("cuda_on_host"), {}
    for file in FILES:
        library = folder / f"{file}.so"
        command = [
            gcc,
            "-x",
            "c++",
            "-std=c++20",
            "-O1",
            "-shared",
            "-fPIC",
            "-Wall",
            "-Werror",
            "-Wno-unknown-pragmas",
            "-fsanitize=undefined",
            "-fno-sanitize-recover=all",
            "-static-libubsan",
            "-include",
            str(Path(__file__).with_name("cuda_on_host.hpp")),
            str(cpp.folder() / "cuda" / file),
            "-o",
            str(library),
        ]
        subprocess.run(command, check=True)
        libraries[file] = ctypes.CDLL(str(library))
    return HostExecutor(libraries)


class Placed:
    """Arrays at chosen offsets inside larger ones; :meth:`verify` finds a write around them."""

    def __init__(self) -> None:
        self.outer: list[tuple[np.ndarray, slice]] = []

    def __call__(self, array: np.ndarray, offset: int = 0) -> np.ndarray:
        memory = np.full(array.nbytes + 512, 0x5A, np.uint8)
        begin = -memory.ctypes.data % 64 + 64 + offset * array.itemsize
        inner = slice(begin, begin + array.nbytes)
        self.outer.append((memory, inner))
        placed = memory[inner].view(array.dtype).reshape(array.shape)
        placed[...] = array
        return placed

    def verify(self) -> None:
        for memory, inner in self.outer:
            assert (memory[: inner.start] == 0x5A).all() and (memory[inner.stop :] == 0x5A).all()


@pytest.fixture
def place():
    place = Placed()
    yield place
    place.verify()


def counter(value: int) -> np.ndarray:
    return np.array([value], np.uint64)


# --- on the host, against the reference -----------------------------------------------------------------


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam(host, place, rng, weight_decay):
    """Several vectors of odd sizes at odd places, each with its own learning rate."""
    vectors, expected = [], []
    done = int(rng.integers(0, 1000))
    for n, offset, rate in zip((1, 3, 64, 1037, 5000), (1, 0, 4, 1, 0), (0.1, 0.01, 2e-4, 1e-3, 0.5), strict=True):
        p, g, m = (rng.standard_normal(n).astype(np.float32) for _ in range(3))
        v = np.abs(rng.standard_normal(n)).astype(np.float32)
        doubles = [x.astype(np.float64) for x in (p, g, m, v)]
        expected.append(optimizer.adamw(*doubles, float(np.float32(rate)), done + 1, 0.5, 0.999, 1e-8, weight_decay))
        vectors.append((*(place(x, offset) for x in (p, g, m, v)), np.array([rate], np.float32)))
    host.run(cpp.adam(host, vectors, counter(done), 0.5, 0.999, 1e-8, weight_decay))
    for (p, _, m, v, _), wanted in zip(vectors, expected, strict=True):
        for got, value in zip((p, m, v), wanted, strict=True):
            assert relative_error(got, value) < 2e-6


def test_optimizers_on_a_single_number(host, place):
    p, g, m, v = (place(np.ones(1, np.float32)) for _ in range(4))
    rate = np.array([0.1], np.float32)
    host.run(cpp.adam(host, [(p, g, m, v, rate)], counter(0)))
    assert p[0] != 1
    p[0] = 1
    host.run(cpp.sgd(host, [(p, g, m, rate)]))
    assert p[0] == np.float32(0.9)


def test_adam_passes_nan_on(host, place):
    p, g, m, v = (place(np.ones(9, np.float32)) for _ in range(4))
    g[4] = np.nan
    host.run(cpp.adam(host, [(p, g, m, v, np.array([0.1], np.float32))], counter(0)))
    assert np.isnan([p[4], m[4], v[4]]).all() and np.isfinite(np.delete(p, 4)).all()


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.01)])
def test_sgd(host, place, rng, momentum, weight_decay):
    vectors, expected = [], []
    for n, offset in ((1, 1), (129, 0), (3001, 4)):
        p, g, velocity = (rng.standard_normal(n).astype(np.float32) for _ in range(3))
        rate = np.array([0.05], np.float32)
        doubles = [x.astype(np.float64) for x in (p, g, velocity)]
        expected.append(optimizer.sgd(*doubles, float(rate[0]), momentum, weight_decay))
        vectors.append((*(place(x, offset) for x in (p, g, velocity)), rate))
    host.run(cpp.sgd(host, vectors, momentum, weight_decay))
    for (p, _, velocity, _), wanted in zip(vectors, expected, strict=True):
        assert relative_error(p, wanted[0]) < 2e-6 and relative_error(velocity, wanted[1]) < 2e-6


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 127, 1024, 4099])
def test_random(host, place, seed, n, offset):
    """Uniforms are the same bits as the reference's; normals agree to a few roundings."""
    step = 2**40 + seed
    uniform, normal = (place(np.full(n, np.nan, np.float32), offset) for _ in range(2))
    host.run(cpp.random_uniform(uniform, seed, 2**32 - 1, counter(step)))
    host.run(cpp.random_normal(normal, seed, 3, counter(step)))
    np.testing.assert_array_equal(uniform, random.uniform((n,), seed, 2**32 - 1, step))
    np.testing.assert_allclose(normal, random.normal((n,), seed, 3, step, np.float64), rtol=0, atol=3e-6)


@pytest.mark.parametrize(("n", "batch_size"), [(1, 1), (2, 1), (5, 3), (128, 128), (1000, 37), (60_000, 128)])
def test_indices(host, place, rng, seed, n, batch_size):
    steps_per_epoch = -(-n // batch_size)
    for step in {0, steps_per_epoch - 1, int(rng.integers(0, 2**20)), 7 * steps_per_epoch - 1}:
        left = n - step % steps_per_epoch * batch_size
        rows = min(batch_size, left)
        indices = place(np.full(rows, -7, np.int32))
        host.run(cpp.batch_indices(indices, n, seed, 1, counter(step), batch_size, steps_per_epoch))
        expected = batch.indices(rows, n, seed, 1, step, batch_size, steps_per_epoch)
        np.testing.assert_array_equal(indices, expected)


def test_rows_past_the_end_of_the_epoch_are_nan(host, place, seed):
    data, indices = place(np.ones((10, 6), np.float32)), place(np.zeros(4, np.int32))
    out = place(np.zeros((4, 6), np.float32))
    host.run(cpp.batch_take(data, indices, out, seed, 1, counter(2), 4, 3))
    assert (indices[2:] == -1).all() and np.isnan(out[2:]).all() and (out[:2] == 1).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("D", [1, 3, 4, 31, 784, 3001])
def test_gather_and_take(host, place, rng, seed, dtype, D):
    data = rng.integers(0, 256, (50, D)).astype(dtype)
    for offset in OFFSETS:
        stored = place(data, offset)
        chosen = rng.integers(0, 50, 7).astype(np.int32)
        out, indices = place(np.full((7, D), np.nan, np.float32), offset), place(np.zeros(7, np.int32))
        host.run(cpp.batch_gather(stored, chosen, out, 1 / 127.5, -1.0))
        np.testing.assert_allclose(out, data[chosen] / 127.5 - 1.0, rtol=0, atol=3e-7)
        out[...] = np.nan
        host.run(cpp.batch_take(stored, indices, out, seed, 1, counter(3), 7, 7, 1 / 127.5, -1.0))
        expected = batch.indices(7, 50, seed, 1, 3, 7, 7)
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_allclose(out, data[expected] / 127.5 - 1.0, rtol=0, atol=3e-7)


@pytest.mark.parametrize("index", [-1, 50, 2**31 - 1, -(2**31)])
def test_an_index_outside_of_the_data_reads_nothing(host, place, index):
    out = place(np.zeros((3, 8), np.float32))
    host.run(cpp.batch_gather(place(np.ones((50, 8), np.uint8)), np.array([4, index, 49], np.int32), out))
    assert np.isnan(out[1]).all() and (out[[0, 2]] == 1).all()


# --- compiled for GPUs -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("file", FILES)
def test_nvcc_needs_few_registers_and_spills_none(tmp_path, file, architecture):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc")
    path = cpp.folder() / "cuda" / file
    command = [
        nvcc,
        "-std=c++17",
        "-cubin",
        f"-arch=sm_{architecture}",
        "-diag-suppress=1675",
        "-Werror=all-warnings",
        "-Xptxas=-v",
        str(path),
        "-o",
        str(tmp_path / "a.cubin"),
    ]
    report = subprocess.run(command, capture_output=True, text=True)
    assert report.returncode == 0, report.stderr
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", report.stderr)]
    stacks = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report.stderr)
    assert len(registers) == path.read_text().count('extern "C"')
    assert max(registers) <= MOST_REGISTERS, report.stderr
    assert set(stacks) == {("0", "0", "0")}, report.stderr


@pytest.mark.parametrize("file", FILES)
def test_nvrtc_compiles_the_shipped_source(file, tmp_path, monkeypatch):
    cupy = pytest.importorskip("cupy", reason="no CuPy")
    try:
        cupy.cuda.nvrtc.getVersion()
    except RuntimeError as error:
        pytest.skip(f"no NVRTC: {error}")
    monkeypatch.setenv("MINIGEN_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "_binaries", {})
    assert cpp.compile_function(file, "any", 90).code[:4] == b"\x7fELF"
    monkeypatch.setattr(compiler, "_nvrtc", None)
    assert cpp.compile_function(file, "any", 90).code, "from the cache"
    monkeypatch.undo()
    monkeypatch.setattr(cpp, "expanded", lambda file: "this is no CUDA C++")
    with pytest.raises(DeviceError, match="NVRTC could not compile .* error"):
        cpp.compile_function(file, "any", 90)

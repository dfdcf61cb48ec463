"""The CUDA C++ kernels in ``csrc/cuda``: where their sources are, their compilation by NVRTC, and launches of each.

They do what some of the Triton kernels do (optimizers, random numbers, batches), to be read and timed beside them
(``bench/gpu.sh``). A training does not use them: its Triton kernels do the same work within larger ones.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minigen.backend import Array
from minigen.cuda.plan.launch import Executor, Launch
from minigen.cuda.run import cache, compiler
from minigen.cuda.run.cache import Binary
from minigen.errors import DeviceError

PACKAGE = Path(__file__).resolve().parent.parent
NVRTC_OPTIONS = ("-std=c++17", "-diag-suppress=1675")  # 1675: GCC's unroll pragma
SCALARS = {"int32_t": np.int32, "uint32_t": np.uint32, "int64_t": np.int64, "float": np.float32, "double": np.float64}
"""Types of the parameters that are passed by value."""
THREADS = 256  # of a block, as the kernels' launch bounds say
MOST_BLOCKS = 1024  # a thread then takes several elements: enough blocks for every present GPU, several times over

Vectors = Sequence[tuple[Array, ...]]


# --- sources ----------------------------------------------------------------------------------------


def folder() -> Path:
    """``csrc`` as installed beside the Python modules, else the one of the source tree.

    Raises FileNotFoundError where neither is there.
    """
    for found in (PACKAGE / "csrc", PACKAGE.parent / "csrc"):
        if (found / "cuda").is_dir():
            return found
    raise FileNotFoundError(f"the CUDA sources are missing from {PACKAGE / 'csrc'}: install minigen again")


@functools.cache
def expanded(file: str) -> str:
    """``csrc/cuda/file`` with its own headers in their places, each once: all that NVRTC and a cache key need."""
    seen: set[Path] = set()
    return _expand((folder() / "cuda" / file).resolve(), seen)


def _expand(path: Path, seen: set[Path]) -> str:
    if path in seen:
        return ""
    seen.add(path)

    def include(match: re.Match[str]) -> str:
        return _expand((path.parent / match[1]).resolve(), seen)

    text = path.read_text().replace("#pragma once\n", "")
    return re.sub(r'^#include "([^"]+)"\n', include, text, flags=re.MULTILINE)


@functools.cache
def parameters(file: str, function: str) -> tuple[type | None, ...]:
    """NumPy type of each of the function's parameters, None for a pointer.

    Raises ValueError where the file has no such function or it takes a type that is not in :data:`SCALARS`.
    """
    text = (folder() / "cuda" / file).read_text()
    found = re.search(rf'extern "C" __global__ void[^;{{]*?\b{function}\(([^)]*)\)\s*{{', text)
    if not found:
        raise ValueError(f"{file} has no kernel {function}")
    return tuple(_type(parameter) for parameter in found[1].split(","))


def _type(parameter: str) -> type | None:
    if "*" in parameter:
        return None
    name = parameter.split()[0]
    if name not in SCALARS:
        allowed = ", ".join(SCALARS)
        raise ValueError(f"a kernel's parameter may be a pointer or one of {allowed}, not {parameter.strip()!r}")
    return SCALARS[name]


# --- compilation --------------------------------------------------------------------------------------


def compile_function(file: str, function: str, architecture: int) -> Binary:
    """A function of ``csrc/cuda/file``: from the cache, else through NVRTC.

    Raises DeviceError with the compiler's log where NVRTC is missing or fails.
    """
    from cupy.cuda import nvrtc

    text = expanded(file)
    try:
        version = nvrtc.getVersion()
    except RuntimeError as error:
        remedy = "pip install nvidia-cuda-nvrtc"
        raise DeviceError(f"{file} must be compiled, but NVRTC is missing ({error}): {remedy}") from error
    key = cache.key_of(language="cuda", nvrtc=version, source=text, options=NVRTC_OPTIONS, architecture=architecture)
    binary = compiler.find(key)
    if binary is None:
        binary = Binary(file, _nvrtc(text, file, architecture))
        compiler.keep(key, binary)
    return Binary(function, binary.code)


def _nvrtc(text: str, file: str, architecture: int) -> bytes:
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(text, file, (), ())
    try:
        nvrtc.compileProgram(program, (*NVRTC_OPTIONS, f"-arch=sm_{architecture}"))
        return nvrtc.getCUBIN(program)
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        raise DeviceError(f"NVRTC could not compile {file} for sm_{architecture}: {log}") from error
    finally:
        nvrtc.destroyProgram(program)


# --- launches -----------------------------------------------------------------------------------------


def adam(
    executor: Executor,
    vectors: Vectors,
    step: Array,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Launch:
    """AdamW on several flat vectors at once, each ``(p, g, m, v, lr)``; see ``Backend.adamw``.

    The kernel reads their addresses from a table, so they must live as long as the launch is used.
    """
    settings = (float(beta1), float(beta2), float(eps), float(weight_decay))
    return _optimizer(executor, "adam", vectors, (step, *settings), flops=16, accesses=7)


def sgd(executor: Executor, vectors: Vectors, momentum: float = 0.0, weight_decay: float = 0.0) -> Launch:
    """SGD on several flat vectors at once, each ``(p, g, velocity, lr)``; see :func:`adam`."""
    return _optimizer(executor, "sgd", vectors, (float(momentum), float(weight_decay)), flops=6, accesses=5)


def random_uniform(out: Array, seed: int, stream: int, step: Array) -> Launch:
    """See ``Backend.random_uniform``."""
    return _random("random_uniform", out, seed, stream, step, flops=1)


def random_normal(out: Array, seed: int, stream: int, step: Array) -> Launch:
    """See ``Backend.random_normal``."""
    return _random("random_normal", out, seed, stream, step, flops=25)


def batch_indices(
    indices: Array, n: int, seed: int, stream: int, step: Array, batch_size: int, steps_per_epoch: int
) -> Launch:
    """See ``Backend.batch_indices``; a position past the end of the epoch gives -1."""
    rows = len(indices)
    return Launch(
        *_kernel("batch.cu", "batch_indices"),
        (_blocks(rows), 1, 1),
        (indices, rows, n, seed, stream, step, batch_size, steps_per_epoch),
        num_warps=THREADS // 32,
        fuses=("batch_indices",),
        bytes=4 * rows,
    )


def batch_gather(data: Array, indices: Array, out: Array, scale: float = 1.0, shift: float = 0.0) -> Launch:
    """See ``Backend.batch_gather``; an index outside of ``data`` gives a row of NaN."""
    (N, D), B = data.shape, len(indices)
    return Launch(
        *_kernel("batch.cu", f"batch_gather_{_kind(data)}"),
        (_quad_blocks(D), B, 1),
        (data, N, D, indices, out, float(scale), float(shift)),
        num_warps=THREADS // 32,
        fuses=("batch_gather",),
        flops=2 * B * D,
        bytes=B * (D * (data.itemsize + 4) + 4),
    )


def batch_take(
    data: Array,
    indices: Array,
    out: Array,
    seed: int,
    stream: int,
    step: Array,
    batch_size: int,
    steps_per_epoch: int,
    scale: float = 1.0,
    shift: float = 0.0,
) -> Launch:
    """``batch_indices`` and ``batch_gather`` in one launch."""
    (N, D), B = data.shape, len(indices)
    return Launch(
        *_kernel("batch.cu", f"batch_take_{_kind(data)}"),
        (_quad_blocks(D), B, 1),
        (data, out, indices, D, N, seed, stream, step, batch_size, steps_per_epoch, float(scale), float(shift)),
        num_warps=THREADS // 32,
        fuses=("batch_indices", "batch_gather"),
        flops=2 * B * D,
        bytes=B * (D * (data.itemsize + 4) + 4),
    )


def _optimizer(
    executor: Executor, name: str, vectors: Vectors, settings: tuple[Any, ...], flops: int, accesses: int
) -> Launch:
    rows = [[executor.address(buffer) for buffer in buffers] + [buffers[0].size] for buffers in vectors]
    table = executor.upload(np.array(rows, np.uint64))
    sizes = [row[-1] for row in rows]
    return Launch(
        *_kernel("optimizer.cu", name),
        (_quad_blocks(max(sizes)), len(rows), 1),
        (table, *settings),
        num_warps=THREADS // 32,
        fuses=(name,) * len(rows),
        flops=flops * sum(sizes),
        bytes=4 * accesses * sum(sizes),
    )


def _random(name: str, out: Array, seed: int, stream: int, step: Array, flops: int) -> Launch:
    return Launch(
        *_kernel("random.cu", name),
        (_quad_blocks(out.size), 1, 1),
        (out, out.size, seed, stream, step),
        num_warps=THREADS // 32,
        fuses=(name,),
        flops=flops * out.size,
        bytes=4 * out.size,
    )


def _kernel(file: str, function: str) -> tuple[str, tuple[str, str]]:
    """Name and source of a launch."""
    return function, (file, function)


def _kind(data: Array) -> str:
    return "bytes" if data.dtype == np.uint8 else "floats"


def _blocks(threads: int) -> int:
    """Blocks for that many threads, within reason; none for no threads."""
    return min(-(-threads // THREADS), MOST_BLOCKS)


def _quad_blocks(elements: int) -> int:
    """Blocks for threads that take four elements each."""
    return _blocks(-(-elements // 4))

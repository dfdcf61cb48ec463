"""The rungs of the ladder as functions, each compiled when it is asked for; and the one check that all must pass."""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigen.reference import dense

FOLDER = Path(__file__).resolve().parent
SHAPES = [(1, 1, 1), (5, 3, 2), (13, 37, 41), (65, 70, 130)]
"""B, I, O of the check: below, between and beyond every tile's size."""
TOLERANCE = 3e-6
"""Of an element, as a share of ``|x| |W| + |b|``: some roundings of float32 in a sum of up to a few hundred terms."""

CPP = {
    "naive": "cpp/1_naive.cpp",
    "blocked": "cpp/2_blocked.cpp",
    "vector": "cpp/3_vector.cpp",
    "packed": "cpp/4_packed.cpp",
    "register tile": "cpp/5_register_tile.cpp",
}
FLAGS = ("-std=c++20", "-O3", "-march=native", "-ffp-contract=fast", "-fno-tree-vectorize", "-Wno-psabi")
"""The compiler's own vectors are off: a rung has those that its source has."""
CUDA = {
    "naive": ("cuda/1_naive.cu", 16, (16, 16)),
    "tiled": ("cuda/2_tiled.cu", 64, (16, 16)),
    "tensor cores": ("cuda/3_tensor_cores.cu", 64, (256, 1)),
}
"""Source, width and height of a block's part of y, and its threads."""
HOST_FLAGS = ("-std=c++20", "-O2", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-static-libubsan")

Dense = Callable[[Any, Any, Any, Any], None]
"""``dense(x, W, b, y)`` writes y."""


@dataclass(frozen=True)
class Rung:
    """``where`` says what runs it; only what is ``timed`` runs at a speed that means something."""

    language: str
    name: str
    source: str
    call: Dense
    where: str
    timed: bool
    upload: Callable[[np.ndarray], Any] = lambda array: array
    download: Callable[[Any], np.ndarray] = lambda array: array
    wait: Callable[[], None] = lambda: None


def lines_of_code(source: str, name: str) -> int | None:
    """Of the rung of this ``name`` in ``source``, neither empty nor a comment: of a Python file those of its function
    and of what that calls there. None for a library, which has no source."""
    if not source:
        return None
    text = (FOLDER / source).read_text()
    if source.endswith(".py"):
        text = _with_what_it_calls(text, name.replace(" ", "_"))
    lines = [line.strip() for line in text.splitlines()]
    return sum(bool(line) and not line.startswith(("//", "#include", "#pragma", "# ")) for line in lines)


def _with_what_it_calls(text: str, name: str) -> str:
    """The functions of a module that the one of this ``name`` needs, without docstrings and comments."""
    functions = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    needed, waiting, numbers = set(), [name], []
    while waiting:
        node = functions[waiting.pop()]
        needed.add(node.name)
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        waiting += sorted((names & set(functions)) - needed - set(waiting))
        first, begin = node.body[0], min(part.lineno for part in (node, *node.decorator_list))
        docstring = range(first.lineno, first.end_lineno + 1) if ast.get_docstring(node) is not None else ()
        numbers += [line for line in range(begin, node.end_lineno + 1) if line not in docstring]
    lines = text.splitlines()
    return "\n".join(lines[number - 1].partition("  #")[0] for number in numbers)


def check(rung: Rung, seed: int = 0) -> float:
    """The largest error of any element as a share of ``|x| |W| + |b|``, against the float64 reference.

    Inputs and output lie between NaNs, and the output is NaN at first. Raises AssertionError for a wrong element,
    and for anything written outside of the output.
    """
    draw, worst = np.random.default_rng(seed), 0.0
    for B, n_in, n_out in SHAPES:
        arrays = [draw.standard_normal(size, dtype=np.float32) for size in ((B, n_in), (n_in, n_out), (n_out,))]
        x, W, b = (_between_nans(rung, array)[1] for array in arrays)
        memory, y = _between_nans(rung, np.full((B, n_out), np.nan, np.float32))
        rung.call(x, W, b, y)
        rung.wait()
        doubles = [array.astype(np.float64) for array in arrays]
        got, scale = rung.download(y), dense.forward(*(abs(array) for array in doubles))
        error = float((abs(got - dense.forward(*doubles)) / scale).max())
        what = f"{rung.language}, {rung.name}, for (B, I, O) = {(B, n_in, n_out)}"
        assert error <= TOLERANCE, f"{what}: an element is wrong by {error:.1e} of its terms"  # so is a NaN
        outside = rung.download(memory)
        assert np.isnan(outside[:GUARD]).all() and np.isnan(outside[-GUARD:]).all(), f"{what}: wrote outside of y"
        worst = max(worst, error)
    return worst


GUARD = 64  # floats


def _between_nans(rung: Rung, array: np.ndarray) -> tuple[Any, Any]:
    """The memory on the rung's device, and the view of it that holds ``array``."""
    around = np.full(GUARD, np.nan, np.float32)
    memory = rung.upload(np.concatenate([around, array.ravel(), around]))
    return memory, memory[GUARD:-GUARD].reshape(array.shape)


# --- C++ --------------------------------------------------------------------------------------------


def compiler() -> str:
    """The system's C++ compiler, or what ``CXX`` names. Raises FileNotFoundError where there is none."""
    for name in (os.environ.get("CXX"), "g++", "clang++"):
        if name and shutil.which(name):
            return name
    raise FileNotFoundError("the ladder needs a C++ compiler: install g++ or clang++, or name one in CXX")


def build(folder: Path, source: str, *flags: str) -> ctypes.CDLL:
    """``source``, beside this file, as a library in ``folder``. Raises CalledProcessError with the compiler's words."""
    library = folder / f"{source.replace('/', '-')}-{len(list(folder.iterdir()))}.so"
    subprocess.run([compiler(), *flags, "-shared", "-fPIC", str(FOLDER / source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def pointers(*arrays: np.ndarray) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(array.ctypes.data) for array in arrays]


def cpp(folder: Path) -> Iterator[Rung]:
    """The rungs in C++, of one core; libraries go into ``folder``."""
    for name, source in CPP.items():
        function = build(folder, source, *FLAGS).dense

        def call(x: Any, W: Any, b: Any, y: Any, function: Any = function) -> None:
            function(*pointers(x, W, b, y), *map(ctypes.c_int64, (*x.shape, W.shape[1])))

        yield Rung("C++", name, source, call, "one core", timed=True)


# --- CUDA C++ ---------------------------------------------------------------------------------------


def grid(tile: int, B: int, n_out: int) -> tuple[int, int]:
    return -(-n_out // tile), -(-B // tile)


def cuda_on_host(folder: Path) -> Iterator[Rung]:
    """The rungs in CUDA C++, run by ``cuda/on_host`` one thread after the other, in the order of a block's barriers."""
    for name, (source, tile, threads) in CUDA.items():
        yield cuda_rung_on_host(folder, name, FOLDER / source, tile, threads)


def cuda_rung_on_host(folder: Path, name: str, kernel: Path, tile: int, threads: tuple[int, int]) -> Rung:
    """One of them, or an altered copy of its source."""
    host = FOLDER / "cuda" / "on_host"
    library = build(folder, "cuda/on_host/launch.cpp", *HOST_FLAGS, f"-I{host}", f'-DKERNEL="{kernel}"')

    def call(x: Any, W: Any, b: Any, y: Any) -> None:
        library.launch(*pointers(x, W, b, y), *x.shape, W.shape[1], *grid(tile, *y.shape), *threads)

    return Rung("CUDA C++", name, CUDA[name][0], call, "the host, thread by thread", timed=False)


def toolkit_headers() -> list[str]:
    """For NVRTC: of the headers that come as Python packages ``mma.h`` is one, but not what it includes."""
    compiler = shutil.which("nvcc")
    folders = [os.environ.get("CUDA_PATH"), compiler and Path(compiler).resolve().parent.parent, "/usr/local/cuda"]
    found = [Path(folder) / "include" for folder in folders if folder]
    return [f"-I{folder}" for folder in found if (folder / "crt" / "mma.h").exists()][:1]


def cuda_on_gpu() -> Iterator[Rung]:
    """The rungs in CUDA C++ on the GPU, compiled and launched by CuPy."""
    import cupy

    gpu = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    for name, (source, tile, threads) in CUDA.items():
        options = ("-std=c++17", *toolkit_headers())
        function = cupy.RawModule(code=(FOLDER / source).read_text(), options=options).get_function("dense")

        def call(x: Any, W: Any, b: Any, y: Any, run: Any = function, tile: int = tile, threads: Any = threads) -> None:
            sizes = map(np.int32, (*x.shape, W.shape[1]))
            run((*grid(tile, *y.shape), 1), (*threads, 1), (x, W, b, y, *sizes))

        wait = cupy.cuda.Device().synchronize
        yield Rung("CUDA C++", name, source, call, gpu, True, cupy.asarray, cupy.asnumpy, wait)


# --- Triton -----------------------------------------------------------------------------------------


def triton(device: str) -> Iterator[Rung]:
    """The rungs in Triton, on PyTorch's tensors: interpreted for ``"cpu"``, on the GPU for ``"cuda"``.

    Raises RuntimeError for ``"cpu"`` where Triton was imported without ``TRITON_INTERPRET=1`` in the environment.
    """
    if device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError("without a GPU Triton must be imported with TRITON_INTERPRET=1 in the environment")
    import torch

    from bench.ladder import triton_rungs

    where = "Triton's interpreter" if device == "cpu" else torch.cuda.get_device_name()
    wait = (lambda: None) if device == "cpu" else torch.cuda.synchronize
    for name, call in triton_rungs.RUNGS.items():

        def upload(array: np.ndarray) -> Any:
            return torch.from_numpy(array).to(device)

        def download(tensor: Any) -> np.ndarray:
            array: np.ndarray = tensor.cpu().numpy()
            return array

        yield Rung("Triton", name, "triton_rungs.py", call, where, device == "cuda", upload, download, wait)


# --- libraries --------------------------------------------------------------------------------------


def libraries(device: str) -> Iterator[Rung]:
    """What others and the package itself need for the same."""
    from minigen.device import get_backend

    if device == "cpu":
        yield Rung("library", "BLAS through NumPy", "", _with(np), "one core", timed=True)
    else:
        import cupy

        wait = cupy.cuda.Device().synchronize
        yield Rung("library", "cuBLAS through CuPy", "", _with(cupy), "GPU", True, cupy.asarray, cupy.asnumpy, wait)
    backend = get_backend(device)

    def call(x: Any, W: Any, b: Any, y: Any) -> None:
        backend.dense_forward(x, W, b, y, "linear")

    wait = (lambda: None) if device == "cpu" else cupy.cuda.Device().synchronize
    name = f"minigen, {backend.precision}"
    yield Rung("library", name, "", call, "one core" if device == "cpu" else "GPU", True, backend.upload, _host, wait)


def _with(arrays: Any) -> Dense:
    def call(x: Any, W: Any, b: Any, y: Any) -> None:
        arrays.matmul(x, W, out=y)
        arrays.add(y, b, out=y)

    return call


def _host(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.get()


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None

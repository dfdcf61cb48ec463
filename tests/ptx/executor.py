"""The CUDA backend on PTX run by NumPy: ``CudaBackend(executor=PtxExecutor(90))`` has all of its operations."""

from __future__ import annotations

from dataclasses import dataclass
from unittest import mock

import numpy as np

from interpreter import HostExecutor
from minigen.cuda.plan.launch import Launch
from minigen.cuda.run.build import TritonBuild, build_of, translate
from minigen.paths import cache_folder
from ptx.code import Code
from ptx.machine import run


@dataclass(frozen=True)
class Kernel:
    """A kernel's PTX as ``text``, and parsed as ``code``; the number of ``threads`` and bytes of ``shared`` memory of
    a block."""

    text: str
    code: Code
    threads: int
    shared: int


_kernels: dict[str, Kernel] = {}  # of this process, by key: tests have an executor each


def kernel_of(build: TritonBuild) -> Kernel:
    """The kernel, read once in a process, and compiled once for all processes with one cache.

    Compilation ends at the PTX. Machine code, a third of the work, is not used here; test_cuda_compile.py makes it.
    """
    if build.key not in _kernels:
        from triton import knobs
        from triton.backends.nvidia.compiler import CUDABackend

        with mock.patch.object(CUDABackend, "make_cubin", return_value=b"none"), knobs.cache.scope():
            knobs.cache.dir = str(cache_folder() / "ptx")
            record = translate(build)
        text, facts = record.asm["ptx"], record.metadata
        _kernels[build.key] = Kernel(text, Code(text), 32 * facts.num_warps, facts.shared)
    return _kernels[build.key]


class PtxExecutor(HostExecutor):
    """Compiles a launch's kernel as for a GPU of ``architecture`` and runs its PTX, the blocks in random order."""

    name = "ptx"

    def __init__(self, architecture: int) -> None:
        super().__init__(architecture)
        self.order = np.random.default_rng()
        self.codes: dict[str, Code] = {}

    def run(self, launch: Launch) -> None:
        """Run one launch. Raises Fault for what would go wrong on a GPU."""
        self.execute(launch)

    def execute(self, launch: Launch, order: np.ndarray | None = None) -> tuple[Code, np.ndarray]:
        """Run one launch, or of its blocks those of ``order``: its code, and what :func:`ptx.machine.run` returns."""
        build = build_of(launch, self)
        kernel = kernel_of(build)
        self.codes[build.key] = kernel.code
        order = self.order.permutation(launch.grid[0] * launch.grid[1]) if order is None else order
        executed = run(kernel.code, order, launch.args, kernel.threads, kernel.shared, launch.grid, launch.moved_to)
        return kernel.code, executed

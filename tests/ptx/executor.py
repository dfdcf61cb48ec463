"""The CUDA backend on PTX run by NumPy: ``CudaBackend(executor=PtxExecutor(90))`` has all of its operations."""

from __future__ import annotations

import numpy as np

from interpreter import HostExecutor
from minigen.cuda.plan.launch import Launch
from minigen.cuda.run.build import build_of, translate
from ptx.code import Code
from ptx.machine import run


class PtxExecutor(HostExecutor):
    """Compiles a launch's kernel as for a GPU of ``architecture`` and runs its PTX, the blocks in random order."""

    name = "ptx"

    def __init__(self, architecture: int) -> None:
        super().__init__(architecture)
        self.order = np.random.default_rng()
        self.codes: dict[str, Code] = {}
        self.blocks: dict[str, tuple[int, int]] = {}  # threads, and bytes of shared memory

    def run(self, launch: Launch) -> None:
        """Run one launch. Raises Fault for what would go wrong on a GPU."""
        self.execute(launch)

    def execute(self, launch: Launch, order: np.ndarray | None = None) -> tuple[Code, np.ndarray]:
        """Run one launch, or of its blocks those of ``order``: its code, and what :func:`ptx.machine.run` returns."""
        build = build_of(launch, self)
        if build.key not in self.codes:
            record = translate(build)
            self.codes[build.key] = Code(record.asm["ptx"])
            self.blocks[build.key] = 32 * record.metadata.num_warps, record.metadata.shared
        order = self.order.permutation(launch.grid[0] * launch.grid[1]) if order is None else order
        code, blocks = self.codes[build.key], self.blocks[build.key]
        return code, run(code, order, launch.args, *blocks, launch.grid, launch.moved_to)

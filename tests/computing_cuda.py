"""The CUDA backend on the stand-in for CuPy, computing: each operation is one launch whose effect is the reference's.

Memory, streams, copies and graphs are those of a GPU's backend, with the stand-in's checks; the kernels are not.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from minigen.backend import Program
from minigen.cuda.backend import CudaBackend
from minigen.cuda.run.device import Call, GraphProgram
from minigen.cuda.together import MemberProgram, current_member
from minigen.reference_backend import NumpyBackend
from minigen.step.record import Operation


class ComputedProgram(MemberProgram):
    """One model's step of several, launched with the others'."""

    groups: list[tuple[int, ...]] = []
    """The models of each program that was made."""

    def with_others(self, programs: Sequence[MemberProgram]) -> Program:
        self.groups.append(tuple(program.member.number for program in programs))
        launches: Any = [launch for program in programs for launch in program.launches]
        return GraphProgram(self.executor, launches)  # type: ignore[arg-type]


class ComputingCuda(CudaBackend):
    """See the module."""

    def __init__(self, index: int = 0, **settings: Any) -> None:
        super().__init__(index, **settings)
        cupy = self.executor.cupy  # type: ignore[attr-defined]
        calls: list[Callable[[], None]] = []
        self.calls = calls
        self.launches: list[Call] | None = None  # while capturing
        self.reference = NumpyBackend()
        self.function = cupy.cuda.Module().get_function(f"computed_{id(self)}")
        cupy.effects[self.function.name] = lambda number: calls[int(number)]()
        weakref.finalize(self, calls.clear)  # the stand-in outlives the backend, whose memory must go

    def execute(self, operation: Operation) -> None:
        if operation.name == "is_finite":
            self.enqueue(lambda: operation["flags"].fill(not self.reference.is_finite(operation["x"])))
        else:
            self.enqueue(partial(self.reference.execute, operation))

    def program(self, operations: Sequence[Operation]) -> Program:
        launches = self.launches = []
        for operation in operations:
            self.execute(operation)
        self.launches = None
        member = current_member.get()
        if member is None:
            return GraphProgram(self.executor, launches)  # type: ignore[arg-type]
        kind = tuple((op.name, *(buffer.shape for buffer in op.buffers.values())) for op in operations)
        return ComputedProgram(member, self.executor, launches, kind)  # type: ignore[arg-type]

    def enqueue(self, call: Callable[[], None]) -> None:
        self.calls.append(call)
        executor: Any = self.executor
        number = np.uint64(len(self.calls) - 1)
        launch = partial(self.function, (1, 1, 1), (32, 1, 1), (number,), shared_mem=0, stream=executor.stream)
        if self.launches is not None:
            self.launches.append(launch)
        else:
            with executor.device:
                launch()
            self.calls.pop()  # it has run, and would keep its buffers

"""The CUDA backend on the stand-in for CuPy, computing: each operation is one launch whose effect is the reference's.

Memory, streams, copies and graphs are those of a GPU's backend, with the stand-in's checks; the kernels are not.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minigen.backend import Program
from minigen.cuda.backend import CudaBackend
from minigen.cuda.device import GraphProgram, Ready
from minigen.reference_backend import NumpyBackend

OTHERS = (
    "empty",
    "upload",
    "resident",
    "download",
    "is_finite",
    "reader",
    "finite_reader",
    "capture",
    "default_precision",
)
OPERATIONS = [name for name in vars(NumpyBackend) if not name.startswith("_") and name in vars(CudaBackend)]


class ComputingCuda(CudaBackend):
    """See the module."""

    def __init__(self, index: int = 0, **settings: Any) -> None:
        super().__init__(index, **settings)
        cupy = self.executor.cupy  # type: ignore[attr-defined]
        calls: list[Callable[[], None]] = []
        self.calls = calls
        self.launches: list[Ready] | None = None  # while capturing
        self.reference = NumpyBackend()
        self.function = cupy.cuda.Module().get_function(f"computed_{id(self)}")
        cupy.effects[self.function.name] = lambda number: calls[int(number)]()
        weakref.finalize(self, calls.clear)  # the stand-in outlives the backend, whose memory must go

    def _do(self, kind: str, fuses: str, buffers: dict[str, Any], **settings: Any) -> None:
        """The arguments have passed CudaBackend's checks; what follows is in :func:`_computed`, but for one kernel."""
        if kind == "is_finite":
            self.enqueue(lambda: buffers["flags"].fill(not self.reference.is_finite(buffers["x"])))

    def capture(self, step: Callable[[], None]) -> Program:
        launches = self.launches = []
        step()
        self.launches = None
        return GraphProgram(self.executor, launches)  # type: ignore[arg-type]

    def enqueue(self, call: Callable[[], None]) -> None:
        self.calls.append(call)
        ready = Ready(self.function, (1, 1, 1), 32, (np.uint64(len(self.calls) - 1),), 0)
        if self.launches is not None:
            self.launches.append(ready)
        else:
            self.executor._launch(ready)  # type: ignore[attr-defined]
            self.calls.pop()  # it has run, and would keep its buffers


def _computed(name: str) -> Any:
    def call(self: ComputingCuda, *arguments: Any, **settings: Any) -> None:
        getattr(CudaBackend, name)(self, *arguments, **settings)
        self.enqueue(partial(getattr(self.reference, name), *arguments, **settings))

    return call


for name in OPERATIONS:
    if name not in OTHERS and callable(getattr(CudaBackend, name)):
        setattr(ComputingCuda, name, _computed(name))

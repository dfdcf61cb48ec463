"""The CUDA backend: the operations of :mod:`minigen.ops` as kernel launches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from minigen import checks
from minigen.backend import Array, Backend, Program, Reader
from minigen.cuda import together
from minigen.cuda.interop import CudaPlacement
from minigen.cuda.plan.launch import Executor
from minigen.cuda.plan.lowering import BLOCK, Target, blocks
from minigen.cuda.plan.schedule import Schedule, clear, plan
from minigen.step.dependencies import Memory
from minigen.step.record import Operation, operation

PRECISIONS = ("ieee", "tf32x3", "bf16x6", "bf16x3", "tf32", "bf16")


class CapturedStep:
    """A program with its ``schedule``, which can be printed."""

    def __init__(self, schedule: Schedule, program: Program) -> None:
        self.schedule, self.program = schedule, program

    def run(self, steps: int) -> None:
        """Repeat the step ``steps`` times."""
        self.program.run(checks.integer("steps", steps, 0))


class FiniteReader:
    """See :meth:`CudaBackend.finite_reader`. ``look`` launches what fills the flags that ``flags`` reads."""

    def __init__(self, look: Callable[[], None], flags: Reader) -> None:
        self.look, self.flags = look, flags

    def begin(self) -> None:
        """Look, and ask for the flags."""
        self.look()
        self.flags.begin()

    def get(self) -> np.ndarray:
        """``int32[programs]``, not 0 for each program of the launch that found something."""
        return self.flags.get()


class CudaBackend(CudaPlacement, Backend):
    """The operations on GPU number ``index``, or on another ``executor`` (:class:`minigen.cuda.plan.launch.Executor`).

    ``precision`` is how matrix products are taken, one of :data:`PRECISIONS`, which
    :mod:`minigen.cuda.kernels.matmul` explains; sums and storage are float32 in all. The default is ``"tf32x3"``: it
    has float32's accuracy, so that a training gives the same losses as on the other backends up to rounding, and it
    runs on the tensor cores, which ``"ieee"`` cannot use.

    Calls run at once. A captured step is fused instead (``fuse=False`` leaves each call a launch of its own): what the
    step writes without reading it again, and all that it brings to the next step, is as if spelled out, up to
    rounding; buffers that it writes and reads itself may be left unwritten, holding zeros. A captured
    program repeats bit for bit.

    What only the device knows cannot raise: a row that is not in the data is NaN.
    """

    name = "cuda"
    ahead = 1
    PRECISIONS = PRECISIONS

    @staticmethod
    def default_precision() -> str:
        return "tf32x3"

    def __init__(
        self, index: int = 0, *, executor: Executor | None = None, precision: str = "tf32x3", fuse: bool = True
    ) -> None:
        self.precision = checks.choice("precision", precision, self.PRECISIONS)
        if executor is None:
            executor = together.executor(index)
        self.dtype = np.dtype(np.float32)
        self.executor, self.fuse = executor, fuse
        self.target = Target(executor.architecture, precision, executor.empty)
        self.memory = Memory(executor.address, executor.empty)
        self.array_type = executor.array_type

    def address(self, buffer: Array) -> int:
        return self.executor.address(buffer)

    # --- operations ---------------------------------------------------------------------------

    def execute(self, operation: Operation) -> None:
        for launch in plan([operation], self.memory, self.target, fused=False).launches:
            self.executor.run(launch)

    def schedule(self, step: Callable[[], None], fuse: bool | None = None) -> Schedule:
        """The schedule that :meth:`capture` makes of ``step``; nothing runs."""
        return plan(self.record(step), self.memory, self.target, self.fuse if fuse is None else fuse)

    def program(self, operations: Sequence[Operation]) -> CapturedStep:
        target = replace(self.target, **together.sharing())
        schedule = plan(operations, self.memory, target, self.fuse)
        clear(schedule, self.executor.upload)
        return CapturedStep(schedule, together.capture(self.executor, schedule.launches))

    # --- memory -------------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """A new uninitialised C-contiguous buffer, aligned to 64 bytes."""
        return self.executor.empty(shape, self.dtype if dtype is None else np.dtype(dtype))

    def upload(self, host: np.ndarray, out: Array | None = None) -> Array:
        """Copy ``host`` into ``out`` of the same shape and dtype, or into a new buffer."""
        if out is not None:
            if not isinstance(out, self.array_type) or out.dtype != host.dtype or out.shape != host.shape:
                raise ValueError(f"out must be a buffer of shape {host.shape} and dtype {host.dtype}")
        return self.executor.upload(host, out)

    def resident(self, host: np.ndarray) -> Array:
        """A copy of ``host`` in device memory, or where a whole training can gather from it."""
        return self.executor.resident(host)

    def download(self, buffer: Array) -> np.ndarray:
        """A new host array with the contents of ``buffer``."""
        return self.executor.download(buffer)

    def is_finite(self, buffer: Array) -> bool:
        """Whether no element is NaN or infinite: the device looks, and one flag of each program is read back."""
        flags = self._flags(buffer)
        self._look(buffer, flags)
        return not self.download(flags).any()

    def reader(self, buffer: Array) -> Reader:
        """A download of ``buffer`` that the host need not wait for."""
        return self.executor.reader(buffer)

    def finite_reader(self, buffer: Array) -> Reader:
        """:meth:`is_finite` that the host need not wait for: one flag of each program."""
        flags = self._flags(buffer)
        return FiniteReader(partial(self._look, buffer, flags), self.reader(flags))

    def _flags(self, buffer: Array) -> Array:
        return self.empty((blocks(buffer.size, BLOCK),), np.int32)

    def _look(self, buffer: Array, flags: Array) -> None:
        self.forbid_in_step("is_finite")
        self.execute(operation("is_finite", ("is_finite",), {"x": buffer, "flags": flags}))

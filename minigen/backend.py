"""What a device has to offer: memory, and the operations of :mod:`minigen.ops`, at once or recorded as a step.

A model never asks on which device it runs. It holds a :class:`Backend` and spells its training step out as calls on
it. Each call reads its inputs and writes its outputs into buffers that the caller owns, so that a step allocates
nothing and can be repeated. There are three: the reference in NumPy, the CPU's compiled kernels, and CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from minigen.ops import (
    ACTIVATIONS,
    DENSE_ACTIVATIONS,
    GAN_LOSSES,
    LEAKY_SLOPE,
    LIKELIHOODS,
    SCHEDULES,
    Array,
    Operations,
)
from minigen.placement import Placement
from minigen.step.record import Operation

__all__ = [
    "ACTIVATIONS",
    "DENSE_ACTIVATIONS",
    "GAN_LOSSES",
    "LEAKY_SLOPE",
    "LIKELIHOODS",
    "PRECISIONS",
    "SCHEDULES",
    "Array",
    "Backend",
    "HostReader",
    "Program",
    "Reader",
    "aligned_empty",
]

PRECISIONS = ("ieee", "bf16x6", "tf32x3", "bf16x3", "tf32", "bf16")
"""How matrix products may be taken; each backend has some of them. Factors of 24 bits, 24 (six products of 8), 22
(three products of 11), 11 and 8. Sums are float32."""
ALIGNMENT = 64  # bytes: a cache line, an AVX-512 vector


class Program(Protocol):
    """A captured step that can be repeated without spelling it out again."""

    def run(self, steps: int) -> None:
        """Repeat the captured step ``steps`` times."""


class Reader(Protocol):
    """Brings something about a buffer to the host while the device goes on computing, again and again."""

    def begin(self) -> None:
        """Ask for it as the work so far leaves it; what :meth:`get` gave before may be overwritten."""

    def get(self) -> np.ndarray:
        """What the last :meth:`begin` asked for. Waits for that and for nothing that was begun later."""


class HostReader:
    """A :class:`Reader` where the work so far is done already: ``read`` is called at once."""

    def __init__(self, read: Callable[[], np.ndarray]) -> None:
        self.read = read

    def begin(self) -> None:
        """Read."""
        self.host = self.read()

    def get(self) -> np.ndarray:
        """What was read."""
        return self.host


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised C-contiguous array on the host that begins at a multiple of 64 bytes."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


class Backend(Placement, Operations):
    """One device. Memory and :meth:`execute` are its own, the operations are checked and recorded here.

    One thread at a time may use a backend while it captures.
    """

    name: ClassVar[str]
    PRECISIONS: ClassVar[tuple[str, ...]]
    precision: str
    """How its matrix products are taken, one of its own ``PRECISIONS``."""
    ahead: ClassVar[int] = 0
    """How many runs of a program to begin beyond the one whose results are waited for: 0 where a run ends done."""
    _recorded: list[Operation] | None = None  # while a step is recorded

    @staticmethod
    def default_precision() -> str:
        """The fastest of its precisions on this machine that is as accurate as float32."""
        raise NotImplementedError

    # --- operations -----------------------------------------------------------------------------------------

    def do(self, operation: Operation) -> None:
        """Record ``operation`` while a step is captured, else run it."""
        if self._recorded is None:
            self.execute(operation)
        else:
            self._recorded.append(operation)

    def execute(self, operation: Operation) -> None:
        """Run one checked operation now."""
        raise NotImplementedError

    def record(self, step: Callable[[], None]) -> list[Operation]:
        """The operations that ``step`` calls; none of them runs."""
        if not callable(step):
            raise TypeError(f"step must be a function without arguments, not {type(step).__name__}")
        self.forbid_in_step("capture")
        recorded: list[Operation] = []
        self._recorded = recorded
        try:
            step()
        finally:
            self._recorded = None
        return recorded

    def capture(self, step: Callable[[], None]) -> Program:
        """Turn ``step``, a function that only calls operations of this backend on fixed buffers, into a program.

        Capturing runs none of it. The program keeps the buffers alive. Where the backend fuses, after a program has run
        a gradient that only its optimizer reads need not be in its buffer. In a flat buffer of several parameters, what
        lies between the end of one and the next line of 64 bytes is padding if no operation but the optimizer touches
        it: it must be zero in weights, gradients and moments, and a program may leave it alone.
        """
        return self.program(self.record(step))

    def program(self, operations: Sequence[Operation]) -> Program:
        """What repeats ``operations`` in their order, or does the same in less."""
        raise NotImplementedError

    def forbid_in_step(self, name: str) -> None:
        """Raise RuntimeError while a step is recorded: for what would run now, not when the step runs."""
        if self._recorded is not None:
            raise RuntimeError(f"{name} cannot be part of a captured step: it would run now, not when the step runs")

    # --- memory ---------------------------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """A new uninitialised C-contiguous buffer, aligned to 64 bytes; ``dtype=None`` is the backend's own."""
        raise NotImplementedError

    def upload(self, host: np.ndarray, out: Array | None = None) -> Array:
        """Copy ``host`` into device memory: into ``out`` when given, else into a new buffer of the same dtype.

        ``host`` may also be a buffer of this backend; the copy then does not leave the device.
        """
        raise NotImplementedError

    def resident(self, host: np.ndarray) -> Array:
        """``host`` where :meth:`batch_gather` can read it for a whole training.

        That is ``host`` itself on the host, so that a memory-mapped file stays mapped; a copy on CUDA.
        """
        raise NotImplementedError

    def download(self, buffer: Array) -> np.ndarray:
        """A new host array with the contents of ``buffer``; waits for the work that writes it."""
        raise NotImplementedError

    def is_finite(self, buffer: Array) -> bool:
        """Whether no element of a ``buffer`` of the backend's dtype is NaN or infinite; waits as :meth:`download` does.

        Only the answer leaves the device.
        """
        raise NotImplementedError

    def reader(self, buffer: Array) -> Reader:
        """A :meth:`download` of ``buffer`` in two halves; it allocates nothing after this call."""
        raise NotImplementedError

    def finite_reader(self, buffer: Array) -> Reader:
        """:meth:`is_finite` in two halves: flags, any of them set where an element is NaN or infinite."""
        raise NotImplementedError


class HostBackend(Backend):
    """A backend whose buffers are NumPy arrays."""

    array_type = np.ndarray

    def address(self, buffer: np.ndarray) -> int:
        return int(buffer.__array_interface__["data"][0])

    def empty(self, shape: tuple[int, ...], dtype: Any = None) -> np.ndarray:
        return aligned_empty(shape, self.dtype if dtype is None else dtype)

    def upload(self, host: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        self.forbid_in_step("upload")
        host = np.asarray(host)
        if out is None:
            out = self.empty(host.shape, host.dtype)
        elif out.shape != host.shape:
            raise ValueError(f"out must have shape {host.shape}, not {out.shape}")
        np.copyto(out, host)
        return out

    def resident(self, host: np.ndarray) -> np.ndarray:
        return host

    def download(self, buffer: np.ndarray) -> np.ndarray:
        self.forbid_in_step("download")
        return np.array(buffer)

    def is_finite(self, buffer: np.ndarray) -> bool:
        self.forbid_in_step("is_finite")
        return bool(np.isfinite(buffer).all())

    def reader(self, buffer: np.ndarray) -> HostReader:
        return HostReader(lambda: self.download(buffer))

    def finite_reader(self, buffer: np.ndarray) -> HostReader:
        return HostReader(lambda: np.array([not self.is_finite(buffer)]))

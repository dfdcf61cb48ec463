"""The CPU backend: the operations of :mod:`minigen.ops` as compiled C++ kernels (``csrc/cpu``), float32.

The kernels exist once for each instruction set (x86-64: ``baseline``, ``avx2``, ``avx512``; Arm64: ``baseline``,
``neon``). The best one that the machine has is picked at the first use; the environment variable ``MINIGEN_ISA`` names
another. Results have the same bits for any number of threads, not for any instruction set.

A processor with AMX takes a dense layer's products on its tiles of bf16: see :attr:`CpuBackend.PRECISIONS`. With
``precision="bf16"`` one with AVX512-BF16 alone takes its dot products, which can be slower than float32, as
``_native.bf16_peak_gflops`` and ``_native.fma_peak_gflops`` tell. ``MINIGEN_BF16`` (``amx``, ``avx512bf16``) names one.
The first such backend asks Linux for AMX's registers, for the whole process, which may then have no signal stack
(``sigaltstack``) too small for them; a process that has one already is refused, and goes without AMX.

The threads are a team of minigen's own, started at the first operation that is worth them, one for each core at most.
Those that wait sleep, so that other programs have their cores. Where another program takes a core nevertheless, a
training measures now and then how long its steps take with fewer threads, and goes on with the number that is faster.
A forked child starts a team of its own, whatever OpenMP's threads do in the process. The team serves one Python thread
at a time; the others' operations meanwhile run on those threads alone. Trainings at once (:func:`minigen.fit_many`)
work alone each, on a core each, and the last one left has the team.

``threadpoolctl.threadpool_limits`` has no effect here: it knows the libraries of OpenMP and BLAS, and minigen has
neither. ``OMP_NUM_THREADS`` has, as it is when minigen is first asked to compute, and so have :func:`set_num_threads`
and the command line's ``--threads``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minigen import checks
from minigen.backend import HostBackend
from minigen.errors import ArgumentError
from minigen.step.dependencies import Memory
from minigen.step.record import Operation

try:
    from minigen import _native
except ImportError as error:
    from minigen.missing_native import explain

    raise ImportError(explain(error)) from error

from minigen.cpu import plan

MAX_THREADS = 1024  # the compiled module's own limit


def isa() -> str:
    """Name of the instruction set in use. Raises ValueError if ``MINIGEN_ISA`` names none that this machine has."""
    return _native.isa()


def bf16() -> str:
    """What multiplies in the precision ``"bf16"``: ``"amx"``, or ``"avx512bf16"``, the slower one.

    Raises ValueError where the processor, the system or this build has neither, or ``MINIGEN_BF16`` names none of them.
    """
    return _native.bf16()


def get_num_threads() -> int:
    """How many threads the operations may use: the physical cores that this process may use (its affinity mask, and the
    CPU quotas of its control groups), or fewer if ``OMP_NUM_THREADS`` or :func:`set_num_threads` says so."""
    return _native.get_num_threads()


def set_num_threads(threads: int) -> None:
    """Let the operations use ``threads`` threads, 1 to 1024, but no more than one a core: more would only take turns.

    Small operations use fewer. Results do not depend on it. Raises ValueError for a number out of range, TypeError for
    what is no integer.
    """
    _native.set_num_threads(checks.integer("threads", threads, 1, MAX_THREADS))


@contextmanager
def beside_others() -> Iterator[None]:
    """For a thread that trains beside others: its operations run on it alone, as long as others are in this context."""
    _native.join_trainings()
    try:
        yield
    finally:
        _native.leave_trainings()


class CpuProgram:
    """A captured step: its fused ``operations``, which the compiled module runs without the interpreter."""

    def __init__(self, operations: Sequence[Operation], precision: str) -> None:
        self.operations = tuple(operations)
        self._program = _native.Program([plan.call(operation) for operation in operations], precision)

    def run(self, steps: int) -> None:
        """Run the step ``steps`` times."""
        self._program.run(checks.integer("steps", steps, 0))

    def profile(self, steps: int) -> np.ndarray:
        """The same; the seconds of each operation, ``[steps, operations]``."""
        return np.array(self._program.profile(checks.integer("steps", steps, 0)))

    def describe(self) -> list[dict[str, Any]]:
        """Of each operation: its name, shapes, FLOPs, bytes moved, and how many rows of its input are pixels."""
        return [
            {
                "operation": plan.title(op),
                "shapes": {name: buffer.shape for name, buffer in op.buffers.items()},
                "flops": op.flops,
                "bytes": op.bytes,
            }
            | ({"pixels": op["pixels"]} if op["pixels"] else {})
            for op in self.operations
        ]


class CpuBackend(HostBackend):
    """See :class:`minigen.backend.Backend`; buffers are NumPy arrays of float32.

    One thread at a time may use a backend while it captures; otherwise operations run concurrently, without the
    interpreter lock. Raises ValueError for a ``precision`` that is unknown or that this processor lacks, and if the
    environment variable ``MINIGEN_ISA`` names no instruction set of this machine.
    """

    name = "cpu"
    PRECISIONS = ("ieee", "bf16x6", "bf16")
    """``"ieee"`` multiplies float32. ``"bf16"`` rounds both operands of a dense layer's products to bf16 and sums in
    float32, on AVX512-BF16 or AMX. ``"bf16x6"`` takes each operand for the sum of three bf16 that hold all its bits,
    and the six largest of their nine products, on AMX: as good as ``"ieee"``, but infinities become NaN. In a captured
    step pixels, bytes that :meth:`batch_gather` has put in [0, 1] or [-1, 1], take three: whole numbers over 255, they
    are one bf16 each. Everything else, a head of one output included, is as in ``"ieee"``, and so are a small layer's
    products in ``"bf16x6"``, where splitting the operands does not pay."""

    @staticmethod
    def default_precision() -> str:
        """``"bf16x6"`` where AMX multiplies, else ``"ieee"``. Raises as :func:`bf16` for a wrong ``MINIGEN_BF16``."""
        return "bf16x6" if _native.supported_bf16() and bf16() == "amx" else "ieee"

    def __init__(self, precision: str = "ieee") -> None:
        self.precision = checks.choice("precision", precision, self.PRECISIONS)
        self.dtype = np.dtype(np.float32)
        self.isa = isa()
        if precision != "ieee":
            instructions = bf16()  # raises where there are none
            if precision == "bf16x6" and instructions != "amx":
                raise ArgumentError(
                    "precision", f"must be ieee or bf16 with {instructions}, not 'bf16x6': that needs AMX"
                )
        self._memory = Memory(self.address, self.empty)

    def __repr__(self) -> str:
        return f"CpuBackend(isa={self.isa!r}, precision={self.precision!r}, threads={get_num_threads()})"

    def execute(self, operation: Operation) -> None:
        _native.run(*plan.call(operation), self.precision)

    def program(self, operations: Sequence[Operation]) -> CpuProgram:
        return CpuProgram(plan.fused(operations, self._memory, self.precision), self.precision)

"""What the CUDA floor runs, as data: kernels, launches, and the executors that carry them out.

A launch names its kernel, the grid and every argument; it can be printed, compared, counted, interpreted on the host
(:mod:`minigen.cuda.interpreter`) or compiled and launched on a GPU (:mod:`minigen.cuda.device`). Nothing here needs
Triton, CuPy or a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from minigen.backend import Array, Program, Reader

if TYPE_CHECKING:
    from minigen.cuda.dispatch import Job

POINTERS = {"float32": "*fp32", "int32": "*i32", "uint64": "*u64", "uint8": "*u8"}
"""The parameter types of the buffers, in Triton's spelling, by dtype."""

ALIGNMENT = 16  # bytes: where a buffer begins on such a boundary, the compiler may load 16 bytes at once


@dataclass(frozen=True)
class Kernel:
    """One ``__global__`` function.

    ``source`` is a Triton ``@jit`` function, or with ``language="cuda"`` the pair (file under ``csrc/cuda``, function).
    """

    name: str
    source: Any
    language: str = "triton"


@dataclass(frozen=True)
class Launch:
    """One kernel launch.

    ``args`` are the arguments in the order of the kernel's non-constexpr parameters: buffers, Python ints (``int32``)
    and Python floats (``float32``). ``constexprs`` give the other parameters by name. ``fuses`` names the backend
    operations whose work this launch does; ``flops`` and ``bytes`` are what those need at least (every input
    read once, every output written once), not what was measured.
    """

    kernel: Kernel
    grid: tuple[int, int, int]
    args: tuple[Any, ...]
    constexprs: dict[str, Any] = field(default_factory=dict)
    num_warps: int = 4
    num_stages: int = 3
    fuses: tuple[str, ...] = ()
    flops: int = 0
    bytes: int = 0
    jobs: tuple[Job, ...] = ()
    """Whose kernel this is, where it was written for them: see :mod:`minigen.cuda.dispatch`."""

    @property
    def tile(self) -> str:
        """Of the job with the most work, as ``BM x BN x BK, stages``; with SPLIT > 1 ``BM x BN x SPLIT x BK``."""
        tile = next((job.tile for job in self.jobs if job.tile), None)
        if tile is None:
            return ""
        sides = (tile.BM, tile.BN, tile.SPLIT, tile.BK) if tile.SPLIT > 1 else (tile.BM, tile.BN, tile.BK)
        return f"{'x'.join(map(str, sides))}, {self.num_stages}"


class Executor(Protocol):
    """Memory, and something that runs launches on it."""

    name: str
    array_type: type
    """Type of the buffers: ``numpy.ndarray`` or ``cupy.ndarray``."""
    architecture: int
    """Compute capability times ten, such as 90: what the tiles are chosen for."""
    shared_limit: int
    """Bytes of shared memory that a block can have."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """See :meth:`minigen.backend.Backend.empty`."""

    def upload(self, host: np.ndarray, out: Array | None = None) -> Array:
        """See :meth:`minigen.backend.Backend.upload`."""

    def resident(self, host: np.ndarray) -> Array:
        """See :meth:`minigen.backend.Backend.resident`."""

    def download(self, buffer: Array) -> np.ndarray:
        """See :meth:`minigen.backend.Backend.download`."""

    def reader(self, buffer: Array) -> Reader:
        """See :meth:`minigen.backend.Backend.reader`."""

    def address(self, buffer: Array) -> int:
        """Where the first byte of ``buffer`` lies in the executor's memory."""

    def run(self, launch: Launch) -> None:
        """Run one launch, after those before it."""

    def capture(self, launches: Sequence[Launch]) -> Program:
        """A program that repeats ``launches`` in their order."""


def type_of(argument: Any) -> str:
    """The parameter type of one of :attr:`Launch.args`. Raises TypeError for anything else."""
    if isinstance(argument, bool):
        raise TypeError("a bool is no kernel argument; use a constexpr")
    if isinstance(argument, int):
        if not -(2**31) <= argument < 2**31:
            raise TypeError(f"a kernel's integer must fit int32, not {argument}")
        return "i32"
    if isinstance(argument, float):
        return "fp32"
    name = str(getattr(argument, "dtype", type(argument).__name__))
    if name not in POINTERS:
        raise TypeError(f"a kernel takes int, float or buffers of {', '.join(POINTERS)}, not {name}")
    return POINTERS[name]


def signature(launch: Launch, parameters: Sequence[str]) -> dict[str, str]:
    """Type of each of the kernel's ``parameters`` (in order), ``"constexpr"`` for those given as such.

    This is what Triton's ``ASTSource`` wants. Raises ValueError where arguments and parameters do not match.
    """
    free = [name for name in parameters if name not in launch.constexprs]
    if len(free) != len(launch.args) or len(free) + len(launch.constexprs) != len(parameters):
        raise ValueError(
            f"{launch.kernel.name} has parameters {', '.join(parameters)}; got {len(launch.args)} arguments and "
            f"constexprs {', '.join(launch.constexprs)}"
        )
    types = {name: type_of(argument) for name, argument in zip(free, launch.args, strict=True)}
    return {name: types.get(name, "constexpr") for name in parameters}


def aligned(launch: Launch, parameters: Sequence[str], addresses: Sequence[int | None]) -> list[int]:
    """Positions among ``parameters`` of the buffers whose address is a multiple of :data:`ALIGNMENT`.

    ``addresses`` goes with ``launch.args`` (None for scalars). A cubin compiled with that promise must not be run on
    other addresses, so the positions belong to the key of a cache.
    """
    free = [i for i, name in enumerate(parameters) if name not in launch.constexprs]
    return [i for i, address in zip(free, addresses, strict=True) if address is not None and address % ALIGNMENT == 0]

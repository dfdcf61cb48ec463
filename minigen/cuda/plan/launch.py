"""What the CUDA backend runs, as data: jobs, the launches that run several of them, and what carries launches out.

A launch names its kernel, the grid and every argument; it can be printed, compared, counted, compiled and launched on
a GPU (:mod:`minigen.cuda.run`), and in tests run on the host. Nothing here needs Triton, CuPy or a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from minigen.backend import Array, Program, Reader
from minigen.cuda.plan import tiles
from minigen.cuda.plan.tiles import Tile

POINTERS = {"float32": "*fp32", "int32": "*i32", "int64": "*i64", "uint64": "*u64", "uint8": "*u8"}
"""The parameter types of the buffers, in Triton's spelling, by dtype."""

ALIGNMENT = 16  # bytes: where a buffer begins on such a boundary, the compiler may load 16 bytes at once


@dataclass(frozen=True)
class Job:
    """A Triton function of :mod:`minigen.cuda.kernels` with its arguments and a number of programs: part of a launch.

    ``arguments`` are by parameter name, all but ``pid``; one may be a named tuple. ``reads`` and ``writes`` are the
    buffers that the programs touch: no two jobs of a launch may touch the same memory if one of them writes there.
    ``flops`` and ``bytes`` are as in :class:`Launch`; ``traffic`` are the bytes of each of ``reads`` and ``writes``.
    ``tile`` is a matrix product's; other jobs run with any number of warps.
    """

    function: Any
    programs: int
    arguments: Mapping[str, Any]
    reads: tuple[Array, ...]
    writes: tuple[Array, ...]
    fuses: tuple[str, ...]
    flops: int = 0
    traffic: tuple[int, ...] = ()
    tile: Tile | None = None

    @property
    def name(self) -> str:
        """Such as ``dense_forward``: the kernel's file and function."""
        return f"{self.function.fn.__module__.rpartition('.')[2]}_{self.function.fn.__name__}"

    @property
    def bytes(self) -> int:
        return sum(self.traffic)

    @property
    def warps(self) -> int | None:
        """None where any number will do."""
        return self.tile.warps if self.tile else None

    @property
    def stages(self) -> int:
        return self.tile.stages if self.tile else 1

    def with_stages(self, most: int) -> Job:
        """The same with at most ``stages`` stages."""
        return replace(self, tile=replace(self.tile, stages=min(self.stages, most))) if self.tile else self

    def with_smaller_stages(self) -> Job | None:
        """The same with the tile of :func:`minigen.cuda.plan.tiles.with_less_memory`, or None."""
        tile = self.tile and tiles.with_less_memory(self.tile)
        if not tile:
            return None
        return replace(self, tile=tile, arguments={**self.arguments, "BK": tile.BK, "SPLIT": tile.SPLIT})


@dataclass(frozen=True)
class Launch:
    """One launch of the kernel ``name``.

    ``source`` is a Triton ``@jit`` function, or of CUDA C++ the pair (file under ``csrc/cuda``, function). ``args`` are
    the arguments in the order of the kernel's non-constexpr parameters: buffers, Python ints (``int32``) and Python
    floats (``float32``). ``constexprs`` give the other parameters by name. ``fuses`` names the backend operations whose
    work this launch does; ``flops`` and ``bytes`` are what those need at least (every input read once, every output
    written once), not what was measured. ``jobs`` are those that it runs, of a kernel that was written for them
    (:mod:`minigen.cuda.plan.codegen`). ``waits`` says that the kernel waits for the launch before it by itself
    (:mod:`minigen.cuda.kernels.waiting`), so that it may be started before that one has ended. A launch for several
    models (:mod:`minigen.cuda.plan.many`) has a ``preamble``, the kernel's first lines, and ``moved_to``, the other
    models' buffers, which it keeps alive.
    """

    name: str
    source: Any
    grid: tuple[int, int, int]
    args: tuple[Any, ...]
    constexprs: dict[str, Any] = field(default_factory=dict)
    num_warps: int = 4
    num_stages: int = 3
    fuses: tuple[str, ...] = ()
    flops: int = 0
    bytes: int = 0
    jobs: tuple[Job, ...] = ()
    waits: bool = False
    preamble: tuple[str, ...] = ()
    moved_to: tuple[Array, ...] = ()

    @property
    def is_triton(self) -> bool:
        return not isinstance(self.source, tuple)

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
            f"{launch.name} has parameters {', '.join(parameters)}; got {len(launch.args)} arguments and "
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

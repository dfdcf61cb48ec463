"""Jobs, and the launch of several of them side by side.

A *job* is a Triton function (:mod:`minigen.cuda.kernels`) with its arguments and a number of programs. Small jobs that
do not depend on each other share a launch, because at small batches a step costs what its launches cost. For each
combination a kernel is written that hands every job its share of the programs, such as ::

    @triton.jit
    def dense_wgrad__dense_wgrad(end_0, a0, a1, ...):
        pid = tl.program_id(0)
        if pid < end_0:
            job_0(pid, a0, a1, ..., 784, 128)
        else:
            job_1(pid - end_0, ...)

Sizes and settings that a job declares ``constexpr`` stand in the text as literals, as does None for an argument that is
left out; what is passed at run time are buffers and numbers. So two launches with the same text run the same cubin.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import linecache
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minigen.backend import Array
from minigen.cuda import tiles
from minigen.cuda.launch import Kernel, Launch
from minigen.cuda.tiles import Tile

DEFAULT_WARPS = 4

WRITTEN: dict[Any, tuple[str, str, tuple[Any, ...]]] = {}
"""The kernels that were written for jobs: by Python function, the name, text and functions of :func:`compile_text`."""


@dataclass(frozen=True)
class Job:
    """One function's part of a launch.

    ``arguments`` are by parameter name, all but ``pid``; one may be a tuple. ``reads`` and ``writes`` are the
    buffers that the programs touch: no two jobs of a launch may touch the same memory if one of them writes there.
    ``flops`` and ``bytes`` are as in :class:`minigen.cuda.launch.Launch`. ``tile`` is a matrix product's; other jobs
    run with any number of warps.
    """

    function: Any
    programs: int
    arguments: Mapping[str, Any]
    reads: tuple[Array, ...]
    writes: tuple[Array, ...]
    fuses: tuple[str, ...]
    flops: int = 0
    bytes: int = 0
    tile: Tile | None = None

    @property
    def warps(self) -> int | None:
        """None where any number will do."""
        return self.tile.warps if self.tile else None

    @property
    def stages(self) -> int:
        return self.tile.stages if self.tile else 1

    def with_stages(self, most: int) -> Job:
        """The same with at most so many stages."""
        return replace(self, tile=replace(self.tile, stages=min(self.stages, most))) if self.tile else self

    def with_less_staged(self) -> Job | None:
        """The same with the tile of :func:`minigen.cuda.tiles.with_less_staged`, or None."""
        tile = self.tile and tiles.with_less_staged(self.tile)
        if not tile:
            return None
        return replace(self, tile=tile, arguments={**self.arguments, "BK": tile.BK, "SPLIT": tile.SPLIT})

    @property
    def name(self) -> str:
        """Such as ``dense_forward``: the kernel's file and function."""
        return f"{self.function.fn.__module__.rpartition('.')[2]}_{self.function.fn.__name__}"


def launch_of(jobs: Sequence[Job]) -> Launch:
    """One launch that runs ``jobs`` side by side, each with at least one program."""
    values: list[Any] = []  # run-time arguments, in order

    def spell(value: Any) -> str:
        """The text that stands for a run-time argument in the call; None stays None."""
        if value is None:
            return "None"
        if isinstance(value, tuple):
            return f"({', '.join(map(spell, value))},)"
        values.append(value)
        return f"a{len(values) - 1}"

    calls = []
    for i, job in enumerate(jobs):
        fixed = _constexprs(job.function)
        spelled = [repr(v) if name in fixed else spell(v) for name, v in _ordered(job)]
        calls.append(f"job_{i}({{pid}}, {', '.join(spelled)})")
    ends = [sum(job.programs for job in jobs[: i + 1]) for i in range(len(jobs))]
    name = "__".join(job.name for job in jobs)
    parameters = [f"end_{i}" for i in range(len(jobs) - 1)] + [f"a{i}" for i in range(len(values))]
    text = _write(name, parameters, calls)
    return Launch(
        kernel=Kernel(name, compile_text(name, text, tuple(job.function for job in jobs))),
        grid=(ends[-1], 1, 1),
        args=(*ends[:-1], *values),
        num_warps=next((job.warps for job in jobs if job.warps), DEFAULT_WARPS),
        num_stages=max(job.stages for job in jobs),
        fuses=tuple(name for job in jobs for name in job.fuses),
        flops=sum(job.flops for job in jobs),
        bytes=sum(job.bytes for job in jobs),
        jobs=tuple(jobs),
    )


def with_less_staged(launch: Launch) -> Launch | None:
    """What to try where ``launch`` takes too much shared memory, or None where its jobs have nothing left to reduce.

    A launch has one number of stages. Its jobs share the memory of a block, one after the other: of their tiles, those
    that hold the most terms of a stage are reduced.
    """
    if launch.jobs and launch.num_stages > 1:
        return launch_of([job.with_stages(launch.num_stages - 1) for job in launch.jobs])
    reduced = [job.with_less_staged() for job in launch.jobs]
    held = [
        (job.tile.BM + job.tile.BN) * job.tile.SPLIT * job.tile.BK if job.tile and smaller else 0
        for job, smaller in zip(launch.jobs, reduced, strict=True)
    ]
    most = max(held, default=0)
    if most == 0:
        return None
    chosen = zip(launch.jobs, reduced, held, strict=True)
    return launch_of([smaller if smaller and size == most else job for job, smaller, size in chosen])


def _ordered(job: Job) -> list[tuple[str, Any]]:
    """The arguments in the order of the parameters. Raises ValueError where a name is missing or too many."""
    names = job.function.arg_names[1:]
    if set(names) != set(job.arguments):
        raise ValueError(f"{job.name} takes {', '.join(names)}; got {', '.join(job.arguments)}")
    return [(name, job.arguments[name]) for name in names]


@functools.cache
def _constexprs(function: Any) -> frozenset[str]:
    parameters = inspect.signature(function.fn).parameters.values()
    return frozenset(p.name for p in parameters if "constexpr" in str(p.annotation))


def _write(name: str, parameters: Sequence[str], calls: Sequence[str]) -> str:
    lines = ["@triton.jit", f"def {name}({', '.join(parameters)}):", "    pid = tl.program_id(0)"]
    for i, call in enumerate(calls):
        pid = "pid" if i == 0 else f"pid - end_{i - 1}"
        if i + 1 < len(calls):
            lines.append(f"    {'el' * (i > 0)}if pid < end_{i}:")
        elif i:
            lines.append("    else:")
        lines.append(f"    {'    ' * (len(calls) > 1)}{call.format(pid=pid)}")
    return "\n".join(lines) + "\n"


@functools.cache
def compile_text(name: str, text: str, functions: tuple[Callable[..., None], ...]) -> Any:
    """The jit function of the text. Triton reads its source through ``inspect``, hence the entry in ``linecache``."""
    import triton
    import triton.language as tl

    file = f"<minigen {name} {hashlib.sha256(text.encode()).hexdigest()[:16]}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    names: dict[str, Any] = {f"job_{i}": function for i, function in enumerate(functions)}
    names.update(triton=triton, tl=tl, __name__="minigen.cuda.generated")
    exec(compile(text, file, "exec"), names)
    WRITTEN[names[name].fn] = name, text, functions
    return names[name]

"""A step as a list of launches.

An operation is wrapped three times on its way from the backend to the GPU. It is recorded as an *operation* and fused
with others; the function that stands beside its kernel makes *jobs* of it (a kernel with its arguments and tile); jobs
share a *launch* (a generated kernel, its grid, all arguments). From that the executor makes the call that puts it on
the stream. What a kernel is compiled to belongs to the kernel, not to the call: :mod:`minigen.cuda.run.build`.

A job's *level* is the earliest that its inputs allow: one more than the last level of an earlier job that writes what
it reads, or reads or writes what it writes. Jobs of a level do not depend on each other and share a launch. So the
number of launches is the length of the longest chain of dependencies, and the hazards are ordered by construction:
weights change at a later level than the gradient that reads them.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigen.cuda.plan.codegen import DEFAULT_WARPS, FIRST_THAT_WAITS, launch_of
from minigen.cuda.plan.fusion import fuse
from minigen.cuda.plan.launch import Job, Launch
from minigen.cuda.plan.lowering import LOWERINGS, Target
from minigen.step.dependencies import Memory, Span
from minigen.step.record import Operation


@dataclass(frozen=True)
class Schedule:
    """The launches of one step, the operations that they do, and what was recorded.

    ``unwritten`` are the recorded outputs that no launch writes any more.
    """

    recorded: tuple[Operation, ...]
    fused: tuple[Operation, ...]
    launches: tuple[Launch, ...]
    unwritten: tuple[Any, ...]

    def __str__(self) -> str:
        return table(self.launches)


def plan(recorded: Sequence[Operation], memory: Memory, target: Target, fused: bool = True) -> Schedule:
    """The schedule of a step; without ``fused``, a launch for each job in the order of the record."""
    ops = fuse(list(recorded), memory, target) if fused else list(recorded)
    jobs = [job for op in ops for job in jobs_of(op, target)]
    groups = (
        [group for level in levels(jobs, memory) for group in of_equal_warps(level)]
        if fused
        else [[job] for job in jobs]
    )
    written = [memory.span(buffer) for job in jobs for buffer in job.writes]
    outputs = [buffer for op in recorded for buffer in op.writes()]
    unwritten = tuple(buffer for buffer in outputs if not any(_overlap(memory.span(buffer), span) for span in written))
    launches = tuple(launch_of(jobs, target.architecture >= FIRST_THAT_WAITS) for jobs in groups)
    return Schedule(tuple(recorded), tuple(ops), launches, unwritten)


def jobs_of(op: Operation, target: Target) -> list[Job]:
    """The jobs that do ``op``; those that would have no program are left out."""
    import_kernels()
    return [job for job in LOWERINGS[op.name](op, target) if job.programs > 0]


@functools.cache
def import_kernels() -> None:
    """Fill :data:`minigen.cuda.plan.lowering.LOWERINGS`. Only here is Triton imported before it compiles."""
    from minigen.cuda import kernels

    for found in pkgutil.iter_modules(kernels.__path__):
        importlib.import_module(f"{kernels.__name__}.{found.name}")


def levels(jobs: Sequence[Job], memory: Memory) -> list[list[Job]]:
    """The jobs by level."""
    reads = [[memory.span(buffer) for buffer in job.reads] for job in jobs]
    writes = [[memory.span(buffer) for buffer in job.writes] for job in jobs]
    level: list[int] = []
    for j in range(len(jobs)):
        before = [
            level[i]
            for i in range(j)
            if _touch(writes[i], reads[j]) or _touch(writes[i], writes[j]) or _touch(reads[i], writes[j])
        ]
        level.append(1 + max(before, default=-1))
    return [[job for job, at in zip(jobs, level, strict=True) if at == k] for k in range(1 + max(level, default=-1))]


def of_equal_warps(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs of one level, those together that can share a launch: a launch has one number of warps.

    The job with the most work comes first, so that its programs start first.
    """
    ordered = sorted(jobs, key=lambda job: -job.flops)
    warps = list(dict.fromkeys(job.warps for job in ordered if job.warps)) or [DEFAULT_WARPS]
    return [[job for job in ordered if (job.warps or warps[0]) == w] for w in warps]


def table(launches: Sequence[Launch]) -> str:
    """One line a launch: programs, warps, MFLOP and KB (the least that must be computed and moved), what it does."""
    lines = [f"{'':>3} {'programs':>8} {'warps':>5} {'MFLOP':>8} {'KB':>8}  kernel: operations"]
    for i, launch in enumerate(launches):
        size = f"{i + 1:>3} {launch.grid[0]:>8} {launch.num_warps:>5}"
        work = f"{launch.flops / 1e6:8.3f} {launch.bytes / 1e3:8.1f}"
        lines.append(f"{size} {work}  {launch.name}: {', '.join(launch.fuses)}")
    total = f"{sum(x.flops for x in launches) / 1e6:8.3f} {sum(x.bytes for x in launches) / 1e3:8.1f}"
    return "\n".join([*lines, f"{'sum':>3} {'':>8} {'':>5} {total}  {len(launches)} launches"])


def clear(schedule: Schedule, upload: Any) -> None:
    """Zero what no launch writes: a search for NaN must not find what was in the memory before."""
    for buffer in schedule.unwritten:
        upload(np.zeros(buffer.shape, buffer.dtype), buffer)


def _overlap(a: Span, b: Span) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _touch(some: Sequence[Span], others: Sequence[Span]) -> bool:
    return any(_overlap(a, b) for a in some for b in others)

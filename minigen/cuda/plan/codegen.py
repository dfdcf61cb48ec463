"""The kernel of a launch: several jobs side by side.

Small jobs that do not depend on each other share a launch, because at small batches a step costs what its launches
cost. For each combination a kernel is written that hands every job its share of the programs, such as ::

    @triton.jit
    def dense_wgrad__dense_wgrad(end_0, a0, a1, ...):
        pid = tl.program_id(0)
        wait_for_launch_before()
        if pid < end_0:
            job_0(pid, a0, a1, ..., Adam(lr=a5, ...), 784, 128)
        else:
            job_1(pid - end_0, ...)

Sizes and settings that a job declares ``constexpr`` stand in the text as literals, as does None for an argument that is
left out; what is passed at run time are buffers and numbers. So two launches with the same text run the same cubin.
From sm_90 on a kernel begins by waiting for the launch before: see :mod:`minigen.cuda.kernels.waiting`.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import linecache
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minigen.cuda.plan.launch import Job, Launch

DEFAULT_WARPS = 4
FIRST_THAT_WAITS = 90
"""The oldest architecture with the instructions of programmatic dependent launch."""


@dataclass(frozen=True)
class Generated:
    """A kernel that was written here: its ``name``, the ``text``, and what the text refers to, by its name there."""

    name: str
    text: str
    globals: Mapping[str, Any]

    def references(self) -> dict[str, tuple[str, str]]:
        """Of each of ``globals`` the module and its name there: enough to find it in another process."""
        found = {}
        for name, value in self.globals.items():
            defined = getattr(value, "fn", value)
            found[name] = defined.__module__, defined.__name__
        return found


GENERATED: dict[Any, Generated] = {}
"""The kernels that this process has written, by Python function."""


def launch_of(jobs: Sequence[Job], waits: bool) -> Launch:
    """One launch that runs ``jobs`` side by side, each with at least one program; ``waits`` as in :class:`Launch`."""
    values: list[Any] = []  # run-time arguments, in order
    used: dict[str, Any] = {f"job_{i}": job.function for i, job in enumerate(jobs)}
    if waits:
        from minigen.cuda.kernels.waiting import wait_for_launch_before

        used[wait_for_launch_before.fn.__name__] = wait_for_launch_before

    def spell(value: Any) -> str:
        """The text that stands for a run-time argument in the call; None stays None."""
        if value is None:
            return "None"
        if isinstance(value, tuple):  # a named one: its type is called
            kind = type(value)
            if used.setdefault(kind.__name__, kind) is not kind:
                raise ValueError(f"two types of argument are called {kind.__name__}")
            fields = zip(kind._fields, value, strict=True)
            return f"{kind.__name__}({', '.join(f'{name}={spell(part)}' for name, part in fields)})"
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
    return Launch(
        name=name,
        source=jit_function(name, _text(name, parameters, calls, waits), tuple(used.items())),
        grid=(ends[-1], 1, 1),
        args=(*ends[:-1], *values),
        num_warps=next((job.warps for job in jobs if job.warps), DEFAULT_WARPS),
        num_stages=max(job.stages for job in jobs),
        fuses=tuple(name for job in jobs for name in job.fuses),
        flops=sum(job.flops for job in jobs),
        bytes=sum(job.bytes for job in jobs),
        jobs=tuple(jobs),
        waits=waits,
    )


def with_preamble(launch: Launch, parameter: str, preamble: tuple[str, ...]) -> Launch:
    """``launch`` with one more ``parameter``, the first, and these lines before its kernel touches memory."""
    name, alone = f"{launch.name}__many", GENERATED[launch.source.fn]
    parameters = ", ".join([parameter, *launch.source.arg_names])
    decorator, _, *body = alone.text.splitlines()
    before = 1 + launch.waits  # where the program's number is found, and where it waits
    lines = [decorator, f"def {name}({parameters}):", *body[:before], *preamble, *body[before:]]
    text = "\n".join(lines) + "\n"
    source = jit_function(name, text, tuple(alone.globals.items()))
    return replace(launch, name=name, source=source, preamble=preamble)


def with_less_memory(launch: Launch) -> Launch | None:
    """What to try where ``launch`` takes too much shared memory, or None where its jobs have nothing left to reduce."""
    smaller = _reduced(launch)
    if smaller is None or not launch.preamble:
        return smaller
    rewritten = with_preamble(smaller, launch.source.arg_names[0], launch.preamble)
    kept = {name: getattr(launch, name) for name in ("grid", "args", "flops", "bytes", "moved_to")}
    return replace(rewritten, **kept)


def _reduced(launch: Launch) -> Launch | None:
    """The launch of the jobs of ``launch`` with less shared memory.

    A launch has one number of stages. Its jobs share the memory of a block, one after the other: of their tiles, those
    that hold the most terms of a stage are reduced.
    """
    if launch.jobs and launch.num_stages > 1:
        return launch_of([job.with_stages(launch.num_stages - 1) for job in launch.jobs], launch.waits)
    reduced = [job.with_smaller_stages() for job in launch.jobs]
    held = [
        (job.tile.BM + job.tile.BN) * job.tile.SPLIT * job.tile.BK if job.tile and smaller else 0
        for job, smaller in zip(launch.jobs, reduced, strict=True)
    ]
    most = max(held, default=0)
    if most == 0:
        return None
    chosen = zip(launch.jobs, reduced, held, strict=True)
    jobs = [smaller if smaller and size == most else job for job, smaller, size in chosen]
    return launch_of(jobs, launch.waits)


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


def _text(name: str, parameters: Sequence[str], calls: Sequence[str], waits: bool) -> str:
    lines = ["@triton.jit", f"def {name}({', '.join(parameters)}):", "    pid = tl.program_id(0)"]
    lines += ["    wait_for_launch_before()"] * waits
    for i, call in enumerate(calls):
        pid = "pid" if i == 0 else f"pid - end_{i - 1}"
        if i + 1 < len(calls):
            lines.append(f"    {'el' * (i > 0)}if pid < end_{i}:")
        elif i:
            lines.append("    else:")
        lines.append(f"    {'    ' * (len(calls) > 1)}{call.format(pid=pid)}")
    return "\n".join(lines) + "\n"


@functools.cache
def jit_function(name: str, text: str, used: tuple[tuple[str, Any], ...]) -> Any:
    """The jit function of the text, in which ``used`` gives names their values.

    Triton reads the source through ``inspect``, hence the entry in ``linecache``.
    """
    import triton
    import triton.language as tl

    file = f"<minigen {name} {hashlib.sha256(text.encode()).hexdigest()[:16]}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    names: dict[str, Any] = {**dict(used), "triton": triton, "tl": tl, "__name__": "minigen.cuda.generated"}
    exec(compile(text, file, "exec"), names)
    GENERATED[names[name].fn] = Generated(name, text, dict(used))
    return names[name]

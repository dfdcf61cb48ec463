"""One launch for the same step of several models, which are the grid's second dimension.

The kernel is the one that a model has alone, with a few lines before it: they move each pointer from the first model's
memory to that of the program's ``model``, and load the numbers that differ from model to model. ::

    @triton.jit
    def dense_wgrad__many(moves, a0, a1, a2, ...):
        number = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
        model = number % tl.num_programs(1)
        pid = number // tl.num_programs(1)
        move_0 = tl.load(moves + model)
        a0 += move_0 * 4
        a2 = tl.load(a2 + model)
        ...                              # the kernel's own text

A multiprocessor takes programs in the order of their numbers. So the first programs of all models come first, which
have the most work, and the small ones of all fill up the multiprocessors at the end.

Every model's sums, and with them its bits, are those that it has alone. A row of ``moves`` has the distances from the
first model's memory, in units of :data:`~minigen.cuda.plan.launch.ALIGNMENT`: one row where the models' memory is laid
out alike (:class:`minigen.cuda.run.memory.Slabs`), more where it is not. What all have in common, the data, is not
moved.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from minigen.backend import Array
from minigen.cuda.plan.codegen import with_preamble
from minigen.cuda.plan.launch import ALIGNMENT, Launch, type_of


class Placed(Protocol):
    """The part of an :class:`~minigen.cuda.plan.launch.Executor` that says where buffers are, and makes some."""

    array_type: Any

    def address(self, buffer: Array) -> int: ...

    def upload(self, host: np.ndarray) -> Array: ...


def kind_of(launches: Sequence[Launch]) -> Hashable:
    """What the steps of two models have in common if they can be launched together: all but memory and numbers."""
    return tuple(
        (launch.source, launch.grid, launch.num_warps, launch.num_stages, tuple(map(type_of, launch.args)))
        for launch in launches
    )


def together(steps: Sequence[Sequence[Launch]], executor: Placed) -> list[Launch]:
    """The launches of ``steps``, one list a model, as launches for all; the lists are of one kind (:func:`kind_of`)."""
    return [of_models(launches, executor) for launches in zip(*steps, strict=True)]


def of_models(launches: Sequence[Launch], executor: Placed) -> Launch:
    """One launch that does what ``launches`` do, each for a model of its own.

    Raises ValueError where a buffer of one model begins at another place between multiples of ALIGNMENT than those of
    others: a kernel is compiled for either.
    """
    first = launches[0]
    rows: dict[tuple[int, ...], int] = {}
    arguments: list[Any] = []
    moved: list[str] = []
    of_all = zip(*(launch.args for launch in launches), strict=True)
    for name, values in zip(first.source.arg_names, of_all, strict=True):
        arguments.append(values[0])
        if isinstance(values[0], executor.array_type):
            distances = _distances(first, [executor.address(value) for value in values])
            if any(distances):
                row = rows.setdefault(distances, len(rows))
                moved.append(f"    {name} += move_{row} * {ALIGNMENT // values[0].itemsize}")
        elif len(set(values)) > 1:
            dtype = np.int32 if isinstance(values[0], int) else np.float32
            arguments[-1] = executor.upload(np.array(values, dtype))
            moved.append(f"    {name} = tl.load({name} + model)")
    loads = [f"    move_{row} = tl.load(moves + {row} * tl.num_programs(1) + model)" for row in range(len(rows))]
    preamble = (
        "    number = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)",
        "    model = number % tl.num_programs(1)",
        "    pid = number // tl.num_programs(1)",
        *loads,
        *moved,
    )
    table = executor.upload(np.array(list(rows) or [(0,) * len(launches)], np.int64))
    return replace(
        with_preamble(first, "moves", preamble),
        grid=(first.grid[0], len(launches), 1),
        args=(table, *arguments),
        flops=sum(launch.flops for launch in launches),
        bytes=sum(launch.bytes for launch in launches),
        moved_to=tuple(a for launch in launches[1:] for a in launch.args if isinstance(a, executor.array_type)),
    )


def _distances(launch: Launch, addresses: Sequence[int]) -> tuple[int, ...]:
    """From the first address, in units of ALIGNMENT."""
    distances = [address - addresses[0] for address in addresses]
    if any(distance % ALIGNMENT for distance in distances):
        raise ValueError(f"{launch.name}: a buffer of another model is not aligned as the first model's is")
    return tuple(distance // ALIGNMENT for distance in distances)

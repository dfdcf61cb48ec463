"""What a step moves to and from the GPU's memory, and what stays in its L2 cache between one launch and the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minigen.cuda.plan.launch import Launch
from minigen.step.dependencies import Span


def from_memory(launches: Sequence[Launch], address: Callable[[Any], int], cache: int) -> list[int]:
    """Of each launch's bytes, those that a cache of ``cache`` bytes cannot hold, in a step that is repeated for long.

    The cache is taken to evict what was used least recently. So a buffer stays in it from one use to the next, also
    into the next step, if at most ``cache`` bytes, its own included, are touched between the two. A buffer of which a
    launch touches only a part (the data set) is never counted as held: each step takes other rows.
    """
    touches: list[tuple[Span, int, int]] = []  # where, bytes moved, launch
    for i, launch in enumerate(launches):
        for job in launch.jobs:
            for buffer, moved in zip((*job.reads, *job.writes), job.traffic, strict=True):
                first = address(buffer)
                touches.append(((first, first + int(buffer.nbytes)), moved, i))
    missed = [0] * len(launches)
    spans = [span for span, _, _ in touches]
    for t, (span, moved, i) in enumerate(touches):
        if moved < span[1] - span[0] or _distance(spans[t + 1 :] + spans[: t + 1]) > cache:
            missed[i] += moved
    return missed


def _distance(spans: Sequence[Span]) -> int:
    """Bytes touched since the last of ``spans`` was touched before, itself counted."""
    *before, (first, end) = spans
    seen: set[Span] = set()
    for other in reversed(before):
        if other[0] < end and first < other[1]:
            break
        seen.add(other)
    return end - first + sum(b - a for a, b in seen)

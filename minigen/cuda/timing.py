"""How long work takes on the GPU, by CUDA events: raw samples, for the caller to judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minigen.cuda.launch import Launch


def samples(executor: Any, work: Callable[[], None], repeats: int, warmup: int = 3) -> list[float]:
    """Seconds on the GPU from before to after ``work()``, for each of ``repeats`` calls.

    ``executor`` is a :class:`minigen.cuda.device.DeviceExecutor`; ``work`` puts its work on that executor's stream.
    """
    event = executor.cupy.cuda.Event
    with executor.device:
        for _ in range(warmup):
            work()
        pairs = []
        for _ in range(repeats):
            begin, end = event(), event()
            begin.record(executor.stream)
            work()
            end.record(executor.stream)
            pairs.append((begin, end))
            end.synchronize()
        return [executor.cupy.cuda.get_elapsed_time(begin, end) / 1e3 for begin, end in pairs]


def launch_samples(executor: Any, launch: Launch, copies: int = 50, repeats: int = 20) -> list[float]:
    """Seconds for one launch, its inputs in the cache: a graph of ``copies`` of it, over their number.

    What a launch writes it writes ``copies * repeats`` times, so the contents of its buffers are spoilt afterwards.
    """
    ready = executor.prepare([launch])  # held until the end: it may own scratch memory
    graph = executor.record(ready, copies)
    return [seconds / copies for seconds in samples(executor, lambda: graph.launch(executor.stream), repeats)]


def per_launch(executor: Any, launches: Sequence[Launch], copies: int = 50, repeats: int = 20) -> list[list[float]]:
    """:func:`launch_samples` of every launch of a schedule."""
    return [launch_samples(executor, launch, copies, repeats) for launch in launches]

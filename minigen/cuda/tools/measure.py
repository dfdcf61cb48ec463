"""How long launches take on the GPU, and how long they take at least: measured times, and a card's datasheet.

Times are raw samples by CUDA events, for the caller to judge. Lower bounds follow from multiprocessors times clock
times operations a clock, and the memory's bandwidth, for all that a launch touches or for what the cache cannot hold
(:mod:`minigen.cuda.tools.traffic`). At small batches the launch itself takes longer than either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minigen.cuda.plan.launch import Launch
from minigen.cuda.run.driver import architecture

FLOPS_A_CLOCK = {
    80: {"ieee": 128, "tf32": 1024, "bf16": 2048},
    86: {"ieee": 256, "tf32": 256, "bf16": 512},
    89: {"ieee": 256, "tf32": 256, "bf16": 512},
    90: {"ieee": 256, "tf32": 2048, "bf16": 4096},
    100: {"ieee": 256, "tf32": 4096, "bf16": 8192},
    120: {"ieee": 256, "tf32": 256, "bf16": 512},
}
"""Dense operations of one multiprocessor a clock, a multiply-add counted as two, from the vendor's whitepapers."""


@dataclass(frozen=True)
class Card:
    """A GPU: ``clock`` in Hz, memory ``bandwidth`` in bytes a second, bytes of its L2 ``cache`` (0: not known)."""

    name: str
    architecture: int
    multiprocessors: int
    clock: float
    bandwidth: float
    cache: int = 0

    def flops(self, precision: str) -> float:
        """Operations a second of matrix products in this precision. One of tf32x3 takes three of tf32, and so on."""
        known = max((a for a in FLOPS_A_CLOCK if a <= self.architecture), default=80)
        kind, _, products = precision.partition("x")
        return FLOPS_A_CLOCK[known][kind] * self.multiprocessors * self.clock / int(products or 1)

    def lower_bound(self, launch: Launch, precision: str, moved: int | None = None) -> float:
        """Seconds that a launch takes at least: its arithmetic or its traffic, whichever is longer.

        ``moved`` are the bytes that come from memory or go there; None: all that it touches.
        """
        moved = launch.bytes if moved is None else moved
        return max(launch.flops / self.flops(precision), moved / self.bandwidth)


H100 = Card("NVIDIA H100 SXM (datasheet)", 90, 132, 1.83e9, 3.35e12, 50 * 2**20)
"""Shown where no GPU is at hand."""


def present(index: int = 0) -> Card:
    """GPU number ``index`` of this machine, from what its driver says."""
    import cupy

    runtime = cupy.cuda.runtime

    def attribute(name: str) -> int:
        return runtime.deviceGetAttribute(getattr(runtime, f"cudaDevAttr{name}"), index)

    # Clocks are in kHz; memory transfers twice a clock, over a bus whose width is in bits.
    return Card(
        runtime.getDeviceProperties(index)["name"].decode(),
        architecture(index),
        attribute("MultiProcessorCount"),
        1e3 * attribute("ClockRate"),
        2 * 1e3 * attribute("MemoryClockRate") * attribute("GlobalMemoryBusWidth") / 8,
        attribute("L2CacheSize"),
    )


# --- times --------------------------------------------------------------------------------------------


def samples(executor: Any, work: Callable[[], None], repeats: int, warmup: int = 3) -> list[float]:
    """Seconds on the GPU from before to after ``work()``, for each of ``repeats`` calls.

    ``executor`` is a :class:`minigen.cuda.run.device.DeviceExecutor`; ``work`` puts its work on that executor's stream.
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
    calls = executor.prepare([launch])  # held until the end: they may own scratch memory
    graph = executor.record(calls, copies)
    return [seconds / copies for seconds in samples(executor, lambda: graph.launch(executor.stream), repeats)]


def per_launch(executor: Any, launches: Sequence[Launch], copies: int = 50, repeats: int = 20) -> list[list[float]]:
    """:func:`launch_samples` of every launch of a schedule."""
    return [launch_samples(executor, launch, copies, repeats) for launch in launches]

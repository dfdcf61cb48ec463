"""What a card can do at most: the floor under a launch.

Rates are datasheet ones, multiprocessors times clock times operations a clock, not measured. At small batches the
inputs of a launch lie in the cache and the launch itself takes longer than either floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minigen.cuda.launch import Launch

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
    """A GPU: ``clock`` in Hz, memory ``bandwidth`` in bytes a second."""

    name: str
    architecture: int
    multiprocessors: int
    clock: float
    bandwidth: float

    def flops(self, precision: str) -> float:
        """Operations a second of matrix products in this precision. tf32x3 takes three products of tf32."""
        known = max((a for a in FLOPS_A_CLOCK if a <= self.architecture), default=80)
        rate = FLOPS_A_CLOCK[known]["tf32" if precision == "tf32x3" else precision]
        return rate * self.multiprocessors * self.clock / (3 if precision == "tf32x3" else 1)

    def floor(self, launch: Launch, precision: str) -> float:
        """Seconds that a launch takes at least: its arithmetic or its traffic, whichever is longer."""
        return max(launch.flops / self.flops(precision), launch.bytes / self.bandwidth)


H100 = Card("NVIDIA H100 SXM (datasheet)", 90, 132, 1.83e9, 3.35e12)
"""Shown where no GPU is at hand."""


def present(index: int = 0) -> Card:
    """GPU number ``index`` of this machine, from what its driver says."""
    import cupy

    from minigen.cuda.driver import architecture

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
    )


def explain(launches: Sequence[Launch], card: Card, precision: str, measured: Sequence[float] | None = None) -> str:
    """Of each launch what it fuses, its tile, FLOPs, bytes, its floor on ``card``, and the ``measured`` seconds."""
    head = f"{'':>3} {'MFLOP':>9} {'KB':>9} {'floor us':>9}" + (f" {'took us':>8}" if measured else "")
    lines = [f"on {card.name}, matrix products in {precision}", head + f"  {'tile, stages':<14}  kernel: operations"]
    times = list(measured) if measured else [None] * len(launches)
    for i, (launch, took) in enumerate(zip(launches, times, strict=True)):
        figures = (launch.flops / 1e6, launch.bytes / 1e3, 1e6 * card.floor(launch, precision))
        what = f"{launch.tile:<14}  {launch.kernel.name}: {', '.join(launch.fuses)}"
        lines.append(f"{_line(str(i + 1), figures, took)}  {what}")
    floors = sum(card.floor(launch, precision) for launch in launches)
    totals = (sum(x.flops for x in launches) / 1e6, sum(x.bytes for x in launches) / 1e3, 1e6 * floors)
    last = _line("sum", totals, sum(measured) if measured else None) + f"  {len(launches)} launches"
    return "\n".join([*lines, last])


def _line(label: str, figures: tuple[float, float, float], took: float | None) -> str:
    flops, nbytes, floor = figures
    return f"{label:>3} {flops:>9.3f} {nbytes:>9.1f} {floor:>9.3f}" + ("" if took is None else f" {1e6 * took:>8.2f}")

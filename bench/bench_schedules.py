"""What a step computes from its counter: a few numbers, so that a call is its own overhead."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

SCHEDULES = ("constant", "cosine", "linear", "step")
RATE, WARMUP, HORIZON = 2e-4, 100, 1000
LOSSES, RING = 2, 4096


def number(library: Any, value: float = 0.0) -> Any:
    return library.array(np.array([value], np.float32))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.rows(lambda library, **case: not library.startswith("torch"))  # theirs is a loop of the host
def test_scheduled_rate(library: Any, measure: Any, schedule: str) -> None:
    rate, base = number(library), number(library, RATE)
    if library.kind == "minigen":
        operation = library.ops.scheduled_rate
        measure(lambda: operation(rate, base, library.step, schedule, WARMUP, HORIZON), bytes=16)
        return
    share = {"constant": 1.0, "cosine": (1 + math.cos(math.pi / 2)) / 2, "linear": 0.5, "step": 1.0}[schedule]
    measure(lambda: library.xp.multiply(base, share, out=rate), bytes=16)


@pytest.mark.rows(lambda library, **case: not library.startswith("torch"))
def test_ramp(library: Any, measure: Any) -> None:
    out, step = number(library), number(library)
    if library.kind == "minigen":
        measure(lambda: library.ops.ramp(library.step, out, 1.0, HORIZON), bytes=12)
    else:
        measure(lambda: library.xp.minimum(1.0, step / HORIZON, out=out), bytes=12)


@pytest.mark.rows(lambda library, **case: not library.startswith("torch"))
def test_advance(library: Any, measure: Any) -> None:
    losses = library.array(np.zeros(LOSSES, np.float32))
    history = library.array(np.zeros((RING, LOSSES), np.float32))
    step = library.array(np.zeros(1, np.uint64))
    if library.kind == "minigen":
        measure(lambda: library.ops.advance(step, losses, history), bytes=16 + 8 * LOSSES)
        return

    def formula() -> None:
        history[int(step[0]) % RING] = losses
        step[0] += 1

    measure(formula, bytes=16 + 8 * LOSSES)

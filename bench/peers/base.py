"""What every contender is: the interface that `bench.worker` drives.

A contender keeps its data set, weights and optimizer state where its framework computes. It has two modes over the
same training step. `check` trains on given batches and given noise, so that its result can be compared; `run` is what
is timed: it draws batches and noise itself, in the cheapest way that its framework has, and reads no loss back.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from bench.spec import Spec


class Contender(Protocol):
    algorithm: str
    """``common``, or ``article`` where it is the article's own: see `bench.oracle.train`."""

    def __init__(self, spec: Spec, data: np.ndarray, weights: list[np.ndarray]) -> None:
        """``data`` is ``uint8[N,D]``, ``weights`` as `bench.spec.initial_weights` gives them."""

    def reset(self, weights: list[np.ndarray]) -> None:
        """Take these weights and a fresh optimizer state."""

    def check(self, indices: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """One step for each row of ``indices[steps,B]`` and of ``noise``; the losses ``[steps, 2 or 1]``."""

    def run(self, steps: int) -> float | None:
        """Train ``steps`` steps, a multiple of ``spec.steps_per_call``, and return when they are done.

        What is returned are the seconds of the steps, where more was done than these; None: all of the time counts.
        """

    # Optional, for a contender whose timed step is compiled by other means than the one that `check` runs:
    # draws(steps) -> (indices, noise), what `run` will draw in its first steps, so that the oracle can repeat it;
    # reseed(attempt), after which it draws other numbers, for 0 the first again.

    def weights(self) -> list[np.ndarray]:
        """The present weights, in the order of the initial ones."""

    def device_peak_bytes(self) -> int | None:
        """Peak of device memory in use, or None on a CPU and where the framework does not tell."""

    def versions(self) -> dict[str, Any]:
        """Versions of the packages that do the work."""

"""Noise on all that the discriminator sees, real rows and generated ones.

It makes the two distributions overlap, so that the discriminator cannot be sure of any row (Arjovsky and Bottou 2017,
section 3; Sonderby et al. 2017). The noise is taken away in the course of the training.
"""

from __future__ import annotations

from minigen.backend import Array, Backend
from minigen.reference import random


class InstanceNoise:
    """Normals for ``rows`` of ``columns`` numbers. Their standard deviation ``std`` falls linearly to 0 at step
    ``steps``, or stays where that is 0."""

    def __init__(self, ops: Backend, rows: int, columns: int, std: float, steps: int, seed: int) -> None:
        self.ops, self.std, self.steps, self.seed = ops, std, steps, seed
        self.noise = ops.empty((rows, columns))

    def draw(self, rows: int, counter: Array) -> None:
        """New noise for the first ``rows``."""
        self.ops.random_normal(self.noise[:rows], self.seed, random.INSTANCE_NOISE, counter)

    def add(self, x: Array, first: int, step: Array, out: Array) -> None:
        """``out = x + noise``, of the rows from ``first`` on; ``out`` may be ``x``."""
        self.ops.add_noise(x, self.noise[first : first + len(x)], step, out, self.std, self.steps)

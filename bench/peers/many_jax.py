"""JAX: the scan of `jax_scan` over several models at once by vmap, a batch, noise and weights for each."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.peers import jax_scan
from bench.spec import Spec


class Contender(jax_scan.Contender):
    def __init__(self, spec: Spec, data: np.ndarray, weights: list[np.ndarray]) -> None:
        super().__init__(spec, data, weights)
        options = {"xla_cpu_prefer_vector_width": 512} if spec.device == "cpu" else None
        self.given = jax.jit(jax.vmap(self.step, in_axes=(0, None, None)), donate_argnums=0, compiler_options=options)
        many = jax.vmap(self.drawn_step, in_axes=(0, None))
        self.drawn = jax.jit(many, donate_argnums=0, compiler_options=options)

    def reset(self, weights: list[np.ndarray]) -> None:
        """The same weights for all, and keys of their own."""
        super().reset(weights)
        keys = jax.random.split(self.state.pop("key"), self.spec.at_once)
        stacked = jax.tree.map(lambda a: jnp.stack([a] * self.spec.at_once), self.state)
        self.state = stacked | {"key": keys}

    def check(self, indices: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """The last model's losses."""
        losses = super().check(indices, noise)
        return losses[:, -1]

    def weights(self) -> list[np.ndarray]:
        """Of the last model."""
        return [w[-1] for w in super().weights()]

    def run(self, steps: int) -> None:
        super().run(steps)
        self.require_difference()

    def require_difference(self) -> None:
        """Each draws its own batches."""
        first: Any = self.state["p"][0][0]
        if self.spec.at_once > 1 and bool(jnp.array_equal(first[0], first[-1])):
            raise RuntimeError("two models have the same weights")

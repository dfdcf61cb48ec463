"""JAX, many steps a call: the step of `jax_jit` inside one jitted lax.scan, and all their draws before it at once."""

from __future__ import annotations

from typing import Any

import jax

from bench.peers import jax_jit


class Contender(jax_jit.Contender):
    def drawn_step(self, state: Any, data: jax.Array) -> Any:
        def body(state: Any, draws: Any) -> Any:
            rows, noise = draws
            return self.step(state, data[rows], noise)

        key, rows, noise = self.draw(state["key"], self.spec.steps_per_call)
        return jax.lax.scan(body, state | {"key": key}, (rows, noise))

    def run(self, steps: int) -> None:
        super().run(steps // self.spec.steps_per_call)

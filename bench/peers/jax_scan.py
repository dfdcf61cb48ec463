"""JAX, many steps a call: the step of `jax_jit` inside one jitted lax.scan."""

from __future__ import annotations

from typing import Any

import jax

from bench.peers import jax_jit


class Contender(jax_jit.Contender):
    def drawn_step(self, state: Any, data: jax.Array) -> Any:
        def body(state: Any, _: None) -> Any:
            return super(Contender, self).drawn_step(state, data)

        return jax.lax.scan(body, state, None, length=self.spec.steps_per_call)

    def run(self, steps: int) -> None:
        super().run(steps // self.spec.steps_per_call)

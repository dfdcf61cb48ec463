"""JAX, one jitted step a call: value_and_grad, Adam written out over the tree, buffers donated.

Two settings, because they are faster and compute the same step: threefry keeps one word a counter by default
("partitionable", for arrays over several devices) and two without; and on a CPU XLA prefers vectors of 256 bits.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # so that peak memory means what was used

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import softplus

from bench.spec import Spec, pixels


def forward(layers: list[jax.Array], x: jax.Array) -> jax.Array:
    for W, b in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        x = jax.nn.relu(x @ W + b)
    return x @ layers[-2] + layers[-1]


def discriminator_loss(discriminator: Any, generator: Any, real: jax.Array, noise: jax.Array) -> jax.Array:
    fake = jnp.tanh(forward(generator, noise))
    if jax.default_backend() == "cpu":
        # Two products are faster than the copy that puts both batches together.
        real_logits, fake_logits = forward(discriminator, real), forward(discriminator, fake)
    else:
        real_logits, fake_logits = jnp.split(forward(discriminator, jnp.concatenate([real, fake])), 2)
    return softplus(-real_logits).mean() + softplus(fake_logits).mean()


def generator_loss(generator: Any, discriminator: Any, noise: jax.Array) -> jax.Array:
    return softplus(-forward(discriminator, jnp.tanh(forward(generator, noise)))).mean()


def vae_loss(parameters: Any, x: jax.Array, eps: jax.Array) -> jax.Array:
    mu, logvar = jnp.split(forward(parameters[0], x), 2, axis=1)
    logits = forward(parameters[1], mu + jnp.exp(logvar / 2) * eps)
    reconstruction = (softplus(logits) - x * logits).sum(axis=1)
    kl = 0.5 * (mu**2 + jnp.exp(logvar) - 1 - logvar).sum(axis=1)
    return (reconstruction + kl).mean()


def adam(t: jax.Array, p: Any, g: Any, m: Any, v: Any, *, lr: float, beta1: float, beta2: float, eps: float) -> Any:
    m = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, m, g)
    v = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g**2, v, g)

    def update(p: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
        return p - lr * (m / (1 - beta1**t)) / (jnp.sqrt(v / (1 - beta2**t)) + eps)

    return jax.tree.map(update, p, m, v), m, v


class Contender:
    algorithm = "common"

    def __init__(self, spec: Spec, data: np.ndarray, weights: list[np.ndarray]) -> None:
        self.spec = spec
        jax.config.update("jax_default_matmul_precision", {"ieee": "float32", "tf32": "tensorfloat32"}[spec.precision])
        jax.config.update("jax_threefry_partitionable", False)
        self.data = jax.device_put(pixels(spec, data))
        self.step = self.vae_step if spec.model == "vae" else self.gan_step
        options = {"xla_cpu_prefer_vector_width": 512} if spec.device == "cpu" else None
        self.given = jax.jit(self.step, donate_argnums=0, compiler_options=options)
        self.drawn = jax.jit(self.drawn_step, donate_argnums=0, compiler_options=options)
        self.reset(weights)

    def reset(self, weights: list[np.ndarray]) -> None:
        split = 2 * (len(self.spec.networks[0]) - 1)
        arrays = [jnp.array(w) for w in weights]
        p = (arrays[:split], arrays[split:])
        m, v = (jax.tree.map(jnp.zeros_like, p) for _ in range(2))
        self.state = {"p": p, "m": m, "v": v, "t": jnp.zeros(()), "key": jax.random.key(self.spec.seed)}

    def gan_step(self, state: Any, real: jax.Array, noise: jax.Array) -> Any:
        (g, d), (mg, md), (vg, vd) = state["p"], state["m"], state["v"]
        t = state["t"] + 1
        update = partial(adam, t, **self.spec.adam)
        d_loss, gradients = jax.value_and_grad(discriminator_loss)(d, g, real, noise[0])
        d, md, vd = update(d, gradients, md, vd)
        g_loss, gradients = jax.value_and_grad(generator_loss)(g, d, noise[1])
        g, mg, vg = update(g, gradients, mg, vg)
        return state | {"p": (g, d), "m": (mg, md), "v": (vg, vd), "t": t}, jnp.stack([d_loss, g_loss])

    def vae_step(self, state: Any, x: jax.Array, eps: jax.Array) -> Any:
        t = state["t"] + 1
        loss, gradients = jax.value_and_grad(vae_loss)(state["p"], x, eps)
        p, m, v = adam(t, state["p"], gradients, state["m"], state["v"], **self.spec.adam)
        return state | {"p": p, "m": m, "v": v, "t": t}, loss[None]

    def draw(self, key: jax.Array, steps: int) -> Any:
        """The next key, and the row numbers and normals of ``steps`` steps."""
        key, for_rows, for_noise = jax.random.split(key, 3)
        rows = jax.random.randint(for_rows, (steps, self.spec.batch), 0, self.spec.whole_rows)
        return key, rows, jax.random.normal(for_noise, (steps, *self.spec.noise_shape))

    def drawn_step(self, state: Any, data: jax.Array) -> Any:
        key, rows, noise = self.draw(state["key"], 1)
        return self.step(state | {"key": key}, data[rows[0]], noise[0])

    def check(self, indices: np.ndarray, noise: np.ndarray) -> np.ndarray:
        losses = []
        for rows, normals in zip(indices, noise, strict=True):
            self.state, loss = self.given(self.state, self.data[rows], jnp.asarray(normals))
            losses.append(np.asarray(loss))
        return np.array(losses)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.state, _ = self.drawn(self.state, self.data)
        jax.block_until_ready(self.state)

    def weights(self) -> list[np.ndarray]:
        return [np.array(w) for w in (*self.state["p"][0], *self.state["p"][1])]

    def device_peak_bytes(self) -> int | None:
        statistics = jax.devices()[0].memory_stats()
        return statistics["peak_bytes_in_use"] if statistics else None

    def versions(self) -> dict[str, Any]:
        return {"jax": jax.__version__, "jaxlib": jax.lib.__version__}

"""JAX, jit + scan, for the GAN's variants: `jax_scan`'s loop around a step with gradients of gradients, batch norm or
classes. The penalty's slopes come from ``jax.vjp``, so that the real rows' forward pass is shared with the loss."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import softplus

from bench.peers import jax_scan
from bench.peers.jax_jit import adam
from bench.spec import NORM_EPS, PENALTY_WEIGHT, R1_WEIGHT, Spec, labels

MOMENTUM = 0.1  # of the running statistics


def forward(layers: Any, x: jax.Array, classes: Any = None) -> tuple[jax.Array, list[Any]]:
    """The last layer's output, and mean and variance of each normalized batch, which move the running ones."""
    statistics = []
    for k, layer in enumerate(layers):
        x = x @ layer["W"]
        if "b" in layer:
            x = x + layer["b"]
        if "E" in layer:
            x = x + layer["E"][classes]
        if "gamma" in layer:
            mean, var = x.mean(axis=0), x.var(axis=0)
            statistics.append((mean, var * len(x) / (len(x) - 1)))
            x = (x - mean) * (layer["gamma"] / jnp.sqrt(var + NORM_EPS)) + layer["beta"]
        x = jax.nn.relu(x) if k + 1 < len(layers) else x
    return x, jax.lax.stop_gradient(statistics)


def moved(running: Any, statistics: Any) -> Any:
    return jax.tree.map(lambda old, new: (1 - MOMENTUM) * old + MOMENTUM * new, running, statistics)


def logits(layers: Any, x: jax.Array, classes: Any = None) -> jax.Array:
    return forward(layers, x, classes)[0]


def discriminator_loss(
    second: Any, first: Any, real: jax.Array, classes: Any, z: jax.Array, u: Any, *, model: str
) -> Any:
    output, statistics = forward(first, z, classes)
    fake = jnp.tanh(output)
    fake_logits = logits(second, fake, classes)
    if model == "wgan-gp":
        between, pull = jax.vjp(partial(logits, second), u[:, None] * real + (1 - u[:, None]) * fake)
        norms = jnp.linalg.norm(pull(jnp.ones_like(between))[0], axis=1)
        loss = fake_logits.mean() - logits(second, real).mean()
        return loss + PENALTY_WEIGHT * ((norms - 1) ** 2).mean(), statistics
    real_logits, pull = jax.vjp(lambda x: logits(second, x, classes), real)
    loss = softplus(-real_logits).mean() + softplus(fake_logits).mean()
    if model == "gan-r1":
        loss = loss + R1_WEIGHT / 2 * (pull(jnp.ones_like(real_logits))[0] ** 2).sum(axis=1).mean()
    return loss, statistics


def generator_loss(first: Any, second: Any, classes: Any, z: jax.Array, *, model: str) -> Any:
    output, statistics = forward(first, z, classes)
    s = logits(second, jnp.tanh(output), classes)
    return -s.mean() if model == "wgan-gp" else softplus(-s).mean(), statistics


class Contender(jax_scan.Contender):
    def __init__(self, spec: Spec, data: np.ndarray, weights: list[np.ndarray]) -> None:
        self.labels = jax.device_put(labels(spec))
        super().__init__(spec, data, weights)

    def reset(self, weights: list[np.ndarray]) -> None:
        given = iter(weights)
        p = tuple([{name: jnp.array(next(given)) for name in names} for names in layers] for layers in self.spec.layers)
        m, v = (jax.tree.map(jnp.zeros_like, p) for _ in range(2))
        normalized = [layer["gamma"] for layer in p[0] if "gamma" in layer]
        running = [(jnp.zeros_like(gamma), jnp.ones_like(gamma)) for gamma in normalized]
        key = jax.random.key(self.spec.seed)
        self.state = {"p": p, "m": m, "v": v, "t": jnp.zeros(()), "running": running, "key": key}

    def weights(self) -> list[np.ndarray]:
        pairs = zip(self.state["p"], self.spec.layers, strict=True)
        order = [(layer, names) for network, layers in pairs for layer, names in zip(network, layers, strict=True)]
        return [np.array(layer[name]) for layer, names in order for name in names]

    def gan_step(self, state: Any, rows: Any, noise: Any) -> Any:
        """A step on rows of the data set: pixels and, of a conditional model, classes."""
        (real, classes), (normals, u) = rows, noise
        (g, d), (mg, md), (vg, vd) = state["p"], state["m"], state["v"]
        t, running = state["t"] + 1, state["running"]
        update = partial(adam, t, **self.spec.adam)
        model = self.spec.model
        loss = partial(discriminator_loss, model=model)
        (d_loss, seen), gradients = jax.value_and_grad(loss, has_aux=True)(d, g, real, classes, normals[0], u)
        running = moved(running, seen)
        d, md, vd = update(d, gradients, md, vd)
        loss = partial(generator_loss, model=model)
        (g_loss, seen), gradients = jax.value_and_grad(loss, has_aux=True)(g, d, classes, normals[1])
        running = moved(running, seen)
        g, mg, vg = update(g, gradients, mg, vg)
        new = {"p": (g, d), "m": (mg, md), "v": (vg, vd), "t": t, "running": running}
        return state | new, jnp.stack([d_loss, g_loss])

    def drawn_step(self, state: Any, data: Any) -> Any:
        spec, steps = self.spec, self.spec.steps_per_call
        key, for_rows, for_noise, for_places = jax.random.split(state["key"], 4)
        rows = jax.random.randint(for_rows, (steps, spec.batch), 0, spec.whole_rows)
        normals = jax.random.normal(for_noise, (steps, 2, spec.batch, spec.latent))
        u = jax.random.uniform(for_places, (steps, spec.extra_draws)) if spec.extra_draws else None

        def body(state: Any, draws: Any) -> Any:
            rows, normals, u = draws
            return self.step(state, self.taken(*data, rows), (normals, u))

        return jax.lax.scan(body, state | {"key": key}, (rows, normals, u))

    def taken(self, data: Any, classes: Any, rows: Any) -> Any:
        return data[rows], classes[rows] if self.spec.model == "gan-conditional" else None

    def check(self, indices: np.ndarray, noise: np.ndarray) -> np.ndarray:
        losses = []
        for rows, drawn in zip(indices, noise, strict=True):
            noise_parts = self.spec.parts(jnp.asarray(drawn))
            self.state, loss = self.given(self.state, self.taken(self.data, self.labels, rows), noise_parts)
            losses.append(np.asarray(loss))
        return np.array(losses)

    def run(self, steps: int) -> None:
        for _ in range(steps // self.spec.steps_per_call):
            self.state, _ = self.drawn(self.state, (self.data, self.labels))
        jax.block_until_ready(self.state)

"""TensorFlow, one tf.function step a call: GradientTape over variables, Adam written out.

Keras' Adam puts epsilon elsewhere than the paper's algorithm 1 does, so that its weights are not those of the others.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # so that peak memory means what was used

import numpy as np
import tensorflow as tf

from bench.spec import Spec, pixels


def forward(layers: list[tf.Variable], x: tf.Tensor) -> tf.Tensor:
    for W, b in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        x = tf.nn.relu(tf.matmul(x, W) + b)
    return tf.matmul(x, layers[-2]) + layers[-1]


class Contender:
    algorithm = "common"

    def __init__(self, spec: Spec, data: np.ndarray, weights: list[np.ndarray]) -> None:
        self.spec = spec
        if spec.device == "cpu":
            tf.config.set_visible_devices([], "GPU")
            tf.config.threading.set_intra_op_parallelism_threads(spec.threads)
        tf.config.experimental.enable_tensor_float_32_execution(spec.precision == "tf32")
        tf.random.set_seed(spec.seed)
        self.data = tf.constant(pixels(spec, data))
        self.variables = [tf.Variable(w) for w in weights]
        self.moments = [(tf.Variable(tf.zeros_like(w)), tf.Variable(tf.zeros_like(w))) for w in weights]
        self.t = tf.Variable(0.0)
        split = 2 * (len(spec.networks[0]) - 1)
        self.first, self.second = self.variables[:split], self.variables[split:]
        self.step = self.gan_step if spec.model == "gan" else self.vae_step
        self.given, self.drawn = tf.function(self.step), tf.function(self.drawn_step)

    def reset(self, weights: list[np.ndarray]) -> None:
        self.t.assign(0.0)
        for variable, moments, w in zip(self.variables, self.moments, weights, strict=True):
            variable.assign(w)
            for moment in moments:
                moment.assign(tf.zeros_like(moment))

    def update(self, variables: list[tf.Variable], gradients: list[tf.Tensor]) -> None:
        s = self.spec.adam
        start = 0 if variables[0] is self.variables[0] else len(self.first)
        for p, g, (m, v) in zip(variables, gradients, self.moments[start:], strict=False):
            m.assign(s["beta1"] * m + (1 - s["beta1"]) * g)
            v.assign(s["beta2"] * v + (1 - s["beta2"]) * g * g)
            v_hat = v / (1 - s["beta2"] ** self.t)
            p.assign_sub(s["lr"] * (m / (1 - s["beta1"] ** self.t)) / (tf.sqrt(v_hat) + s["eps"]))

    def gan_step(self, real: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        generator, discriminator = self.first, self.second
        self.t.assign_add(1.0)
        fake = tf.tanh(forward(generator, noise[0]))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(discriminator)
            real_logits, fake_logits = tf.split(forward(discriminator, tf.concat([real, fake], 0)), 2)
            d_loss = tf.reduce_mean(tf.nn.softplus(-real_logits)) + tf.reduce_mean(tf.nn.softplus(fake_logits))
        self.update(discriminator, tape.gradient(d_loss, discriminator))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(generator)
            g_loss = tf.reduce_mean(tf.nn.softplus(-forward(discriminator, tf.tanh(forward(generator, noise[1])))))
        self.update(generator, tape.gradient(g_loss, generator))
        return tf.stack([d_loss, g_loss])

    def vae_step(self, x: tf.Tensor, eps: tf.Tensor) -> tf.Tensor:
        self.t.assign_add(1.0)
        with tf.GradientTape() as tape:
            mu, logvar = tf.split(forward(self.first, x), 2, axis=1)
            logits = forward(self.second, mu + tf.exp(logvar / 2) * eps)
            reconstruction = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits)
            kl = 0.5 * (mu**2 + tf.exp(logvar) - 1 - logvar)
            loss = (tf.reduce_sum(reconstruction) + tf.reduce_sum(kl)) / self.spec.batch
        self.update(self.variables, tape.gradient(loss, self.variables))
        return loss[None]

    def drawn_step(self) -> None:
        rows = tf.random.uniform((self.spec.batch,), 0, self.spec.whole_rows, tf.int32)
        self.step(tf.gather(self.data, rows), tf.random.normal(self.spec.noise_shape))

    def check(self, indices: np.ndarray, noise: np.ndarray) -> np.ndarray:
        losses = []
        for rows, normals in zip(indices, noise, strict=True):
            losses.append(self.given(tf.gather(self.data, rows), tf.constant(normals)).numpy())
        return np.array(losses)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.drawn()
        self.variables[0].numpy()  # waits

    def weights(self) -> list[np.ndarray]:
        return [variable.numpy() for variable in self.variables]

    def device_peak_bytes(self) -> int | None:
        if self.spec.device == "cpu":
            return None
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]

    def versions(self) -> dict[str, Any]:
        return {"tensorflow": tf.__version__}

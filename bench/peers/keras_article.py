"""The article's Keras script: NumPy batches, predict and train_on_batch. Corrected only so far that it trains a GAN.

Corrected: the generator ends in tanh, as its data lie in [-1, 1], and it is trained through the discriminator, which is
frozen in the combined model. Kept: the discriminator ends in a sigmoid and takes one step on the real batch and one on
the generated batch, batches and noise come from NumPy, and every loss is read back. Keras' Adam is what it is.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # so that peak memory means what was used

import keras
import numpy as np
import tensorflow as tf

from bench.spec import Spec, pixels


def network(sizes: tuple[int, ...], activation: str) -> keras.Sequential:
    hidden = [keras.layers.Dense(size, activation="relu") for size in sizes[1:-1]]
    return keras.Sequential([keras.Input((sizes[0],)), *hidden, keras.layers.Dense(sizes[-1], activation=activation)])


class Contender:
    algorithm = "article"

    def __init__(self, spec: Spec, data: np.ndarray, weights: list[np.ndarray]) -> None:
        self.spec = spec
        if spec.device == "cpu":
            tf.config.set_visible_devices([], "GPU")
            tf.config.threading.set_intra_op_parallelism_threads(spec.threads)
        tf.config.experimental.enable_tensor_float_32_execution(spec.precision == "tf32")
        self.data = pixels(spec, data)
        self.rng = np.random.default_rng(spec.seed)
        self.ones, self.zeros = np.ones((spec.batch, 1), np.float32), np.zeros((spec.batch, 1), np.float32)
        self.generator = network(spec.networks[0], "tanh")
        self.discriminator = network(spec.networks[1], "sigmoid")
        self.discriminator.compile(optimizer=self.adam(), loss="binary_crossentropy")
        # Keras asks what is trainable when a model first trains, so the discriminator's own training comes first.
        self.discriminator.train_on_batch(self.data[: spec.batch], self.ones)
        self.discriminator.trainable = False
        self.combined = keras.Sequential([keras.Input((spec.latent,)), self.generator, self.discriminator])
        self.combined.compile(optimizer=self.adam(), loss="binary_crossentropy")
        self.reset(weights)

    def adam(self) -> keras.optimizers.Adam:
        s = self.spec.adam
        return keras.optimizers.Adam(s["lr"], beta_1=s["beta1"], beta_2=s["beta2"], epsilon=s["eps"])

    def reset(self, weights: list[np.ndarray]) -> None:
        split = 2 * (len(self.spec.networks[0]) - 1)
        self.generator.set_weights(weights[:split])
        self.discriminator.set_weights(weights[split:])
        for optimizer in (self.discriminator.optimizer, self.combined.optimizer):
            for variable in optimizer.variables:
                if variable.name != "learning_rate":
                    variable.assign(np.zeros(variable.shape))

    def step(self, real: np.ndarray, noise: np.ndarray) -> list[float]:
        fake = self.generator.predict(noise[0], verbose=0)
        d_loss = self.discriminator.train_on_batch(real, self.ones)
        d_loss += self.discriminator.train_on_batch(fake, self.zeros)
        g_loss = self.combined.train_on_batch(noise[1], self.ones)
        return [d_loss, g_loss]

    def check(self, indices: np.ndarray, noise: np.ndarray) -> np.ndarray:
        steps = zip(indices, noise, strict=True)
        return np.array([self.step(self.data[rows], normals) for rows, normals in steps])

    def run(self, steps: int) -> None:
        for _ in range(steps):
            rows = self.rng.integers(0, self.spec.whole_rows, self.spec.batch)
            self.step(self.data[rows], self.rng.normal(0, 1, self.spec.noise_shape))

    def weights(self) -> list[np.ndarray]:
        return [*self.generator.get_weights(), *self.discriminator.get_weights()]

    def device_peak_bytes(self) -> int | None:
        if self.spec.device == "cpu":
            return None
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]

    def versions(self) -> dict[str, Any]:
        return {"tensorflow": tf.__version__, "keras": keras.__version__}

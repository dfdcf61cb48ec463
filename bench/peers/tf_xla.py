"""TensorFlow compiled by XLA, with the loop over many steps inside the compiled function, and their draws before it."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from bench.peers import tf_function
from bench.spec import Spec


class Contender(tf_function.Contender):
    def __init__(self, spec: Spec, data: np.ndarray, weights: list[np.ndarray]) -> None:
        super().__init__(spec, data, weights)
        self.given = tf.function(self.step, jit_compile=True)
        self.many = tf.function(self.many_steps, jit_compile=True)
        self.drawn = tf.function(self.drawn_steps)

    def many_steps(self, rows: tf.Tensor, noise: tf.Tensor) -> None:
        for k in tf.range(self.spec.steps_per_call):
            self.step(tf.gather(self.data, rows[k]), noise[k])

    def drawn_steps(self) -> None:
        # Drawn outside of XLA, whose random numbers are slow on a CPU.
        steps = self.spec.steps_per_call
        rows = tf.random.uniform((steps, self.spec.batch), 0, self.spec.whole_rows, tf.int32)
        self.many(rows, tf.random.normal((steps, *self.spec.noise_shape)))

    def run(self, steps: int) -> None:
        super().run(steps // self.spec.steps_per_call)

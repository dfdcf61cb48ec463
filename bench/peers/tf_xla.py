"""TensorFlow compiled by XLA, with the loop over many steps inside the compiled function."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from bench.peers import tf_function
from bench.spec import Spec


class Contender(tf_function.Contender):
    def __init__(self, spec: Spec, data: np.ndarray, weights: list[np.ndarray]) -> None:
        super().__init__(spec, data, weights)
        self.key = tf.Variable([spec.seed, 0])
        self.given = tf.function(self.step, jit_compile=True)
        self.drawn = tf.function(self.drawn_steps, jit_compile=True)

    def drawn_steps(self) -> None:
        # XLA has no stateful random numbers: the key is (seed, number of the draw).
        for _ in tf.range(self.spec.steps_per_call):
            self.key.assign_add([0, 1])
            rows = tf.random.stateless_uniform((self.spec.batch,), self.key, 0, self.spec.whole_rows, tf.int32)
            self.key.assign_add([0, 1])
            self.step(tf.gather(self.data, rows), tf.random.stateless_normal(self.spec.noise_shape, self.key))

    def run(self, steps: int) -> None:
        super().run(steps // self.spec.steps_per_call)

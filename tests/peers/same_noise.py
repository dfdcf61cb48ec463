"""A contender that computes something else: the generator trains on the discriminator's noise, not on fresh noise."""

import numpy as np

from bench.peers import numpy_plain


class Contender(numpy_plain.Contender):
    def gan_step(self, real: np.ndarray, noise: np.ndarray) -> list[float]:
        return super().gan_step(real, np.stack([noise[0], noise[0]]))

"""minigen: several GANs by `fit_many`, whole trainings from the first weight on, as a user calls it."""

from __future__ import annotations

import minigen
from bench.peers import minigen_steps


class Contender(minigen_steps.Contender):
    def run(self, steps: int) -> None:
        """``steps`` are whole epochs. What making networks and capturing steps takes is counted."""
        spec = self.spec
        settings = {"hidden": spec.hidden, "latent_dim": spec.latent, "activation": "relu", "batch_size": spec.batch}
        settings |= {"beta1": spec.adam["beta1"], "learning_rate": spec.adam["lr"], "device": "cpu"}
        epochs = steps * spec.batch // len(self.data)
        models = [
            minigen.GAN(**settings, precision="ieee", epochs=epochs, seed=spec.seed + i) for i in range(spec.at_once)
        ]
        minigen.fit_many(models, self.data, progress=False)

"""minigen: several GANs by `fit_many`, whole trainings from the first weight on, as a user calls it."""

from __future__ import annotations

import numpy as np

import minigen
from bench.peers import minigen_steps
from bench.spec import Spec


def train(spec: Spec, data: np.ndarray, epochs: int, exact: bool) -> list[minigen.GAN]:
    """Models of different seeds."""
    settings = {"hidden": spec.hidden, "latent_dim": spec.latent, "activation": "relu", "batch_size": spec.batch}
    settings |= {"beta1": spec.adam["beta1"], "learning_rate": spec.adam["lr"], "device": spec.device}
    settings |= {"precision": precision_on(spec.device), "epochs": epochs}
    models = [minigen.GAN(**settings, seed=spec.seed + i) for i in range(spec.at_once)]
    return minigen.fit_many(models, data, progress=False, exact=exact)


def precision_on(device: str) -> str:
    """Of products with float32's accuracy."""
    return "tf32x3" if device == "cuda" else "ieee"


class Contender(minigen_steps.Contender):
    exact = False

    def __init__(self, spec: Spec, data: np.ndarray, weights: list[np.ndarray]) -> None:
        self.precision = precision_on(spec.device)
        super().__init__(spec, data, weights)

    def run(self, steps: int) -> float | None:  # type: ignore[override]
        """``steps`` are whole epochs. On the CPU what making networks and capturing steps takes is counted.

        On CUDA it is not, because it would outlast the steps: the seconds of the epochs after the first are returned.
        """
        epochs = steps * self.spec.batch // len(self.data)
        if self.spec.device == "cpu":
            train(self.spec, self.data, epochs, self.exact)
            return None
        return max(sum(model.history_.seconds[1:]) for model in train(self.spec, self.data, epochs + 1, self.exact))

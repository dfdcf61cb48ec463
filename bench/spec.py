"""What one training run is: the models' shapes and settings, said once for every contender.

This file needs NumPy alone, because it is read in the peers' virtual environments too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

MODELS = ("gan", "vae")
PRECISIONS = ("ieee", "tf32")
WIDTHS = {"gan": {"article": (128,), "wide": (1024, 1024)}, "vae": {"article": (400,), "wide": (1024, 1024)}}
"""Hidden layers, counted from the pixels: the article's models, and a wide one."""


@dataclass(frozen=True)
class Spec:
    """One cell of the comparison. All contenders get the same one."""

    model: str
    hidden: tuple[int, ...]
    batch: int
    n: int
    """Rows of the data set."""
    columns: int = 784
    device: str = "cpu"
    threads: int = 1
    precision: str = "ieee"
    """Of float32 matrix products on a GPU: ``ieee`` or ``tf32``. A CPU knows only ``ieee``."""
    seed: int = 0
    steps_per_call: int = 1
    """Steps that a contender with a loop of its own (``lax.scan``, a CUDA graph) does per call from Python."""

    @property
    def latent(self) -> int:
        return 100 if self.model == "gan" else 20

    @property
    def adam(self) -> dict[str, float]:
        """Keras' defaults but for the rate: 2e-4 for the GAN, 1e-3 for the VAE."""
        return {"lr": 2e-4 if self.model == "gan" else 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}

    @property
    def networks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Layer sizes of (generator, discriminator) or (encoder, decoder).

        Hidden layers end in ReLU. The generator ends in tanh, all others in logits or, the encoder, in
        ``[mu | logvar]``.
        """
        outwards = tuple(reversed(self.hidden))
        if self.model == "gan":
            return (self.latent, *outwards, self.columns), (self.columns, *self.hidden, 1)
        return (self.columns, *self.hidden, 2 * self.latent), (self.latent, *outwards, self.columns)

    @property
    def range(self) -> tuple[float, float]:
        """``(scale, shift)`` of uint8 pixels: to [-1, 1] for a generator's tanh, to [0, 1] for Bernoulli."""
        return (1 / 127.5, -1.0) if self.model == "gan" else (1 / 255.0, 0.0)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Normals of one step: fresh ones for the discriminator and for the generator, or the VAE's epsilon."""
        return (2, self.batch, self.latent) if self.model == "gan" else (self.batch, self.latent)

    @property
    def whole_rows(self) -> int:
        """Rows that make whole batches. All contenders draw from these alone, so that none has a smaller last batch."""
        return self.n - self.n % self.batch

    @property
    def parameters(self) -> int:
        return sum(i * o + o for sizes in self.networks for i, o in zip(sizes, sizes[1:], strict=False))

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"hidden": list(self.hidden)}

    @staticmethod
    def from_json(fields: dict[str, Any]) -> Spec:
        return replace(Spec(**fields), hidden=tuple(fields["hidden"]))


def initial_weights(spec: Spec) -> list[np.ndarray]:
    """``[W[I,O], b[O], ...]`` of both networks in order, float32: Glorot uniform, biases small but not zero."""
    rng = np.random.default_rng(spec.seed)
    weights = []
    for sizes in spec.networks:
        for fan_in, fan_out in zip(sizes, sizes[1:], strict=False):
            limit = np.sqrt(6 / (fan_in + fan_out))
            weights.append(rng.uniform(-limit, limit, (fan_in, fan_out)).astype(np.float32))
            weights.append(rng.normal(0, 0.01, fan_out).astype(np.float32))
    return weights


def check_inputs(spec: Spec, steps: int, attempt: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The batches and the noise of the equivalence check: row numbers ``int64[steps,B]``, normals ``[steps,...]``."""
    rng = np.random.default_rng(spec.seed + 1 + attempt)
    indices = rng.integers(0, spec.whole_rows, (steps, spec.batch))
    return indices, rng.standard_normal((steps, *spec.noise_shape), dtype=np.float32)


def pixels(spec: Spec, data: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
    """``data[N,D]`` of uint8 as the model's floats, without a temporary copy of the same size."""
    scale, shift = spec.range
    out = data.astype(dtype)
    out *= scale
    out += shift
    return out

"""What one training run is: the models' shapes and settings, said once for every contender.

This file needs NumPy alone, because it is read in the peers' virtual environments too.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

MODELS = ("gan", "vae")
VARIANTS = ("gan-r1", "wgan-gp", "gan-batch-norm", "gan-conditional")
"""The GAN with one thing more, which `bench.oracle_variants` spells out."""
PRECISIONS = ("ieee", "tf32")
WIDTHS = {
    **{model: {"article": (128,), "wide": (1024, 1024)} for model in ("gan", *VARIANTS)},
    "vae": {"article": (400,), "wide": (1024, 1024)},
}
"""Hidden layers, counted from the pixels: the article's models, and a wide one."""
R1_WEIGHT = 1.0
"""Of ``gan-r1``: half of it times the mean squared gradient is added (Mescheder et al. 2018, equation 9)."""
PENALTY_WEIGHT = 10.0
"""Of ``wgan-gp`` (Gulrajani et al. 2017, equation 3)."""
CLASSES = 10
NORM_EPS = 1e-5
"""Added to the variance by batch norm."""


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
    at_once: int = 1
    """Models trained at once, of different seeds: `bench.many`."""

    @property
    def latent(self) -> int:
        return 20 if self.model == "vae" else 100

    @property
    def adam(self) -> dict[str, float]:
        """Keras' defaults but for the rate: 2e-4 for the GAN, 1e-3 for the VAE."""
        return {"lr": 1e-3 if self.model == "vae" else 2e-4, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}

    @property
    def networks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Layer sizes of (generator, discriminator) or (encoder, decoder).

        Hidden layers end in ReLU. The generator ends in tanh, all others in logits or, the encoder, in
        ``[mu | logvar]``.
        """
        outwards = tuple(reversed(self.hidden))
        if self.model == "vae":
            return (self.columns, *self.hidden, 2 * self.latent), (self.latent, *outwards, self.columns)
        return (self.latent, *outwards, self.columns), (self.columns, *self.hidden, 1)

    @property
    def layers(self) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
        """Names of each layer's parameters, of both networks, in the order in which weights are handed around.

        ``W[I,O]`` and ``b[O]``; in the generator's hidden layers batch norm's ``gamma[O]`` and ``beta[O]`` in place of
        ``b``, which it would take out again; and ``E[CLASSES,O]``, what a row's class adds to the first layer of both.
        """
        first, second = ([("W", "b")] * (len(sizes) - 1) for sizes in self.networks)
        if self.model == "gan-batch-norm":
            first[:-1] = [("W", "gamma", "beta")] * (len(first) - 1)
        if self.model == "gan-conditional":
            first[0] = second[0] = ("W", "b", "E")
        return first, second

    @property
    def range(self) -> tuple[float, float]:
        """``(scale, shift)`` of uint8 pixels: to [-1, 1] for a generator's tanh, to [0, 1] for Bernoulli."""
        return (1 / 255.0, 0.0) if self.model == "vae" else (1 / 127.5, -1.0)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Normals of one step: fresh ones for the discriminator and for the generator, or the VAE's epsilon.

        Of a model that draws more, one vector: :meth:`parts` takes it apart.
        """
        if self.model == "vae":
            return (self.batch, self.latent)
        if self.extra_draws:
            return (2 * self.batch * self.latent + self.extra_draws,)
        return (2, self.batch, self.latent)

    @property
    def extra_draws(self) -> int:
        """Beside the normals of a step: of ``wgan-gp`` a place for each row between a real and a generated one."""
        return self.batch if self.model == "wgan-gp" else 0

    def parts(self, noise: Any) -> tuple[Any, Any]:
        """The GAN's normals ``[2,B,latent]`` and what else was drawn, or None: of an array of any framework."""
        if not self.extra_draws:
            return noise, None
        normals = 2 * self.batch * self.latent
        return noise[:normals].reshape(2, self.batch, self.latent), noise[normals:]

    @property
    def whole_rows(self) -> int:
        """Rows that make whole batches. All contenders draw from these alone, so that none has a smaller last batch."""
        return self.n - self.n % self.batch

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of all weights, in the order in which they are handed around."""
        found: list[tuple[int, ...]] = []
        for sizes, layers in zip(self.networks, self.layers, strict=True):
            for fan_in, fan_out, names in zip(sizes, sizes[1:], layers, strict=False):
                shapes = {"W": (fan_in, fan_out), "E": (CLASSES, fan_out)}
                found += [shapes.get(name, (fan_out,)) for name in names]
        return found

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"hidden": list(self.hidden)}

    @staticmethod
    def from_json(fields: dict[str, Any]) -> Spec:
        return replace(Spec(**fields), hidden=tuple(fields["hidden"]))


def initial_weights(spec: Spec) -> list[np.ndarray]:
    """``[W[I,O], b[O], ...]`` of both networks in order, float32: Glorot uniform, biases small but not zero.

    What a class adds is as small as a bias, and batch norm begins near one and zero.
    """
    rng = np.random.default_rng(spec.seed)
    names = [name for network in spec.layers for layer in network for name in layer]
    return [_first_values(name, shape, rng) for name, shape in zip(names, spec.shapes, strict=True)]


def _first_values(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if name == "W":
        limit = np.sqrt(6 / sum(shape))
        return rng.uniform(-limit, limit, shape).astype(np.float32)
    return rng.normal(1 if name == "gamma" else 0, 0.01, shape).astype(np.float32)


def labels(spec: Spec) -> np.ndarray:
    """A class for each row of the data set, ``int32[n]``: any will do, since only the time of a step is asked for."""
    return np.random.default_rng(spec.seed).integers(0, CLASSES, spec.n).astype(np.int32)


def check_inputs(spec: Spec, steps: int, attempt: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The batches and the noise of the equivalence check: row numbers ``int64[steps,B]``, normals ``[steps,...]``."""
    rng = np.random.default_rng(spec.seed + 1 + attempt)
    indices = rng.integers(0, spec.whole_rows, (steps, spec.batch))
    noise = rng.standard_normal((steps, *spec.noise_shape), dtype=np.float32)
    if spec.model == "wgan-gp":
        noise[:, -spec.extra_draws :] = rng.random((steps, spec.extra_draws), dtype=np.float32)
    return indices, noise


def pixels(spec: Spec, data: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
    """``data[N,D]`` of uint8 as the model's floats, without a temporary copy of the same size."""
    scale, shift = spec.range
    out = data.astype(dtype)
    out *= scale
    out += shift
    return out

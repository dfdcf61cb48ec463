"""Gradient checks of whole training steps: a GAN's two losses and a VAE's, through every layer and the sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from minigen.backend import GAN_LOSSES, Backend
from minigen.gradcheck import DIFFERENCES_TOLERANCE, FLOOR_TOLERANCE, Row, differences, relative_error
from minigen.models.gan import GanTraining
from minigen.models.mlp import Mlp
from minigen.models.optimizer import OptimizerSettings
from minigen.models.vae import LIKELIHOODS, VaeTraining
from minigen.reference import NumpyBackend

COLUMNS, HIDDEN, LATENT, ROWS = 7, (5, 3), 4, 6


@dataclass(frozen=True)
class Gradient:
    """One loss of a model: ``compute`` runs it forward and backward, ``value`` reads it, ``nets`` hold the gradient."""

    model: str
    name: str
    compute: Callable[[], None]
    value: Callable[[], float]
    nets: tuple[Mlp, ...]


def check_reference(rng: np.random.Generator) -> Iterator[Row]:
    """The float64 reference's steps against central differences of their losses, in every parameter.

    Hidden layers are softplus: a difference across the kink of a rectifier would measure nothing.
    """
    for gradient in _gradients(NumpyBackend(np.float64), "softplus", int(rng.integers(2**32))):
        gradient.compute()
        for net in gradient.nets:
            error = relative_error(net.grads.copy(), differences(_loss_of(gradient, net), net.params.copy()))
            check = f"{gradient.name}, {net.name} vs central differences"
            yield Row(f"{gradient.model} step", "reference", check, error, 10 * DIFFERENCES_TOLERANCE)


def check_floor(backend: Backend, rng: np.random.Generator) -> Iterator[Row]:
    """The same steps on ``backend`` against the float64 reference, with the leaky rectifiers of the default GAN."""
    seed = int(rng.integers(2**32))
    floors = [_gradients(floor, "leaky_relu", seed) for floor in (backend, NumpyBackend(np.float64))]
    for ours, book in zip(*floors, strict=True):
        ours.compute()
        book.compute()
        for net, reference in zip(ours.nets, book.nets, strict=True):
            error = relative_error(backend.download(net.grads), reference.grads)
            check = f"{ours.name}, {net.name} vs float64 reference"
            yield Row(f"{ours.model} step", backend.name, check, error, 4 * FLOOR_TOLERANCE[backend.dtype.name])


def _loss_of(gradient: Gradient, net: Mlp) -> Callable[[np.ndarray], float]:
    def loss(params: np.ndarray) -> float:
        before = net.params.copy()
        net.params[:] = params
        gradient.compute()
        net.params[:] = before
        return gradient.value()

    return loss


def _gradients(ops: Backend, hidden: str, seed: int) -> Iterator[Gradient]:
    """Every gradient of both models on ``ops``; one ``seed`` gives the same data, weights and noise on any floor."""
    data = np.random.default_rng(seed).integers(0, 256, (2 * ROWS, COLUMNS), np.uint8)
    settings = OptimizerSettings()
    for kind in GAN_LOSSES:
        generator, discriminator = _networks(
            ops, seed, hidden,
            generator=((LATENT, *HIDDEN, COLUMNS), "tanh"), discriminator=((COLUMNS, *HIDDEN, 1), "linear"),
        )  # fmt: skip
        gan = GanTraining(
            ops, generator, discriminator, data, batch_size=ROWS, settings=settings, loss=kind, seed=seed,
            scale=2 / 255, shift=-1.0,
        )  # fmt: skip
        if kind == GAN_LOSSES[0]:
            compute = _after(gan.generate, gan.discriminator_gradient)
            yield Gradient("gan", "discriminator loss", compute, _reader(gan, 0), (discriminator,))
        compute = _after(gan.generate, gan.generator_gradient)
        yield Gradient("gan", f"{kind} generator loss", compute, _reader(gan, 1), (generator,))
    for likelihood in LIKELIHOODS:
        yield _vae_gradient(ops, hidden, seed, data, likelihood)


def _after(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        first()
        second()

    return both


def _vae_gradient(ops: Backend, hidden: str, seed: int, data: np.ndarray, likelihood: str) -> Gradient:
    encoder, decoder = _networks(
        ops, seed, hidden,
        encoder=((COLUMNS, *HIDDEN, 2 * LATENT), "linear"), decoder=((LATENT, *HIDDEN, COLUMNS), "linear"),
    )  # fmt: skip
    vae = VaeTraining(
        ops, encoder, decoder, data, batch_size=ROWS, settings=OptimizerSettings(), likelihood=likelihood,
        variance=0.5, beta=0.7, seed=seed, scale=1 / 255,
    )  # fmt: skip
    terms = _reader(vae, 0), _reader(vae, 1)
    return Gradient(
        "vae", f"{likelihood} loss", lambda: vae.gradient(ROWS), lambda: terms[0]() + vae.beta * terms[1](),
        (encoder, decoder),
    )  # fmt: skip


def _networks(ops: Backend, seed: int, hidden: str, **shapes: tuple[tuple[int, ...], str]) -> list[Mlp]:
    networks = [Mlp(ops, name, sizes, hidden, output) for name, (sizes, output) in shapes.items()]
    for i, net in enumerate(networks):
        net.initialize(seed, "auto", 10 * i)
    return networks


def _reader(training: GanTraining | VaeTraining, i: int) -> Callable[[], float]:
    return lambda: float(training.ops.download(training.losses)[i])

"""Checks of whole training steps: a GAN's and a VAE's, through every layer, the sampling and the update.

The gradients of their losses are compared with central differences, and every part of a step with the formulas of
:mod:`minigen.gradcheck_plain`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minigen import gradcheck_plain as plain
from minigen.backend import GAN_LOSSES, Backend
from minigen.gradcheck_formulas import FORMULAS
from minigen.gradcheck_tools import BACKEND_TOLERANCE, DIFFERENCES_TOLERANCE, Row, differences, relative_error
from minigen.models.gan import GanStep
from minigen.models.gumbel_softmax import with_labels
from minigen.models.hidden import dense_layers
from minigen.models.iwae import IwaeStep
from minigen.models.likelihood import LEARNED, LogVariance
from minigen.models.network import Network
from minigen.models.optimizer import Optimizer, OptimizerSettings
from minigen.models.vae import NOISE_RATE, VaeStep
from minigen.reference import latent
from minigen.reference_backend import NumpyBackend

COLUMNS, HIDDEN, LATENT, ROWS = 7, (5, 3), 4, 6
DIRECTIONS = 4  # in each of which, as they are random, any wrong entry of a gradient shows


@dataclass(frozen=True)
class Gradient:
    """One loss of a model: ``compute`` runs it forward and backward, ``value`` reads it, ``nets`` hold the gradient."""

    model: str
    name: str
    compute: Callable[[], None]
    value: Callable[[], float]
    nets: tuple[Network, ...]
    part: str = "gradient"  # of the step, as FORMULAS calls it


def check_reference(rng: np.random.Generator) -> Iterator[Row]:
    """The float64 reference's steps against central differences of their losses, in random directions.

    Hidden layers are softplus: a difference across the kink of a rectifier would measure nothing.
    """
    for gradient in _gradients(NumpyBackend(np.float64), "softplus", int(rng.integers(2**32))):
        gradient.compute()
        gradients = [net.grads.copy() for net in gradient.nets]
        for net, derived in zip(gradient.nets, gradients, strict=True):
            directions = rng.normal(size=(DIRECTIONS, len(net.params)))
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
            along = _loss_along(gradient, net, directions)
            error = relative_error(directions @ derived, differences(along, np.zeros(DIRECTIONS)))
            check = f"{gradient.name}, {net.name} vs central differences"
            formula = FORMULAS[f"{gradient.model} {gradient.part}"]
            yield Row(f"{gradient.model} step", "reference", check, error, 10 * DIFFERENCES_TOLERANCE, formula)


def check_backend(backend: Backend, rng: np.random.Generator) -> Iterator[Row]:
    """The same steps on ``backend`` against the float64 reference, with the leaky rectifiers of the default GAN."""
    seed = int(rng.integers(2**32))
    both = [_gradients(ops, "leaky_relu", seed) for ops in (backend, NumpyBackend(np.float64))]
    for ours, reference in zip(*both, strict=True):
        ours.compute()
        reference.compute()
        for net, expected in zip(ours.nets, reference.nets, strict=True):
            error = relative_error(backend.download(net.grads), expected.grads)
            check = f"{ours.name}, {net.name} vs float64 reference"
            tolerance = 4 * BACKEND_TOLERANCE[backend.dtype.name]
            formula = f"an operation of the device {backend.name}, in a step of the {ours.model}"
            yield Row(f"{ours.model} step", backend.name, check, error, tolerance, formula)


def _loss_along(gradient: Gradient, net: Network, directions: np.ndarray) -> Callable[[np.ndarray], float]:
    """The loss as a function of how far the parameters have moved in each direction."""
    start = net.params.copy()

    def loss(far: np.ndarray) -> float:
        net.params[:] = start + far @ directions
        gradient.compute()
        net.params[:] = start
        return gradient.value()

    return loss


def _gradients(ops: Backend, hidden: str, seed: int) -> Iterator[Gradient]:
    """Every gradient of both models on ``ops``; one ``seed`` gives the same data, weights and noise on any backend."""
    data = np.random.default_rng(seed).integers(0, 256, (2 * ROWS, COLUMNS), np.uint8)
    for kind in GAN_LOSSES:
        gan = _gan(ops, seed, hidden, data, loss=kind)
        if kind != "minimax":  # its discriminator is the first one's
            compute = _after(gan.generate, gan.discriminator_gradient)
            yield Gradient("gan", f"{kind} discriminator loss", compute, _reader(gan, 0), (gan.discriminator,))
        compute = _after(gan.generate, gan.generator_gradient)
        yield Gradient("gan", f"{kind} generator loss", compute, _reader(gan, 1), (gan.generator,))
    gan = _gan(ops, seed, hidden, data, blocks=(1, 3, COLUMNS - 4))
    compute = _after(gan.generate, gan.generator_gradient)
    yield Gradient("gan", "numbers and labels, generator loss", compute, _reader(gan, 1), (gan.generator,))
    for name in ("r1", "gradient_penalty"):
        penalty: dict[str, Any] = {name: 0.7}
        gan = _gan(ops, seed, hidden, data, loss="wasserstein", **penalty)
        compute, value = _after(gan.generate, gan.discriminator_gradient), _sum(_reader(gan, 0), _reader(gan, 2))
        yield Gradient("gan", f"wasserstein with {name}", compute, value, (gan.discriminator,), "penalty gradient")
    for variant in (VAES[0], VAES[1], VAES[4], VAES[6], VAES[8]):  # the others differ in their losses alone
        yield _vae_gradient(ops, hidden, seed, data, variant)


def _gan(
    ops: Backend, seed: int, hidden: str, data: np.ndarray, blocks: tuple[int, ...] = (), **settings: Any
) -> GanStep:
    """A step whose logits are near 0, away from the kinks of a loss."""
    generator, discriminator = _networks(
        ops,
        seed,
        hidden,
        generator=((LATENT, *HIDDEN, COLUMNS), "tanh"),
        discriminator=((COLUMNS, *HIDDEN, 1), "linear"),
    )
    if blocks:
        weights = generator.state()
        generator = Network(ops, "generator", with_labels(generator.layers, blocks, 0.7))
        generator.load_state(weights)
    state = discriminator.state()
    last = list(state)[-2]
    discriminator.load_state({**state, last: state[last] / 8})
    common: dict[str, Any] = {
        "batch_size": ROWS,
        "settings": OptimizerSettings(),
        "seed": seed,
        "scale": 2 / 255,
        "shift": -1.0,
    }
    return GanStep(ops, generator, discriminator, data, **common, **settings)


def _sum(first: Callable[[], float], second: Callable[[], float]) -> Callable[[], float]:
    return lambda: first() + second()


def _after(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        first()
        second()

    return both


def _vae_gradient(ops: Backend, hidden: str, seed: int, data: np.ndarray, variant: dict[str, Any]) -> Gradient:
    encoder, decoder = _networks(
        ops,
        seed,
        hidden,
        encoder=((COLUMNS, *HIDDEN, 2 * LATENT), "linear"),
        decoder=((LATENT, *HIDDEN, COLUMNS), "linear"),
    )
    vae = _vae_step(ops, encoder, decoder, data, variant, OptimizerSettings(), seed)
    ops.upload(np.array([2], np.uint64), out=vae.counter)  # a warm-up has begun
    if vae.free_bits:  # some latents are within them, and none near the edge, where there is no derivative
        vae.gradient(ROWS)
        mu, logvar = latent.posterior(np.asarray(ops.download(vae.encoder_work[-1].y), np.float64))
        between = np.sort((mu**2 + np.expm1(logvar) - logvar).mean(axis=0) / 2)[1:3].mean()
        if np.isfinite(between):  # a faulty backend may have left a NaN, which other lines report
            vae.free_bits = float(between)
    name = ", ".join([f"{key} {value}" for key, value in variant.items() if key not in ("blocks", "beta")])
    value = _reader(vae, 2) if len(vae.terms) == 3 else lambda: _reader(vae, 0)() + vae.beta * _reader(vae, 1)()
    if vae.weighs_kl:
        value = lambda: _reader(vae, 0)() + _reader(vae, 2)()  # noqa: E731
    return Gradient("vae", f"{name} loss", lambda: vae.gradient(ROWS), value, tuple(vae.networks))


VAES: tuple[dict[str, Any], ...] = (
    {"likelihood": "bernoulli", "beta": 1.7},
    {"likelihood": "gaussian", "variance": 0.4, "beta": 0.7},
    {"likelihood": "continuous_bernoulli", "beta": 1.7, "kl_warmup": 1.5},
    {"likelihood": "categorical", "blocks": (1, 2, COLUMNS - 3), "beta": 0.7, "free_bits": 0.3},
    {"likelihood": "gaussian", "variance": "learned", "beta": 1.7, "kl_warmup": 3.0, "free_bits": 0.2},
    {"likelihood": "gaussian", "variance": "learned_scalar", "beta": 0.7},
    {"likelihood": "mixed", "blocks": (1, 1, 2, COLUMNS - 5, 1), "variance": "learned", "beta": 0.7},
    {"likelihood": "bernoulli", "draws": 3},
    {"likelihood": "gaussian", "variance": "learned", "draws": 2},
    {"likelihood": "mixed", "blocks": (2, 1, COLUMNS - 3), "variance": 0.4, "draws": 5},
)
"""What a VAE's step can be told, in turn."""


def _vae_step(
    ops: Backend,
    encoder: Network,
    decoder: Network,
    data: np.ndarray,
    variant: dict[str, Any],
    settings: OptimizerSettings,
    seed: int,
) -> VaeStep:
    given = dict(variant)
    if (variance := given.get("variance")) in LEARNED:
        noise = Network(ops, "noise", [LogVariance(COLUMNS, COLUMNS if variance == "learned" else 1)])
        start = np.random.default_rng(seed).normal(-1, 0.3, noise.layers[0].shapes["logvar"])
        noise.load_state({"noise.0.logvar": start})
        given["variance"] = noise
    kind = IwaeStep if "draws" in given else VaeStep
    given |= {"batch_size": ROWS, "settings": settings, "seed": seed, "scale": 1 / 255}
    return kind(ops, encoder, decoder, data, **given)


def _networks(ops: Backend, seed: int, hidden: str, **shapes: tuple[tuple[int, ...], str]) -> list[Network]:
    networks = [Network(ops, name, dense_layers(sizes, hidden, output)) for name, (sizes, output) in shapes.items()]
    for i, net in enumerate(networks):
        net.initialize(seed, "auto", 10 * i)
    return networks


def _reader(training: GanStep | VaeStep, i: int) -> Callable[[], float]:
    return lambda: float(training.ops.download(training.losses)[i])


# --- every part of a step against the formulas ----------------------------------------------------------

SETTINGS = {
    "sgd": OptimizerSettings("sgd", learning_rate=0.05, momentum=0.7, weight_decay=0.05),
    "adam": OptimizerSettings("adam", learning_rate=0.02, beta1=0.6, beta2=0.93, eps=1e-2),
    "adamw": OptimizerSettings("adamw", learning_rate=0.02, beta1=0.4, beta2=0.97, eps=3e-3, weight_decay=0.3),
    "rmsprop": OptimizerSettings("rmsprop", 0.01, beta2=0.8, eps=2e-2, momentum=0.4, weight_decay=0.1),
    "lion": OptimizerSettings("lion", learning_rate=0.01, beta1=0.7, beta2=0.95, weight_decay=0.2),
}
"""Of every optimizer, none of them a default: a setting that is dropped or swapped for another shows."""

INITS = ("auto", "glorot_normal", "he_uniform", "he_normal", "glorot_uniform")
STEPS = 7  # more than an epoch


def check_steps(backend: Backend, device: str, seed: int) -> Iterator[Row]:
    """Steps of both models on ``backend``, with every optimizer, activation, loss and initialisation in turn.

    Each part of a step is compared with its formula at the numbers that the step itself had before that part, so that
    the part that is wrong fails and those after it do not.
    """
    activations = ("leaky_relu", "tanh", "relu", "sigmoid", "softplus")
    tolerance = 20 * BACKEND_TOLERANCE[backend.dtype.name]
    for i, optimizer in enumerate(2 * list(SETTINGS)):
        turn = (i + i // len(SETTINGS)) % 5  # no optimizer twice with the same
        hidden, init = activations[turn], INITS[turn]
        for steps in (_GanSteps, _VaeSteps):
            with np.errstate(all="ignore"):  # a NaN is an error to report
                parts = steps(backend, seed + i, hidden, init, SETTINGS[optimizer], i).run()
            for part, error in parts.items():
                check = f"{optimizer}, {hidden}, {init}: {part} vs formula"
                formula = FORMULAS[f"{optimizer} update" if part.endswith("update") else f"{steps.model} {part}"]
                yield Row(f"{steps.model} step", device, check, error, tolerance, formula)


class _Steps:
    """Steps of a small training, and the error of each of their parts."""

    model: str
    training: GanStep | VaeStep

    def __init__(self, ops: Backend, seed: int, hidden: str, init: str, settings: OptimizerSettings) -> None:
        self.ops, self.seed, self.hidden, self.init, self.settings = ops, seed % 2**32, hidden, init, settings
        self.data = np.random.default_rng(seed).integers(0, 256, (3 * ROWS + 2, COLUMNS), np.uint8)
        self.errors: dict[str, float] = {}

    def networks(self, **shapes: tuple[tuple[int, ...], str]) -> list[Network]:
        """Networks whose weights are drawn and compared with their formula."""
        nets, first = [], 0
        for name, (sizes, output) in shapes.items():
            net = Network(self.ops, name, dense_layers(sizes, self.hidden, output))
            net.initialize(self.seed, self.init, first)
            expected = plain.initial(sizes, self.hidden, output, self.init, self.seed, first)
            self.compare("initial weights", plain.flat(_weights(net)), plain.flat(expected))
            nets.append(net)
            first += len(sizes) - 1
        return nets

    def compare(self, part: str, out: Any, expected: Any, least: float = 0.0) -> None:
        """Keep the largest error of a part; NaN counts as the largest.

        It is relative to ``least`` at least: large terms may cancel to next to nothing.
        """
        error = relative_error(np.append(out, least), np.append(expected, least))
        self.errors[part] = float(np.max([self.errors.get(part, 0.0), error]))

    def compare_update(self, optimizer: Optimizer, before: tuple[np.ndarray, plain.Slots], step: int) -> None:
        """All that the update of a network's flat buffers has written."""
        net = optimizer.net
        gradient = np.asarray(self.ops.download(net.grads), np.float64)
        settings = self.settings
        if net.name == "noise":
            settings = replace(settings, learning_rate=NOISE_RATE * settings.learning_rate, weight_decay=0.0)
        params, slots = plain.update(before[0], gradient, before[1], step + 1, settings)
        self.compare(f"{net.name} update", self.ops.download(net.params), params)
        for slot, expected in slots.items():
            self.compare(f"{net.name} update", self.ops.download(optimizer.slots[slot]), expected)

    def state(self, optimizer: Optimizer) -> tuple[np.ndarray, plain.Slots]:
        """Parameters and slots of a network, as they stand, in float64."""
        slots = {name: np.asarray(self.ops.download(slot), np.float64) for name, slot in optimizer.slots.items()}
        return np.asarray(self.ops.download(optimizer.net.params), np.float64), slots

    def rows_of(self, step: int) -> list[int]:
        """Of the data, those that a step takes."""
        training = self.training
        epoch, k = divmod(step, training.steps_per_epoch)
        rows = plain.order(len(self.data), self.seed, epoch)[k * ROWS : (k + 1) * ROWS]
        return rows

    def run(self) -> dict[str, float]:
        """The largest error of each part."""
        for step in range(STEPS):
            if step == STEPS // 2:  # a callback may set another rate on the way
                self.settings = replace(self.settings, learning_rate=self.settings.learning_rate / 3)
                self.training.set_learning_rate(self.settings.learning_rate)
            self.step(step)
            counted = int(self.ops.download(self.training.counter)[0])
            kept = self.ops.download(self.training.ring)[step]
            self.compare("count of steps", counted, step + 1)
            self.compare("kept losses", kept, self.ops.download(self.training.losses))
        return self.errors

    def step(self, step: int) -> None:
        raise NotImplementedError


def _weights(net: Network) -> plain.Net:
    state = {key: value.astype(np.float64) for key, value in net.state().items()}
    return [(state[f"{layer.name}.W"], state[f"{layer.name}.b"]) for layer in net.layers]


def _gradient(net: Network) -> np.ndarray:
    parts = [part for layer in net.layers for part in layer.grads.values()]
    return np.concatenate([np.asarray(net.ops.download(part), np.float64).ravel() for part in parts])


class _GanSteps(_Steps):
    model = "gan"
    training: GanStep

    def __init__(
        self, ops: Backend, seed: int, hidden: str, init: str, settings: OptimizerSettings, number: int
    ) -> None:
        super().__init__(ops, seed, hidden, init, settings)
        self.output = ("tanh", "sigmoid", "linear")[number % 3]
        self.loss = GAN_LOSSES[number % len(GAN_LOSSES)]
        nets = self.networks(
            generator=((LATENT, *HIDDEN, COLUMNS), self.output), discriminator=((COLUMNS, *HIDDEN[::-1], 1), "linear")
        )
        self.training = GanStep(
            ops,
            nets[0],
            nets[1],
            self.data,
            batch_size=ROWS,
            settings=settings,
            loss=self.loss,
            seed=self.seed,
            scale=2 / 255,
            shift=-1.0,
        )

    def step(self, step: int) -> None:
        training, out = self.training, lambda buffer: np.asarray(self.ops.download(buffer), np.float64)
        generator, discriminator = _weights(training.generator), _weights(training.discriminator)
        before = self.state(training.generator_optimizer), self.state(training.discriminator_optimizer)
        training.compute(ROWS)
        noise, real = out(training.noise), out(training.real_rows)
        self.compare("rows", real, self.data[self.rows_of(step)] / 127.5 - 1)
        self.compare("noise", noise, plain.normals(noise.shape, self.seed, plain.NOISE, step))
        loss_d, gradient = plain.gan_discriminator(
            generator, discriminator, real, noise[:ROWS], self.hidden, self.output, self.loss
        )
        losses = out(training.losses)
        self.compare("discriminator loss", losses[0], loss_d, least=1)
        self.compare("discriminator gradient", _gradient(training.discriminator), plain.flat(gradient), least=0.01)
        self.compare_update(training.discriminator_optimizer, before[1], step)
        loss_g, gradient = plain.gan_generator(
            generator, _weights(training.discriminator), noise[ROWS:], self.hidden, self.output, self.loss
        )
        self.compare("generator loss", losses[1], loss_g, least=1)
        self.compare("generator gradient", _gradient(training.generator), plain.flat(gradient), least=0.01)
        self.compare_update(training.generator_optimizer, before[0], step)
        self.compare("reported losses", training.report(losses[None])[0], [losses[0], losses[1]])


class _VaeSteps(_Steps):
    model = "vae"
    training: VaeStep

    def __init__(
        self, ops: Backend, seed: int, hidden: str, init: str, settings: OptimizerSettings, number: int
    ) -> None:
        super().__init__(ops, seed, hidden, init, settings)
        self.variant = VAES[number % len(VAES)]
        nets = self.networks(
            encoder=((COLUMNS, *HIDDEN, 2 * LATENT), "linear"), decoder=((LATENT, *HIDDEN[::-1], COLUMNS), "linear")
        )
        self.training = _vae_step(ops, nets[0], nets[1], self.data, self.variant, settings, self.seed)

    def variance(self) -> np.ndarray:
        """Of each column, before the step."""
        if (noise := self.training.likelihood.noise) is None:
            return np.full(COLUMNS, self.training.likelihood.variance)
        logvar = np.asarray(self.ops.download(noise.layers[0].params["logvar"]), np.float64)
        return np.exp(np.broadcast_to(logvar, (COLUMNS,)))

    def expected(self, x: np.ndarray, eps: np.ndarray, step: int) -> plain.VaeGradient:
        """By the formulas, at the numbers of the step."""
        encoder, decoder = self.before
        told, common = self.variant, {"blocks": self.variant.get("blocks", ())}
        if "draws" in told:
            return plain.iwae(encoder, decoder, x, eps, self.hidden, told["likelihood"], self.of_noise, **common)
        warm = told.get("kl_warmup", 0) * self.training.steps_per_epoch
        beta = told["beta"] * min(1, step / warm) if warm else told["beta"]
        common |= {"free_bits": told.get("free_bits", 0.0)}
        return plain.vae(encoder, decoder, x, eps, self.hidden, told["likelihood"], self.of_noise, beta, **common)

    def step(self, step: int) -> None:
        training, out = self.training, lambda buffer: np.asarray(self.ops.download(buffer), np.float64)
        self.before, self.of_noise = (_weights(training.encoder), _weights(training.decoder)), self.variance()
        before = [self.state(optimizer) for optimizer in training.optimizers]
        chosen = self.rows_of(step)
        rows, draws = len(chosen), self.variant.get("draws", 1)
        training.compute(rows)
        x, eps = out(training.x)[:rows], out(training.eps)[: draws * rows]
        self.compare("rows", x, self.data[chosen] / 255)
        self.compare("noise", eps, plain.normals(eps.shape, self.seed, plain.LATENT, step))
        expected = self.expected(x, eps, step)
        reconstruction, kl, third = expected.terms
        losses = out(training.losses)
        self.compare("reconstruction", losses[0], reconstruction, least=1)
        self.compare("KL", losses[1], kl, least=1)
        if len(losses) == 3:
            self.compare("bound" if draws > 1 else "penalty", losses[2], third, least=1)
        total = third if draws > 1 else reconstruction + third
        self.compare("reported losses", training.report(losses[None])[0], [total, reconstruction, kl], least=1)
        self.compare("decoder gradient", _gradient(training.decoder), plain.flat(expected.decoder), least=0.01)
        self.compare("encoder gradient", _gradient(training.encoder), plain.flat(expected.encoder), least=0.01)
        if (noise := training.likelihood.noise) is not None:
            learned, wanted = _gradient(noise), expected.logvar
            if self.variant["likelihood"] == "mixed":
                wanted = np.where(np.repeat(self.variant["blocks"], self.variant["blocks"]) == 1, wanted, 0)
            self.compare("variance gradient", learned, wanted if len(learned) > 1 else wanted.sum())
        for optimizer, state in zip(training.optimizers, before, strict=True):
            self.compare_update(optimizer, state, step)

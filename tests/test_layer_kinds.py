"""Every kind of hidden layer in whole steps of both models: gradients against PyTorch's autograd, inference, files."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.gradcheck_steps import Gradient, _loss_along
from minigen.gradcheck_tools import differences, relative_error
from minigen.models.dropout import Dropout
from minigen.models.gan import GanStep
from minigen.models.hidden import Hidden, dense_layers
from minigen.models.layers import Context, Dense
from minigen.models.maxout import Maxout
from minigen.models.network import Network
from minigen.models.normalization import EPS, BatchNorm, LayerNorm
from minigen.models.optimizer import OptimizerSettings
from minigen.models.self_gated import SelfGated
from minigen.models.spectral_norm import SpectralDense
from minigen.models.vae import VaeStep
from minigen.reference import random
from minigen.reference_backend import NumpyBackend
from models import blobs

B, SEED = 6, 77
KINDS = {
    "batch": (Hidden("batch"), "relu"),
    "layer": (Hidden("layer"), "tanh"),
    "batch, gelu": (Hidden("batch"), "gelu"),
    "layer, silu, dropout": (Hidden("layer", dropout=0.3), "silu"),
    "elu, dropout": (Hidden(dropout=0.4), "elu"),
    "gelu": (Hidden(), "gelu"),
    "maxout, dropout": (Hidden(dropout=0.25, maxout=3), "relu"),
    "spectral": (Hidden(spectral_norm=True), "leaky_relu"),
    "all": (Hidden("batch", 0.2, 2, True), "silu"),
}
"""Of the discriminator and both networks of the VAE; the generator has normalization and activation alone."""


def tolerance(backend: Any) -> float:
    return 1e-9 if backend.dtype == np.float64 else 2e-4


def gan_step(ops: Any, options: Hidden, activation: str, rows: int = 40, seed: int = SEED) -> GanStep:
    generator = dense_layers((4, 5, 8, 7), activation, "tanh", Hidden(options.normalization))
    discriminator = dense_layers((7, 8, 5, 1), activation, "linear", options, len(generator))
    G, D = Network(ops, "generator", generator), Network(ops, "discriminator", discriminator)
    G.initialize(seed, "auto", 0)
    D.initialize(seed, "auto", len(generator))
    for net in (G, D):
        stir(ops, net, seed)
    settings = OptimizerSettings(learning_rate=1e-3)
    return GanStep(ops, G, D, blobs(rows, 7), batch_size=B, settings=settings, seed=seed, scale=2 / 255, shift=-1.0)


def vae_step(ops: Any, options: Hidden, activation: str, rows: int = 40, seed: int = SEED) -> VaeStep:
    encoder = dense_layers((7, 8, 5, 6), activation, "linear", options)
    decoder = dense_layers((3, 5, 8, 7), activation, "linear", options, len(encoder))
    E, P = Network(ops, "encoder", encoder), Network(ops, "decoder", decoder)
    E.initialize(seed, "auto", 0)
    P.initialize(seed, "auto", len(encoder))
    for net in (E, P):
        stir(ops, net, seed)
    settings = OptimizerSettings(learning_rate=1e-3)
    return VaeStep(ops, E, P, blobs(rows, 7), batch_size=B, settings=settings, seed=seed, scale=1 / 255, beta=0.7)


def stir(ops: Any, net: Network, seed: int) -> None:
    """Move all parameters, so that no bias is 0 and no gamma 1."""
    rng = np.random.default_rng(seed)
    state = {
        key: value + 0.2 * rng.normal(size=value.shape) * ("running" not in key) for key, value in net.state().items()
    }
    net.load_state({key: value.astype(np.float32) for key, value in state.items()})


class Autograd:
    """A network in PyTorch, from the weights, masks and running values of one here, in training mode."""

    def __init__(self, net: Network, step: int) -> None:
        self.torch = pytest.importorskip("torch")
        self.net, self.step = net, step
        state = {key: self.torch.tensor(np.asarray(value, np.float64)) for key, value in net.state().items()}
        self.state = {key: v.requires_grad_("running" not in key and not key.endswith("u")) for key, v in state.items()}

    def __call__(self, x: Any, first_row: int = 0) -> Any:
        for layer in self.net.layers:
            x = self.layer(layer, x, first_row)
        return x

    def layer(self, layer: Any, x: Any, first_row: int) -> Any:
        torch, F = self.torch, self.torch.nn.functional
        p = {key.rpartition(".")[2]: value for key, value in self.state.items() if key.startswith(layer.name + ".")}
        if isinstance(layer, SpectralDense):
            W, u = p["W"], p["u"]
            v = F.normalize(W.detach() @ u, dim=0)
            u.copy_(F.normalize(v @ W.detach(), dim=0))
            x = x @ (W / (v @ W @ u.clone())) + p["b"]
        elif isinstance(layer, Dense):
            x = x @ p["W"] + p["b"]
        elif isinstance(layer, BatchNorm):
            args = (p["running_mean"], p["running_var"], p["gamma"], p["beta"])
            x = F.batch_norm(x, *args, training=True, momentum=0.1, eps=EPS)
        elif isinstance(layer, LayerNorm):
            x = F.layer_norm(x, x.shape[1:], p["gamma"], p["beta"], EPS)
        elif isinstance(layer, SelfGated):
            return F.silu(x) if layer.kind == "silu" else F.gelu(x, approximate="tanh")
        elif isinstance(layer, Maxout):
            return x.reshape(len(x), layer.pieces, -1).max(dim=1).values
        elif isinstance(layer, Dropout):
            shape = (first_row + len(x), x.shape[1])
            u = random.uniform(shape, SEED, layer.stream, self.step, np.float64)[first_row:]
            return x * torch.tensor((u >= layer.rate) / (1 - layer.rate))
        known = {"linear": lambda t: t, "relu": F.relu, "tanh": torch.tanh, "elu": F.elu}
        return {**known, "leaky_relu": lambda t: F.leaky_relu(t, 0.2)}[layer.activation](x)

    def gradients(self, loss: Any) -> dict[str, np.ndarray]:
        keys = [key for key, value in self.state.items() if value.requires_grad]
        found = self.torch.autograd.grad(loss, [self.state[key] for key in keys])
        return {key: g.numpy() for key, g in zip(keys, found, strict=True)}


def assert_gradients(net: Network, expected: dict[str, np.ndarray]) -> None:
    allowed = tolerance(net.ops)
    size = max(np.abs(g).max() for g in expected.values())
    for layer in net.layers:
        for part, gradient in layer.grads.items():
            ours = net.ops.download(gradient)
            np.testing.assert_allclose(
                ours,
                expected[f"{layer.name}.{part}"],
                rtol=allowed,
                atol=allowed * size,
                err_msg=f"{layer.name}.{part}",
            )


def assert_running(net: Network, autograd: Autograd) -> None:
    for key, value in net.state().items():
        if "running" in key or key.endswith(".u"):
            expected = autograd.state[key].detach().numpy()
            np.testing.assert_allclose(value, expected, rtol=tolerance(net.ops), atol=1e-5, err_msg=key)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gan_step_against_autograd(backend, kind):
    """Both players, statistics of each batch of B rows apart; the generator's own half alone has its gradient."""
    torch = pytest.importorskip("torch")
    step = gan_step(backend, *KINDS[kind])
    G, D = (Autograd(net, 0) for net in step.networks)
    noise = torch.tensor(random.normal((2 * B, 4), SEED, random.NOISE, 0, np.float64))
    softplus = torch.nn.functional.softplus
    for net in step.networks:
        backend.upload(np.full(net.grads.shape, np.nan, backend.dtype), out=net.grads)
    step.generate()
    step.discriminator_gradient()
    fakes = [G(half, first) for half, first in zip(noise.split(B), (0, B), strict=True)]
    real = torch.tensor(np.asarray(backend.download(step.real_rows), np.float64))
    if KINDS[kind][0].spectral_norm:  # one pass: the vectors of the iteration move once, not once a half
        u = {key: value.clone() for key, value in D.state.items() if key.endswith("u")}
    s_real = D(real)
    if KINDS[kind][0].spectral_norm:
        for key, value in u.items():
            D.state[key].copy_(value)
    s_fake = D(fakes[0].detach(), B)
    assert_gradients(step.discriminator, D.gradients(softplus(-s_real).mean() + softplus(s_fake).mean()))
    step.generator_gradient()
    assert_gradients(step.generator, G.gradients(softplus(-D(fakes[1], B)).mean()))
    assert_running(step.generator, G)
    assert_running(step.discriminator, D)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [B, 2])
def test_a_vae_step_against_autograd(backend, kind, rows):
    torch = pytest.importorskip("torch")
    step = vae_step(backend, *KINDS[kind])
    E, P = (Autograd(net, 0) for net in step.networks)
    for net in step.networks:
        backend.upload(np.full(net.grads.shape, np.nan, backend.dtype), out=net.grads)
    step.gradient(rows)
    x = torch.tensor(np.asarray(backend.download(step.x[:rows]), np.float64))
    eps = torch.tensor(random.normal((rows, 3), SEED, random.LATENT, 0, np.float64))
    mu, logvar = E(x).split(3, dim=1)
    kl = (mu**2 + logvar.exp() - 1 - logvar).sum() / 2
    out = P(mu + (logvar / 2).exp() * eps)
    loss = (torch.nn.functional.binary_cross_entropy_with_logits(out, x, reduction="sum") + 0.7 * kl) / rows
    keys = {**E.state, **P.state}
    keys = {key: value for key, value in keys.items() if value.requires_grad}
    found = dict(zip(keys, torch.autograd.grad(loss, list(keys.values())), strict=True))
    for net, autograd in ((step.encoder, E), (step.decoder, P)):
        assert_gradients(net, {key: g.numpy() for key, g in found.items() if key.startswith(net.name)})
        assert_running(net, autograd)


@pytest.mark.parametrize("kind", ["batch", "layer, silu, dropout"])
def test_a_captured_step_does_what_its_calls_do(backend, kind):
    """Fused on devices that fuse; also the running statistics."""
    one, other = (gan_step(backend, *KINDS[kind]) for _ in range(2))
    backend.capture(lambda: one.compute(B)).run(2)
    for _ in range(2):
        other.compute(B)
    for a, b in zip(one.networks, other.networks, strict=True):
        for key, value in a.state().items():
            np.testing.assert_allclose(value, b.state()[key], rtol=1e-3, atol=1e-4, err_msg=key)


def test_a_generator_of_batches_against_differences():
    """The second batch's gradient, though the first moves the running statistics too."""
    step = gan_step(NumpyBackend(np.float64), Hidden("batch"), "softplus")

    def compute() -> None:
        step.generate()
        step.generator_gradient()

    gradient = Gradient("gan", "G", compute, lambda: float(step.losses[1]), (step.generator,))
    compute()
    derived = step.generator.grads.copy()
    directions = np.random.default_rng(0).normal(size=(4, len(derived)))
    along = differences(_loss_along(gradient, step.generator, directions), np.zeros(4))
    assert relative_error(directions @ derived, along) < 1e-6


# --- workspaces ---------------------------------------------------------------------------------------------


def test_rows_of_a_workspace_are_whole_batches():
    net = Network(NumpyBackend(), "net", [BatchNorm(3, "relu")])
    work = net.workspace(12, grad_rows=4, context=Context(training=True, groups=3))
    assert work.rows(4, 12)[0].mean.shape == (2, 3) and work.rows(8, 12)[0].dz.shape == (4, 3)
    assert work.rows(0, 2)[0].mean.shape == (1, 3), "fewer rows are a smaller batch"
    with pytest.raises(ValueError, match="rows 2 to 6 are no whole batches of 4 rows"):
        work.rows(2, 6)
    with pytest.raises(ValueError, match="no 3 whole batches"):
        net.workspace(12, grad_rows=5, context=Context(training=True, groups=3))
    with pytest.raises(ValueError, match="in training alone"):
        net.layers[0].param_gradients(np.zeros((2, 3), np.float32), net.workspace(2)[0])


def test_layers_say_what_they_are():
    layers = dense_layers((4, 6, 1), "gelu", "linear", Hidden("batch", 0.5, 2, True))
    assert [str(layer) for layer in layers] == [
        "spectral norm, W (4, 12), b (12,), linear",
        "batch norm, gamma (12,), beta (12,), linear",
        "maxout of 2",
        "dropout 0.5",
        "spectral norm, W (6, 1), b (1,), linear",
    ]
    names = [type(layer).__name__ for layer in dense_layers((4, 6, 1), "gelu", "linear", Hidden("layer"))]
    assert names == ["Dense", "LayerNorm", "SelfGated", "Dense"]


def test_first_weights_are_those_for_what_follows():
    for options, activation in ((Hidden("batch"), "relu"), (Hidden(), "gelu"), (Hidden(maxout=2), "tanh")):
        dense = dense_layers((50, 40, 1), activation, "linear", options)[0]
        W = dense.initial(1, "auto", 0, np.float64)["W"]
        np.testing.assert_allclose(W.var(), 2 / 50, rtol=0.1)


# --- the estimators -----------------------------------------------------------------------------------------

GAN_SETTINGS: list[dict[str, Any]] = [
    {"normalization": "batch", "activation": "relu"},
    {"normalization": "layer", "normalization_discriminator": "batch", "dropout": 0.2, "ema": 0.9, "pack": 4},
    {"normalization": "batch", "maxout": 3, "spectral_norm": True, "dropout": 0.3, "ema": 0.9, "activation": "gelu"},
]
VAE_SETTINGS: list[dict[str, Any]] = [
    {"normalization": "batch", "activation": "silu"},
    {"normalization": "layer", "dropout": 0.2, "activation": "elu"},
]
MODELS = [(minigen.GAN, settings) for settings in GAN_SETTINGS] + [(minigen.VAE, settings) for settings in VAE_SETTINGS]
SMALL: dict[str, Any] = {"hidden": (9, 6), "latent_dim": 4, "batch_size": 16, "seed": 5, "precision": "auto"}


@pytest.mark.parametrize("device", ["numpy", "cpu"])
@pytest.mark.parametrize(("family", "settings"), MODELS)
def test_the_same_bits_after_a_file(tmp_path, family, settings, device):
    if device == "cpu":
        pytest.importorskip("minigen.cpu", reason="no compiled backend", exc_type=ImportError)
    data, quiet = blobs(50, 7), {"progress": False}
    whole = family(**SMALL, **settings, epochs=4, device=device).fit(data, **quiet)
    half = family(**SMALL, **settings, epochs=2, device=device).fit(data, **quiet)
    half.save(tmp_path / "half")
    again = minigen.load(tmp_path / "half", device=device).partial_fit(data, epochs=2, **quiet)
    for a, b in zip(whole.networks_, again.networks_, strict=True):
        for key, value in a.state().items():
            np.testing.assert_array_equal(value, b.state()[key], err_msg=key)
    np.testing.assert_array_equal(whole.sample(9, seed=3), again.sample(9, seed=3))


@pytest.mark.parametrize(("family", "settings"), MODELS)
def test_inference_is_a_row_at_a_time(family, settings):
    """No mask, no statistics of the rows asked about, and nothing of the model changes."""
    data = blobs(50, 7)
    model = family(**SMALL, **settings, epochs=2, device="numpy").fit(data, progress=False)
    before = [net.state() for net in model.networks_]
    judge, size = (model.discriminate, model.pack) if family is minigen.GAN else (model.encode, 1)
    data = data[: 50 - 50 % size]
    apart = [judge(data[i : i + size]) for i in range(0, len(data), size)]
    np.testing.assert_allclose(np.concatenate(apart), judge(data), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.sample(3, seed=1), model.sample(8, seed=1)[:3])
    for state, net in zip(before, model.networks_, strict=True):
        for key, value in net.state().items():
            np.testing.assert_array_equal(value, state[key], err_msg=key)


def test_running_statistics_approach_those_of_the_data():
    """Of a network that does not change: then training's outputs and inference's agree on average."""
    ops = NumpyBackend(np.float64)
    net = Network(ops, "net", [BatchNorm(3, "linear")])
    net.initialize(1, "auto", 0)
    x = np.random.default_rng(0).normal([1, -5, 30], [0.1, 4, 9], (20_000, 3))
    work = net.workspace(100, context=Context(training=True))
    for rows in x.reshape(-1, 100, 3):
        net.forward(rows, work)
    y = net.forward(x, net.workspace(len(x)))
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=0.15)
    np.testing.assert_allclose(y.std(axis=0), 1, atol=0.15)


def test_a_last_batch_of_one_row_is_left_out():
    data = blobs(33, 7)
    steps = {
        value: len(
            minigen.VAE(**SMALL, normalization=value, epochs=1, device="numpy").fit(data, progress=False).history_.rows
        )
        for value in (None, "batch")
    }
    assert steps == {None: 3, "batch": 2}


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        (minigen.GAN, {"normalization": "group"}, "normalization must be one of None, 'batch', 'layer', not 'group'"),
        (minigen.GAN, {"normalization_discriminator": 1}, "normalization_discriminator must be one of"),
        (
            minigen.VAE,
            {"normalization": "batch", "batch_size": 1},
            "normalization must not be 'batch' with batch_size=1",
        ),
        (
            minigen.GAN,
            {"normalization_discriminator": "batch", "batch_size": 1},
            "normalization_discriminator must not",
        ),
        (minigen.GAN, {"normalization_discriminator": "batch", "batch_size": 4, "pack": 4}, "one row has no variance"),
        (minigen.VAE, {"dropout": 1.0}, r"dropout must be a finite number in \[0, 1\), not 1.0"),
        (minigen.GAN, {"dropout": -0.1}, "dropout must be"),
        (minigen.GAN, {"maxout": 1}, "maxout must be an integer of at least 2, not 1"),
        (minigen.GAN, {"spectral_norm": "yes"}, "spectral_norm must be one of True, False"),
        (minigen.VAE, {"activation": "swish"}, "activation must be one of .*'gelu', 'silu', not 'swish'"),
    ],
)
def test_bad_values_are_refused(family, settings, message):
    with pytest.raises(ValueError, match=message):
        family(**{"device": "numpy", **settings}).fit(blobs(40, 7))


def test_the_kinds_of_a_trained_model_stay():
    model = minigen.GAN(**SMALL, normalization="batch", epochs=1, device="numpy").fit(blobs(50, 7), progress=False)
    with pytest.raises(ValueError, match="normalization must stay 'batch' in partial_fit, not None"):
        model.set_params(normalization=None).partial_fit(blobs(50, 7))


def test_a_running_statistic_that_is_not_finite_is_named(tmp_path):
    model = minigen.VAE(**SMALL, normalization="batch", epochs=1, device="numpy").fit(blobs(50, 7), progress=False)
    model.encoder_.layers[1].running["running_var"][2] = math.inf
    assert model._training(blobs(50, 7)).step.first_non_finite(16) is not None
    with pytest.raises(ValueError, match=r"encoder\.1\.running_var must be finite"):
        model.save(tmp_path / "model")

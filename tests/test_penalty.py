"""Penalties on the discriminator's gradient: the double backward pass against autograd, and what ``fit`` does."""

from __future__ import annotations

import numpy as np
import pytest

import minigen
from helpers import InOut, Out, assert_close, normals, relative_error
from minigen.backend import DENSE_ACTIVATIONS as ACTIVATIONS
from minigen.backend import GAN_LOSSES
from minigen.gradcheck_tools import differences
from minigen.models.conditional import Condition, with_condition_beside_input, with_projection
from minigen.models.hidden import Hidden, dense_layers
from minigen.models.layers import Context, Layer
from minigen.models.network import Network
from minigen.models.penalty import GradientPenalty
from minigen.reference import activations, dense, penalty, random
from minigen.reference_backend import NumpyBackend
from models import blobs, gan_training, run

PENALTIES = ("r1", "gradient_penalty")


def test_a_penalty_by_hand(arena):
    """|g| = 5, 1 and 0: where the norm has no derivative it is taken as 0."""
    g = np.array([[3.0, 4.0], [0.0, -1.0], [0.0, 0.0]])
    v, rows, loss = arena.call("gradient_penalty", g, Out(3, 2), Out(3), Out(1), "r1", 2.0)
    np.testing.assert_allclose(rows, [25, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(loss, [26 / 3], rtol=1e-6)
    np.testing.assert_allclose(v, 2 * g / 3, rtol=1e-6)
    v, rows, loss = arena.call("gradient_penalty", g, Out(3, 2), Out(3), Out(1), "two_sided", 2.0)
    np.testing.assert_allclose(rows, [32, 0, 2], rtol=1e-6)
    np.testing.assert_allclose(v, [[3.2, 12.8 / 3], [0, 0], [0, 0]], rtol=1e-6)


def test_nan_in_a_gradient_passes_through(arena, rng):
    g = normals(rng, 5, 7)
    g[3, 2] = np.nan
    for kind in penalty.PENALTIES:
        v, rows, loss = arena.call("gradient_penalty", g, Out(5, 7), Out(5), Out(1), kind, 1.0)
        assert np.isnan(loss[0]) and np.flatnonzero(np.isnan(rows)).tolist() == [3]
        assert np.isnan(v[3, 2]) and not np.isnan(np.delete(v, 3, axis=0)).any()


def test_wide_rows(arena, rng):
    """More columns than a block of the GPU's sum, more rows than a program has."""
    g = normals(rng, 37, 1000)
    for kind in penalty.PENALTIES:
        got = arena.call("gradient_penalty", g, Out(37, 1000), Out(37), Out(1), kind, 0.3)
        for out, expected in zip(got, penalty.penalty(g, kind, 0.3), strict=True):
            assert_close(arena.backend, out, np.atleast_1d(expected))


def test_a_curvature_is_added_to_what_is_there(arena, rng):
    dz, moved, y, before = normals(rng, 9, 33), normals(rng, 9, 33), rng.random((9, 33)), normals(rng, 9, 33)
    y = y.astype(np.float32).astype(np.float64)
    for name in ACTIVATIONS:
        (e,) = arena.call("activation_curvature", dz, moved, y, InOut(before), name, True)
        assert_close(arena.backend, e, before + activations.curvature(dz, moved, y, name), np.abs(before) + 1)


@pytest.mark.parametrize("shape", [(9, 17, 33), (128, 40, 1), (1, 5, 7), (300, 784, 65)])
def test_a_layer_without_bias(arena, rng, shape):
    B, n_in, n_out = shape
    x, W, dz, old = normals(rng, B, n_in), normals(rng, n_in, n_out), normals(rng, B, n_out), normals(rng, n_in, n_out)
    (y,) = arena.call("dense_forward", x, W, None, Out(B, n_out), "tanh")
    assert_close(arena.backend, y, dense.forward(x, W, None, "tanh"), 1, products=True)
    (dW,) = arena.call("dense_wgrad", x, dz, Out(n_in, n_out), None)
    assert_close(arena.backend, dW, x.T @ dz, np.abs(x).T @ np.abs(dz), products=True)
    (dW,) = arena.call("dense_wgrad", x, dz, InOut(old), None, True)
    assert_close(arena.backend, dW, old + x.T @ dz, np.abs(old) + np.abs(x).T @ np.abs(dz), products=True)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", PENALTIES)
def test_the_discriminators_gradient_agrees_with_autograd(backend, name, activation, rng):
    """Of loss and penalty, on random architectures, into gradients that hold NaN at first."""
    oracle = pytest.importorskip("torch_gan")
    hidden = tuple(int(n) for n in rng.integers(1, 40, rng.integers(0, 4)))
    loss, weight, B = str(rng.choice(GAN_LOSSES)), float(rng.uniform(0.1, 10)), int(rng.integers(1, 20))
    data = blobs(40, int(rng.integers(1, 40)))
    seed = int(rng.integers(2**32))
    training = gan_training(backend, data, hidden, activation, batch_size=B, seed=seed, loss=loss, **{name: weight})
    step, D = training.step, training.step.discriminator
    backend.upload(np.full(D.grads.shape, np.nan, backend.dtype), out=D.grads)
    step.generate()
    step.discriminator_gradient()
    net, rows = oracle.TorchNet(D), oracle.double(backend.download(step.real_and_fake))
    real, fake = rows[:B], rows[B:]
    if name == "r1":
        added = oracle.r1(net, real, weight)
    else:
        u = oracle.double(random.uniform((B,), seed, random.INTERPOLATION, 0, np.float64))[:, None]
        added = oracle.two_sided(net, u * real + (1 - u) * fake, weight)
    of_rows = oracle.discriminator_loss(net, real, fake, loss)
    tolerance = {"float32": 2e-5, "float64": 1e-11}[backend.dtype.name]
    oracle.assert_gradients(D, net.gradients(of_rows + added), tolerance)
    losses = backend.download(step.losses)
    np.testing.assert_allclose(losses[[0, 2]], [of_rows.item(), added.item()], rtol=tolerance, atol=tolerance)


class Cubic(Layer):
    """``y = p x + q x^3``, a factor of each for each column: a layer that is curved by itself; NumPy's arrays only."""

    no_tangent, is_curved = "", True

    @property
    def shapes(self):
        return {"p": (self.outputs,), "q": (self.outputs,)}

    def initial(self, seed, init, tensor, dtype):
        return {name: np.linspace(0.5, 1.5, self.outputs, dtype=dtype) for name in "pq"}

    def forward(self, x, stored):
        stored.y[...] = x * self.params["p"] + x**3 * self.params["q"]

    def slope(self, x):
        return self.params["p"] + 3 * x**2 * self.params["q"]

    def param_gradients(self, x, stored):
        self.grads["p"][...] = self.grads["q"][...] = 0
        self.add_param_gradients(x, stored)

    def input_gradient(self, x, stored, dx, activation):
        dx[...] = activations.backward(stored.dz * self.slope(x), x, activation)

    def tangent(self, x, x_tangent, stored, z_tangent):
        z_tangent[...] = x_tangent * self.slope(x)

    def add_tangent_gradients(self, x, x_tangent, stored):
        self.grads["p"][...] += (x_tangent * stored.dz).sum(axis=0)
        self.grads["q"][...] += (3 * x**2 * x_tangent * stored.dz).sum(axis=0)

    def add_param_gradients(self, x, stored):
        self.grads["p"][...] += (x * stored.dz).sum(axis=0)
        self.grads["q"][...] += (x**3 * stored.dz).sum(axis=0)

    def curvature(self, x, x_tangent, stored, dx, activation, accumulate):
        term = activations.backward(stored.dz * x_tangent * 6 * x * self.params["q"], x, activation)
        dx[...] = dx + term if accumulate else term


def made_of(kind: str, hidden: str) -> list[Layer]:
    """A discriminator of 5 inputs with layers of some kind in it."""
    first, second, head = dense_layers((5, 4, 3, 1), hidden, "linear")
    dense = [first, second, head]
    labels, numbers = Condition(3, True), Condition(2, False)
    return {
        "dense": dense,
        "a curved layer": [first, second, Cubic(3, 3, "linear"), head],
        "curved layers": [Cubic(5, 5, "linear"), first, Cubic(4, 4, "linear"), second, head],
        "layer norm": dense_layers((5, 4, 3, 1), hidden, "linear", Hidden(normalization="layer")),
        "dropout": dense_layers((5, 9, 8, 1), hidden, "linear", Hidden(dropout=0.3)),
        "labels": with_condition_beside_input(dense, labels),
        "numbers": with_condition_beside_input(dense, numbers),
        "projection of labels": with_projection(dense, labels),
        "projection of numbers": with_projection(dense, numbers),
    }[kind]


KINDS = ("dense", "a curved layer", "curved layers", "layer norm", "dropout", "labels", "numbers")
KINDS += ("projection of labels", "projection of numbers")


@pytest.mark.parametrize("hidden", ["leaky_relu", "tanh"])
@pytest.mark.parametrize("kind", KINDS)
def test_through_every_kind_of_layer(kind, hidden, rng):
    """Against differences of the penalty along random directions."""
    ops = NumpyBackend(np.float64)
    net = Network(ops, "net", made_of(kind, hidden))
    net.initialize(int(rng.integers(2**32)), "auto", 0)
    for parameter in net._split(net.params).values():
        parameter += 0.1 * rng.normal(size=parameter.shape)
    condition = rng.normal(size=(6, 2)) if "numbers" in kind else rng.integers(0, 3, 6, np.int32)
    counter = np.zeros(1, np.uint64)
    context = Context(training=True, condition=condition, counter=counter, seed=int(rng.integers(2**32)))
    x, work, loss = rng.normal(size=(6, 5)), net.workspace(6, context=context), np.zeros(1)
    start, directions = net.params.copy(), np.zeros((4, net.params.size))
    for direction in directions:
        for part in net._split(direction).values():
            part[...] = rng.normal(size=part.shape) / 5
    for penalised in penalty.PENALTIES:
        added = GradientPenalty(ops, net, x, work, penalised, 0.7)

        def along(far, added=added):
            net.params[...] = start + far @ directions
            net.forward(x, work)
            added.add_gradient(loss)
            net.params[...] = start
            return loss[0]

        net.grads[...] = 0
        along(np.zeros(4))
        derived = directions @ net.grads
        assert relative_error(derived, differences(along, np.zeros(4), 1e-6)) < 1e-5  # a kink so near is rare


def test_layer_normalization_against_autograd(backend, rng):
    """The operations of its second derivative on every device, in one network, with gradients that hold something."""
    torch = pytest.importorskip("torch")
    oracle = pytest.importorskip("torch_gan")
    B, width = int(rng.integers(2, 30)), int(rng.integers(3, 70))
    net = Network(backend, "net", dense_layers((5, width, 1), "tanh", "linear", Hidden(normalization="layer")))
    net.initialize(int(rng.integers(2**32)), "auto", 0)
    state = {key: value + 0.1 * rng.normal(size=value.shape) for key, value in net.state().items()}
    net.load_state(state)
    p = {key: oracle.double(value).requires_grad_() for key, value in net.state().items()}
    x = rng.normal(size=(B, 5)).astype(np.float32)

    def logit(x):
        z = x @ p["net.0.W"] + p["net.0.b"]
        y = torch.tanh(torch.nn.functional.layer_norm(z, (width,), p["net.1.gamma"], p["net.1.beta"], 1e-5))
        return y @ p["net.2.W"] + p["net.2.b"]

    work, loss = net.workspace(B), backend.upload(np.zeros(1, backend.dtype))
    rows = backend.upload(x.astype(backend.dtype))
    added = GradientPenalty(backend, net, rows, work, "r1", 3.0)
    backend.upload(np.ones(net.grads.shape, backend.dtype), out=net.grads)
    net.forward(rows, work)
    added.add_gradient(loss)
    expected = oracle.r1(logit, oracle.double(x), 3.0)
    found = torch.autograd.grad(expected, list(p.values()), allow_unused=True)
    wanted = {k: np.ones(v.shape) + (0 if g is None else g.numpy()) for (k, v), g in zip(p.items(), found, strict=True)}
    tolerance = {"float32": 1e-4, "float64": 1e-10}[backend.dtype.name]
    oracle.assert_gradients(net, wanted, tolerance)
    assert float(backend.download(loss)[0]) == pytest.approx(expected.item(), rel=tolerance)


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("activation", ["leaky_relu", "softplus"])
def test_a_training_follows_the_float64_reference(backend, name, activation):
    """As a captured step, fused where the backend does that: 40 steps, with Adam."""
    settings = {"activation": activation, "hidden": (16, 9), "learning_rate": 1e-3, name: 3.0}
    ours, reference = (gan_training(ops, blobs(), **settings) for ops in (backend, NumpyBackend(np.float64)))
    run(ours, 40)
    run(reference, 40)
    np.testing.assert_allclose(ours.recent_losses(40), reference.recent_losses(40), rtol=1e-3, atol=1e-3)
    for a, b in zip(ours.step.networks, reference.step.networks, strict=True):
        assert relative_error(backend.download(a.params), b.params) < 1e-3


SMALL = {"hidden": (8,), "latent_dim": 4, "batch_size": 16, "epochs": 2, "learning_rate": 1e-3}


@pytest.mark.parametrize("name", PENALTIES)
def test_an_estimator_with_a_penalty_goes_on_bit_for_bit(name, tmp_path):
    data = blobs(64, 6)
    whole = minigen.GAN(**{**SMALL, "epochs": 4}, **{name: 5.0}).fit(data)
    half = minigen.GAN(**SMALL, **{name: 5.0}).fit(data)
    assert list(half.history_.losses) == ["discriminator", "generator", "penalty"]
    half.save(tmp_path / "half.safetensors")
    loaded = minigen.load(tmp_path / "half.safetensors")
    assert getattr(loaded, name) == 5.0
    loaded.partial_fit(data)
    np.testing.assert_array_equal(loaded.history_.losses["penalty"], whole.history_.losses["penalty"])
    np.testing.assert_array_equal(loaded.sample(5, seed=1), whole.sample(5, seed=1))
    loaded.set_params(**{name: 1.0})
    with pytest.raises(ValueError, match=name):
        loaded.partial_fit(data)


def test_the_penalties_do_what_they_are_for():
    """R1 holds the gradient at real rows small, the two-sided one holds its norm near 1."""
    data = blobs(256, 8)
    settings = {**SMALL, "epochs": 60, "hidden": (32,), "optimizer": "adam"}
    free, held = (minigen.GAN(**settings, r1=r1).fit(data) for r1 in (0.0, 10.0))

    def norms(model):
        x = model._to_model(data)
        work = model.discriminator_.workspace(len(x))
        measured = GradientPenalty(model._ops, model.discriminator_, x, work, "r1", 1.0)
        model.discriminator_.forward(x, work)
        measured.add_gradient(np.zeros(1, np.float32))
        return np.linalg.norm(measured.g, axis=1)

    assert norms(held).mean() < 0.5 * norms(free).mean()
    lipschitz = minigen.GAN(**settings, gradient_penalty=10.0, loss="wasserstein").fit(data)
    assert 0.7 < norms(lipschitz).mean() < 1.3


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, "10", None])
def test_a_bad_weight_is_refused(name, value):
    with pytest.raises((TypeError, ValueError), match=name):
        minigen.GAN(**SMALL, **{name: value}).fit(blobs(64, 6))


def test_both_penalties_at_once_are_refused():
    with pytest.raises(ValueError, match="gradient_penalty must be 0 with r1"):
        minigen.GAN(**SMALL, r1=1.0, gradient_penalty=10.0).fit(blobs(64, 6))


def test_a_layer_that_has_no_tangent_is_refused_with_the_reason(monkeypatch):
    class Plain(Cubic):
        no_tangent = "its rows depend on each other"

    layers = minigen.GAN._layers

    def with_plain(self, columns, *from_data):
        from minigen.estimators import gan

        made = lambda sizes, *rest: [Plain(1, 1, "linear"), *dense_layers(sizes, *rest)]  # noqa: E731
        monkeypatch.setattr(gan, "dense_layers", made)
        return layers(self, columns, *from_data)

    monkeypatch.setattr(minigen.GAN, "_layers", with_plain)
    model = minigen.GAN(**SMALL, r1=1.0)
    with pytest.raises(ValueError, match="r1 must be 0 with such a discriminator: its rows depend on each other"):
        model.fit(blobs(64, 6))


def test_without_a_penalty_a_step_has_two_losses(backend):
    step = gan_training(backend, blobs()).step
    assert step.loss_names == ("discriminator", "generator") and step.penalty is None

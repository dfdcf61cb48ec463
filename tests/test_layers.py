"""Networks ask their layers: what a second kind of layer needs is one class, here one that only the tests have."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import minigen
from minigen.gradcheck_steps import Gradient, _loss_along
from minigen.gradcheck_tools import differences, relative_error
from minigen.models.gan import GanStep
from minigen.models.hidden import dense_layers
from minigen.models.layers import Dense, Layer, Stored
from minigen.models.network import ALIGN, Network, Workspace, flat_size, parameter_shapes
from minigen.models.optimizer import OptimizerSettings
from minigen.models.vae import VaeStep
from minigen.reference import activations
from minigen.reference_backend import NumpyBackend
from minigen.training.run import TrainingRun
from models import blobs


class Gain(Layer):
    """``y = x * g``, a factor for each column; NumPy's arrays only."""

    @property
    def shapes(self):
        return {"g": (self.outputs,)}

    def initial(self, seed, init, tensor, dtype):
        return {"g": np.linspace(0.5, 1.5, self.outputs, dtype=dtype) + tensor}

    def forward(self, x, stored):
        stored.y[...] = x * self.params["g"]

    def param_gradients(self, x, stored):
        self.grads["g"][...] = (x * stored.dz).sum(axis=0)

    def input_gradient(self, x, stored, dx, activation):
        dx[...] = activations.backward(stored.dz * self.params["g"], x, activation)


def with_gain(sizes: tuple[int, ...], hidden: str, output: str) -> list[Layer]:
    """Dense layers with a gain between every two, and one at the input."""
    layers: list[Layer] = []
    for dense in dense_layers(sizes, hidden, output):
        layers += [Gain(dense.inputs, dense.inputs, "linear"), dense]
    return layers


def steps(ops) -> list[Gradient]:
    """The losses of both models with networks of two kinds of layers."""
    data, settings = blobs(20, 7), OptimizerSettings()
    nets = {
        "generator": with_gain((4, 5, 7), "softplus", "tanh"),
        "discriminator": with_gain((7, 3, 1), "softplus", "linear"),
        "encoder": with_gain((7, 5, 6), "tanh", "linear"),
        "decoder": with_gain((3, 5, 7), "tanh", "linear"),
    }
    G, D, E, P = (Network(ops, name, layers) for name, layers in nets.items())
    for i, net in enumerate((G, D, E, P)):
        net.initialize(3, "auto", 10 * (i % 2))
        net.params *= 0.5 if i % 2 == 0 else 0.1
    gan = GanStep(ops, G, D, data, batch_size=6, settings=settings, seed=5, scale=2 / 255, shift=-1.0)
    vae = VaeStep(ops, E, P, data, batch_size=6, settings=settings, seed=5, scale=1 / 255, beta=0.7)
    loss = lambda step, i: float(step.losses[i])  # noqa: E731

    def both(*parts):
        return lambda: [part() for part in parts]

    return [
        Gradient("gan", "D", both(gan.generate, gan.discriminator_gradient), lambda: loss(gan, 0), (D,)),
        Gradient("gan", "G", both(gan.generate, gan.generator_gradient), lambda: loss(gan, 1), (G,)),
        Gradient("vae", "both", lambda: vae.gradient(6), lambda: loss(vae, 0) + 0.7 * loss(vae, 1), (E, P)),
    ]


@pytest.mark.parametrize("number", range(3))
def test_gradients_through_another_kind_of_layer(number, rng):
    gradient = steps(NumpyBackend(np.float64))[number]
    for net in gradient.nets:
        net.grads[...] = np.nan
    gradient.compute()
    derived = [np.nan_to_num(net.grads) for net in gradient.nets]  # the padding is nobody's
    for net, g in zip(gradient.nets, derived, strict=True):
        assert g.any()
        net.params[...] = np.where(np.isnan(net.grads), 0, net.params)
        directions = rng.normal(size=(4, len(g)))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        along = differences(_loss_along(gradient, net, directions), np.zeros(4))
        assert relative_error(directions @ g, along) < 1e-7


def test_such_a_network_trains_is_copied_and_has_its_keys():
    ops = NumpyBackend()
    layers = with_gain((7, 5, 6), "tanh", "linear"), with_gain((3, 5, 7), "tanh", "linear")
    nets = [Network(ops, name, each) for name, each in zip(("encoder", "decoder"), layers, strict=True)]
    for net in nets:
        net.initialize(1, "auto", 0)
    settings = OptimizerSettings(learning_rate=0.01)
    run = TrainingRun(VaeStep(ops, *nets, blobs(20, 7), batch_size=6, settings=settings, scale=1 / 255))
    before = nets[0].state()
    run.run(4)
    assert run.first_non_finite() is None
    state = nets[0].state()
    assert list(state) == ["encoder.0.g", "encoder.1.W", "encoder.1.b", "encoder.2.g", "encoder.3.W", "encoder.3.b"]
    assert all((state[key] != before[key]).any() for key in state)
    twin = copy.deepcopy(nets[0])
    twin.params[...] = 0
    np.testing.assert_array_equal(nets[0].state()["encoder.0.g"], state["encoder.0.g"])
    twin.load_state(state)
    np.testing.assert_array_equal(twin.params, nets[0].params)
    assert np.shares_memory(twin.layers[0].params["g"], twin.params)
    assert not np.shares_memory(twin.params, nets[0].params)
    nets[0].layers[2].params["g"][1] = np.inf
    assert run.first_non_finite() == ("weight", "encoder.2")


def test_layers_without_memory_tell_the_file_what_to_hold():
    layers = [Gain(3, 3, "linear"), Dense(3, 20, "relu")]
    assert parameter_shapes("net", layers) == {"net.0.g": (3,), "net.1.W": (3, 20), "net.1.b": (20,)}
    assert flat_size(layers) == ALIGN + 4 * ALIGN + 2 * ALIGN
    assert str(layers[1]) == "W (3, 20), b (20,), relu" and str(layers[0]) == "g (3,), linear"
    network = Network(NumpyBackend(), "net", layers)
    assert network.parameter_count == 3 + 60 + 20 and network.sizes == (3, 3, 20)
    assert not hasattr(layers[0], "params"), "a description took memory"
    with pytest.raises(ValueError, match=r"net\.1\.b must have shape \(20,\), not \(2,\)"):
        network.load_state(network.state() | {"net.1.b": np.zeros(2)})


def test_rows_of_a_workspace_that_learns_from_the_last_rows():
    y, dz = np.arange(20.0).reshape(10, 2), np.arange(8.0).reshape(4, 2)
    work = Workspace([Stored(y, dz)])
    (last,) = work.rows(6, 10)
    np.testing.assert_array_equal(last.y, y[6:])
    np.testing.assert_array_equal(last.dz, dz)
    (middle,) = work.rows(5, 8)
    np.testing.assert_array_equal(middle.dz, dz[:2])
    assert middle.y.shape == (3, 2) and np.shares_memory(middle.y, y)
    assert work.rows(0, 6)[0].dz.shape == (0, 2)


def test_a_model_in_use_has_no_buffers_of_gradients(monkeypatch):
    model = minigen.VAE(hidden=(9,), latent_dim=2, batch_size=16, epochs=1, device="numpy").fit(np.eye(16))
    made, store = [], Network.workspace
    monkeypatch.setattr(
        Network, "workspace", lambda self, *given, **named: made.append(store(self, *given, **named)) or made[-1]
    )
    model.sample(3), model.score_samples(np.eye(16))
    assert len(made) == 3 and all(len(stored.dz) == 0 for work in made for stored in work)

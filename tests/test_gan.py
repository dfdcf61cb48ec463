"""The GAN: one step against PyTorch, trajectories between backends, and the estimator."""

from __future__ import annotations

import numpy as np
import pytest

import minigen
from helpers import relative_error
from minigen.reference import random
from minigen.reference_backend import NumpyBackend
from minigen.training.run import TrainingRun
from models import blobs, gan_training, run


def torch_step(training: TrainingRun, kind: str) -> tuple[dict[str, np.ndarray], list[float], float]:
    """Both halves of one step by autograd, from the weights, rows and noise of ``training``.

    Gradients, losses, and how far from 1 the least saturated pixel is that the generator draws for its own half.
    """
    torch = pytest.importorskip("torch")
    state = {**training.step.generator.state(), **training.step.discriminator.state()}
    p = {key: torch.tensor(value, dtype=torch.float64, requires_grad=True) for key, value in state.items()}
    softplus = torch.nn.functional.softplus

    def mlp(name: str, x, last):
        count = sum(key.startswith(name) for key in p) // 2
        for i in range(count):
            x = x @ p[f"{name}.{i}.W"] + p[f"{name}.{i}.b"]
            x = torch.nn.functional.leaky_relu(x, 0.2) if i < count - 1 else last(x)
        return x

    noise = torch.tensor(
        random.normal(training.step.noise.shape, training.step.seed, random.NOISE, training.done, np.float64)
    )
    for_d, for_g = noise.split(training.step.batch_size)
    identity = lambda x: x  # noqa: E731
    real = torch.tensor(np.asarray(training.ops.download(training.step.real_rows), np.float64))
    fake = mlp("generator", for_d, torch.tanh).detach()
    loss_d = softplus(-mlp("discriminator", real, identity)).mean()
    loss_d = loss_d + softplus(mlp("discriminator", fake, identity)).mean()
    drawn = mlp("generator", for_g, torch.tanh)
    logits = mlp("discriminator", drawn, identity)
    loss_g = softplus(-logits).mean() if kind == "non_saturating" else -softplus(logits).mean()
    gradients = {}
    for name, loss in (("discriminator", loss_d), ("generator", loss_g)):
        keys = [key for key in p if key.startswith(name)]
        for key, g in zip(keys, torch.autograd.grad(loss, [p[key] for key in keys]), strict=True):
            gradients[key] = g.numpy()
    return gradients, [loss_d.item(), loss_g.item()], 1 - drawn.abs().min().item()


@pytest.mark.parametrize("kind", ["non_saturating", "minimax"])
@pytest.mark.parametrize("hidden", [(1,), (17,), (9, 33, 5)])
def test_gradients_of_a_step_agree_with_autograd(backend, kind, hidden, rng):
    tolerance = {"float32": 2e-5, "float64": 1e-12}[backend.dtype.name]
    unsaturated = 0.0
    # tanh' = (1 - y) (1 + y) has the digits of 1 - y: few, in the rare draw whose pixels are saturated one and all.
    while unsaturated < np.finfo(backend.dtype).eps / tolerance:
        training = gan_training(
            backend,
            blobs(40, int(rng.integers(1, 40))),
            hidden,
            batch_size=int(rng.integers(1, 20)),
            seed=int(rng.integers(1, 2**32)),
        )
        training.step.loss = kind
        for net in training.step.networks:
            backend.upload(np.full(net.grads.shape, np.nan, backend.dtype), out=net.grads)
        training.step.generate()
        training.step.discriminator_gradient()
        training.step.generator_gradient()
        expected, losses, unsaturated = torch_step(training, kind)
    for net in training.step.networks:
        size = max(np.abs(expected[key]).max() for key in expected if key.startswith(net.name))
        for layer in net.layers:
            for part, key in ((layer.grads["W"], f"{layer.name}.W"), (layer.grads["b"], f"{layer.name}.b")):
                np.testing.assert_allclose(backend.download(part), expected[key], rtol=tolerance, atol=tolerance * size)
    np.testing.assert_allclose(backend.download(training.step.losses), losses, rtol=tolerance)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_backends_follow_the_float64_trajectory_for_100_steps(backend, optimizer):
    """Stated tolerance: 1e-3 on the losses and on the weights after 100 steps, float32 against float64."""
    data = blobs()
    rate = 0.02 if optimizer == "sgd" else 1e-3
    ours, reference = (
        gan_training(ops, data, learning_rate=rate, optimizer=optimizer) for ops in (backend, NumpyBackend(np.float64))
    )
    run(ours, 100)
    run(reference, 100)
    np.testing.assert_allclose(ours.recent_losses(100), reference.recent_losses(100), rtol=1e-3, atol=1e-3)
    for a, b in zip(ours.step.networks, reference.step.networks, strict=True):
        assert relative_error(backend.download(a.params), b.params) < 1e-3


def test_the_generator_step_leaves_the_discriminator_alone(backend):
    training = gan_training(backend, blobs())
    before = training.step.discriminator.state()
    training.step.generate()
    training.step.generator_gradient()
    training.step.generator_optimizer.update(training.step.counter)
    for key, value in training.step.discriminator.state().items():
        np.testing.assert_array_equal(value, before[key])


def test_every_step_draws_its_own_noise_and_rows(backend):
    training = gan_training(backend, blobs())
    seen = []
    for _ in range(4):
        training.step.compute(training.step.batch_size)  # a captured step may keep its draws elsewhere
        seen += [backend.download(training.step.noise).copy(), backend.download(training.step.real_rows).copy()]
    for i in range(2, len(seen)):
        assert not np.array_equal(seen[i], seen[i - 2])


def test_an_epoch_visits_each_row_at_most_once(backend):
    data = np.arange(100, dtype=np.uint8)[:, None]
    training = gan_training(backend, data, batch_size=32)
    rows = []
    for _ in range(training.steps_per_epoch):
        training.run(1)
        rows.append(np.rint((backend.download(training.step.real_rows)[:, 0] + 1) * 127.5))
    assert len(np.unique(rows)) == 96


@pytest.fixture(scope="module")
def trained():
    return minigen.train_gan(
        blobs(300, 12).reshape(300, 3, 4),
        epochs=300,
        hidden=(32,),
        latent_dim=8,
        batch_size=64,
        learning_rate=1e-3,
        progress=False,
    )


def test_the_gan_learns_the_data(trained):
    data = blobs(300, 12)
    fakes = trained.sample(500, seed=1).reshape(500, 12)
    nearest = np.sqrt(((fakes[:, None].astype(float) - data[None]) ** 2).mean(axis=2)).min(axis=1)
    untrained = minigen.GAN(epochs=0, hidden=(32,), latent_dim=8, batch_size=64).fit(data).sample(500, seed=1)
    before = np.sqrt(((untrained[:, None].astype(float) - data[None]) ** 2).mean(axis=2)).min(axis=1)
    assert np.median(nearest) < 0.5 * np.median(before)


def test_samples_have_the_shape_and_type_of_the_data(trained):
    assert trained.sample(5, seed=3).shape == (5, 3, 4)
    assert trained.sample(5, seed=3).dtype == np.uint8
    assert trained.sample(0).shape == (0, 3, 4)
    np.testing.assert_array_equal(trained.sample(5, seed=3), trained.sample(5, seed=3))
    assert not np.array_equal(trained.sample(5), trained.sample(5)), "without a seed, each call draws anew"
    np.testing.assert_array_equal(trained.sample(2, seed=3), trained.sample(5, seed=3)[:2])


def test_discriminate_gives_probabilities(trained):
    p = trained.discriminate(blobs(30, 12).reshape(30, 3, 4))
    assert p.shape == (30,) and ((p > 0) & (p < 1)).all()


def test_interpolation_begins_and_ends_at_its_ends(trained):
    a, b = trained.latent(2, seed=5)
    way = trained.interpolate(a, b, steps=6)
    assert way.shape == (6, 3, 4)
    np.testing.assert_array_equal(way[[0, -1]], trained.generate(np.stack([a, b])))
    np.testing.assert_array_equal(trained.interpolate(1, 2, 3)[0], trained.sample(1, seed=1)[0])
    assert np.isfinite(trained.interpolate(a, -a, 3)).all() and np.isfinite(trained.interpolate(a, a, 3)).all()


@pytest.mark.parametrize(("low", "high", "output"), [(0, 1, "sigmoid"), (-1, 1, "tanh"), (-7, 5, "linear")])
def test_output_and_range_of_floating_data_agree(low, high, output, rng):
    data = rng.uniform(low, high, (50, 3))
    data[0], data[1] = low, high
    model = minigen.GAN(epochs=2, batch_size=10, hidden=4).fit(data)
    assert model.output_ == output
    assert model.generator_.output_activation == output
    assert model.sample(4).dtype == np.float32


@pytest.mark.parametrize("output", ["tanh", "sigmoid", "linear"])
def test_uint8_data_fill_the_range_of_the_output(output):
    data = np.array([[0, 255], [255, 0]], np.uint8).repeat(10, axis=0)
    model = minigen.GAN(epochs=1, batch_size=4, hidden=4, output=output).fit(data)
    rows = model._to_model(data)
    assert (rows.min(), rows.max()) == ((0, 1) if output == "sigmoid" else (-1, 1))
    np.testing.assert_array_equal(model._to_data(rows), data)

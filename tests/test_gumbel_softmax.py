"""gumbel_softmax: numbers and labels of a generator, the layer, the step, and GAN(blocks=...)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigen
from helpers import Out, f32, normals, relative_error, tolerance
from minigen.models.gumbel_softmax import GumbelSoftmax
from minigen.reference import gumbel_softmax, random
from minigen.reference_backend import NumpyBackend
from models import blobs, gan_training

WIDTHS = (1, 4, 1, 2, 1, 1, 40)
ENDS = np.cumsum(WIDTHS).astype(np.int32)
WIDTH = int(ENDS[-1])


def uniforms(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 2**24, shape) / 2**24


def by_torch(torch: Any, z: Any, u: Any, widths: Any, activation: str, temperature: float) -> Any:
    noise = -torch.log(torch.clamp(-torch.log(u + 2.0**-24), min=2.0**-25))
    act = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "linear": lambda x: x}[activation]
    parts = zip(z.split(widths, 1), noise.split(widths, 1), strict=True)
    return torch.cat([act(a) if a.shape[1] == 1 else torch.softmax((a + g) / temperature, 1) for a, g in parts], 1)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "linear"])
def test_values_and_gradients_are_those_of_pytorch(rng, activation):
    torch = pytest.importorskip("torch")
    z, dy, u = 2 * normals(rng, 9, WIDTH), normals(rng, 9, WIDTH), uniforms(rng, 9, WIDTH)
    point = torch.tensor(z, requires_grad=True)
    theirs = by_torch(torch, point, torch.tensor(u), WIDTHS, activation, 0.3)
    (gradient,) = torch.autograd.grad(theirs, point, torch.tensor(dy))
    y = gumbel_softmax.forward(z, u, ENDS, activation, 0.3)
    assert relative_error(y, theirs.detach().numpy()) < 1e-12
    assert relative_error(gumbel_softmax.backward(dy, y, ENDS, activation, 0.3), gradient.numpy()) < 1e-12


def test_blocks_of_every_width_on_every_device(arena, rng):
    for widths in (WIDTHS, (1, 1, 1), (5,), (3, 1)):
        ends, D = np.cumsum(widths).astype(np.int32), sum(widths)
        z, dy, u = f32(normals(rng, 19, D)), f32(normals(rng, 19, D)), uniforms(rng, 19, D)
        for noise in (u, None):
            (y,) = arena.call("gumbel_softmax_forward", z, noise, ends, Out(19, D), "tanh", 0.5)
            expected = gumbel_softmax.forward(z, noise, ends, "tanh", 0.5)
            assert relative_error(y, expected) < 4 * tolerance(arena.backend)
        y = f32(expected)
        (dz,) = arena.call("gumbel_softmax_backward", dy, y, ends, Out(19, D), "tanh", 0.5)
        assert relative_error(dz, gumbel_softmax.backward(dy, y, ends, "tanh", 0.5)) < tolerance(arena.backend)


def test_the_ends_of_the_uniforms_and_large_logits_are_finite(arena):
    u = np.array([[0.0, 1 - 2.0**-24, 0.5, 2.0**-24], [0.0, 0.0, 0.5, 0.5]])
    z = np.array([[0.0, 0.0, 0.0, 0.0], [1e30, -1e30, 1e4, -1e4]])
    (y,) = arena.call("gumbel_softmax_forward", z, u, np.array([2, 4], np.int32), Out(2, 4), "linear", 0.1)
    np.testing.assert_allclose(y, [[0, 1, 1, 0], [1, 0, 1, 0]], atol=1e-4)


def test_nan_stays_in_its_row_and_block(arena, rng):
    z, u = normals(rng, 5, 6), uniforms(rng, 5, 6)
    z[3, 4] = z[1, 0] = np.nan
    (y,) = arena.call("gumbel_softmax_forward", z, u, np.array([1, 3, 6], np.int32), Out(5, 6), "tanh", 0.5)
    assert np.argwhere(np.isnan(y)).tolist() == [[1, 0], [3, 3], [3, 4], [3, 5]]


def test_the_largest_is_a_draw_from_the_softmax():
    """At any temperature, and at a low one the output is next to one-hot."""
    logits, n = np.log([0.6, 0.3, 0.1]), 20_000
    u = random.uniform((n, 3), 5, random.GUMBEL, 0, np.float64)
    for temperature, least in ((0.05, 0.99), (2.0, 0.0)):
        y = gumbel_softmax.forward(np.tile(logits, (n, 1)), u, np.array([3]), "linear", temperature)
        shares = np.bincount(y.argmax(axis=1), minlength=3) / n
        np.testing.assert_allclose(shares, [0.6, 0.3, 0.1], atol=4 * np.sqrt(0.25 / n))
        assert np.median(y.max(axis=1)) > least


# --- a step -------------------------------------------------------------------------------------------

BLOCKS = (1, 3, 1, 4, 3)


def test_the_last_rows_of_a_batch_have_gradients(rng):
    """As :class:`minigen.models.layers.Stored` has it: of the others the layer keeps the output alone."""
    layer = GumbelSoftmax((1, 3), "tanh", 0.5).bound(NumpyBackend(np.float64), "g", {}, {}, {})
    all_rows = layer.store(4, grad_rows=2)
    layer.forward(rng.normal(size=(4, 4)), all_rows)
    all_rows.dz[...] = rng.normal(size=(2, 4))
    dx, expected = np.empty((2, 4)), np.empty((2, 4))
    layer.input_gradient(dx, all_rows, dx, "linear")
    layer.input_gradient(expected, all_rows.rows(2, 4), expected, "linear")
    np.testing.assert_array_equal(dx, expected)


@pytest.mark.parametrize("told", [{}, {"pack": 2}, {"instance_noise": 0.3}, {"n_critic": 2}, {"r1": 0.5}], ids=str)
def test_the_generators_gradient_agrees_with_autograd(backend, rng, told):
    torch = pytest.importorskip("torch")
    seed = int(rng.integers(1, 2**31))
    training = gan_training(backend, blobs(60), (9,), batch_size=10, seed=seed, blocks=BLOCKS, **told)
    step, done = training.step, int(rng.integers(1, 9))
    backend.upload(np.array([done], np.uint64), out=step.updates)
    backend.upload(np.array([done], np.uint64), out=step.counter)
    step.generate()
    step.discriminator_gradient()
    step.generator_gradient()
    p, d = (
        {key: torch.tensor(value.astype(np.float64), requires_grad=True) for key, value in net.state().items()}
        for net in (step.generator, step.discriminator)
    )

    def leaky(x: Any) -> Any:
        return torch.nn.functional.leaky_relu(x, 0.2)

    noise = torch.tensor(random.normal((20, 8), seed, random.NOISE, done, np.float64))[10:]
    u = torch.tensor(random.uniform((20, 12), seed, random.GUMBEL, done, np.float64))[10:]
    hidden = leaky(noise @ p["generator.0.W"] + p["generator.0.b"])
    fake = by_torch(torch, hidden @ p["generator.1.W"] + p["generator.1.b"], u, BLOCKS, "tanh", 0.6)
    seen = fake
    if step.instance_noise:
        added = torch.tensor(np.asarray(backend.download(step.seen_fakes), np.float64))
        seen = fake + (added - fake).detach()
    judged = seen.reshape(len(seen) // step.pack, -1)
    logits = leaky(judged @ d["discriminator.0.W"] + d["discriminator.0.b"])
    logits = logits @ d["discriminator.1.W"] + d["discriminator.1.b"]
    gradients = torch.autograd.grad(torch.nn.functional.softplus(-logits).mean(), list(p.values()))
    at = {"float32": 1e-4, "float64": 1e-10}[backend.dtype.name]
    np.testing.assert_allclose(backend.download(step.generator_fakes), fake.detach().numpy(), rtol=at, atol=at)
    size = max(float(g.abs().max()) for g in gradients)
    for key, expected in zip(p, gradients, strict=True):
        _, i, part = key.split(".")
        ours = backend.download(step.generator.layers[int(i)].grads[part])
        np.testing.assert_allclose(ours, expected.numpy(), rtol=at, atol=at * size)


# --- the estimator --------------------------------------------------------------------------------------

SMALL: dict[str, Any] = {
    "blocks": (1, 3, 1),
    "hidden": (32,),
    "latent_dim": 8,
    "epochs": 40,
    "batch_size": 50,
    "learning_rate": 2e-3,
    "device": "cpu",
    "seed": 1,
}


def table(rows: int = 500) -> np.ndarray:
    rng = np.random.default_rng(2)
    label = rng.choice(3, rows, p=[0.5, 0.3, 0.2])
    number = np.array([-30.0, 10.0, 50.0])[label] + rng.normal(size=rows)
    return np.column_stack([number, np.eye(3)[label], rng.normal(size=rows)]).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> minigen.GAN:
    return minigen.GAN(**SMALL, ema=0.99).fit(table(), progress=False)


def test_samples_have_one_value_of_each_label(model):
    x = model.sample(500, seed=4)
    labels, p = x[:, 1:4], model.sample(500, seed=4, noise=False)
    assert set(np.unique(labels)) == {0, 1} and (labels.sum(axis=1) == 1).all()
    np.testing.assert_allclose(p[:, 1:4].sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(x[:, [0, 4]], p[:, [0, 4]])
    np.testing.assert_array_equal(p, model.generate(model.latent(500, 4)))
    np.testing.assert_allclose(labels.mean(axis=0), p[:, 1:4].mean(axis=0), atol=0.1)
    np.testing.assert_array_equal(x, model.sample(500, seed=4))
    assert (labels.mean(axis=0) > 0.03).all()
    assert model.discriminate(x).shape == (500,)


def test_it_goes_on_bit_for_bit_and_loads(model, tmp_path):
    model.save(tmp_path / "gan.safetensors")
    other = minigen.load(tmp_path / "gan.safetensors", device="cpu")
    assert tuple(other.blocks) == (1, 3, 1) and other.temperature == 0.2
    np.testing.assert_array_equal(model.sample(9, seed=1), other.sample(9, seed=1))
    half = minigen.GAN(**SMALL | {"epochs": 1}).fit(table(), progress=False)
    whole = minigen.GAN(**SMALL | {"epochs": 2}).fit(table(), progress=False)
    half.save(tmp_path / "half.safetensors")
    half = minigen.load(tmp_path / "half.safetensors", device="cpu").partial_fit(table(), epochs=1, progress=False)
    np.testing.assert_array_equal(half.sample(9, seed=1), whole.sample(9, seed=1))


@pytest.mark.parametrize(
    "told", [{"pack": 5}, {"gradient_penalty": 1.0, "loss": "wasserstein", "n_critic": 2}, {"r1": 1.0}], ids=str
)
def test_it_goes_with_other_settings(told):
    model = minigen.GAN(**SMALL | {"epochs": 2} | told).fit(table(), progress=False)
    assert np.isfinite(model.sample(20, seed=0)).all()


@pytest.mark.parametrize("conditioning", ["input", "projection"])
def test_conditional(conditioning):
    rows = table()
    y = rows[:, 1:4].argmax(axis=1)
    told = SMALL | {"epochs": 60, "conditioning": conditioning}
    model = minigen.GAN(**told).fit(rows, y, progress=False)
    drawn = model.sample(300, y=np.repeat([0, 1, 2], 100), seed=0)[:, 1:4].argmax(axis=1)
    assert (drawn == np.repeat([0, 1, 2], 100)).mean() > 0.6


def test_zeros_and_ones_stay_these():
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.integers(0, 2, (200, 1)), np.eye(3, dtype=int)[rng.integers(0, 3, 200)]])
    model = minigen.GAN(**SMALL | {"blocks": (1, 3), "epochs": 2}).fit(rows, progress=False)
    x = model.sample(50, seed=0)
    assert x.dtype == rows.dtype and (x[:, 1:].sum(axis=1) == 1).all()


BAD = {
    "wrong sum": ({"blocks": (1, 3)}, table, "blocks must add up to the 5 columns"),
    "no labels": ({"blocks": (3, 1, 1)}, table, "X must be one-hot in columns 0 to 2"),
    "cold": ({"temperature": 0}, table, "temperature must be"),
    "empty": ({"blocks": ()}, table, "blocks must be the widths"),
    "grey levels": ({}, lambda: (100 * table()).clip(0, 255).astype(np.uint8), "X must be floating"),
    "tanh of bits": (
        {"blocks": (1, 1), "output": "tanh"},
        lambda: np.tile([[0, 1], [1, 0]], (50, 1)),
        "output must be 'sigmoid'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(case):
    settings, rows, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        minigen.GAN(**SMALL | settings).fit(rows(), progress=False)

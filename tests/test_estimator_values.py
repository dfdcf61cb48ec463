"""What the estimators compute, against their formulas, and settings that are easily ignored."""

from __future__ import annotations

import numpy as np
import pytest

import minigen
from minigen import gradcheck_plain as plain
from models import blobs

SMALL = {"hidden": (6,), "latent_dim": 3, "batch_size": 32}
QUIET = {"progress": False}


@pytest.fixture(params=[minigen.GAN, minigen.VAE])
def family(request):
    return request.param


def net_of(net):
    """The weights as gradcheck_plain has them, in float64."""
    values = [value.astype(np.float64) for value in net.state().values()]
    return list(zip(values[::2], values[1::2], strict=True))


def sigmoid(s):
    return 1 / (1 + np.exp(-s))


# --- settings --------------------------------------------------------------------------------------------

PRESETS = [(family, name) for family in (minigen.GAN, minigen.VAE) for name in family.presets]


@pytest.mark.parametrize(("family", "name"), PRESETS)
def test_settings_go_over_those_of_a_preset_and_these_over_the_defaults(family, name):
    own = {"epochs": 3, "hidden": (5,), "seed": 9}
    assert family.preset(name, **own).get_params() == {**family().get_params(), **family.presets[name], **own}
    assert family.preset(name).get_params() == {**family().get_params(), **family.presets[name]}


def test_the_presets_called_quality_are_wider_and_longer(family):
    plain_model, better = family(), family.preset("quality")
    assert sum(better.hidden) > sum(plain_model.hidden) and len(better.hidden) > len(plain_model.hidden)
    assert better.epochs != plain_model.epochs


@pytest.mark.parametrize(("train", "family"), [(minigen.train_gan, minigen.GAN), (minigen.train_vae, minigen.VAE)])
def test_the_short_form_takes_a_preset_and_settings(monkeypatch, train, family):
    fitted = []
    monkeypatch.setattr(family, "fit", lambda self, X, **arguments: fitted.append(arguments) or self)
    X, callback = blobs(40), print
    for name in family.presets:
        model = train(X, preset=name, seed=3, callbacks=[callback], progress=False)
        assert model.get_params() == {**family().get_params(), **family.presets[name], "seed": 3}
        assert fitted.pop() == {"callbacks": [callback], "progress": False}


def test_no_epochs_are_no_steps_and_the_weights_drawn(family):
    model = family(epochs=0, seed=5, **SMALL).fit(blobs(), **QUIET)
    assert (model.history_.epochs, model.history_.steps) == (0, 0)
    first = 0
    for net in model.networks_:
        drawn = plain.initial(net.sizes, model.activation, net.output_activation, model.init, 5, first)
        first += len(net.layers)
        for (W, b), (V, c) in zip(net_of(net), drawn, strict=True):
            np.testing.assert_allclose(W, V, atol=1e-6)
            np.testing.assert_array_equal(b, c)
    assert model.sample(3).shape == (3, 12)


def test_no_more_epochs_change_nothing(family):
    model = family(epochs=2, **SMALL).fit(blobs(), **QUIET)
    drawn, steps = model.sample(4, seed=1), model.history_.steps
    model.partial_fit(blobs(), epochs=0, **QUIET)
    assert model.history_.steps == steps
    np.testing.assert_array_equal(model.sample(4, seed=1), drawn)


def test_partial_fit_trains_for_as_long_as_it_is_told_else_as_the_constructor_says(family):
    model = family(epochs=2, **SMALL).partial_fit(blobs(), epochs=3, **QUIET)
    assert model.history_.epochs == 3
    assert model.partial_fit(blobs(), **QUIET).history_.epochs == 5
    assert model.partial_fit(blobs(), epochs=1, **QUIET).history_.epochs == 6


# --- what a GAN computes ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gan():
    rows = np.random.default_rng(1).uniform(-1, 1, (64, 5)).astype(np.float32)
    return minigen.GAN(output="tanh", activation="softplus", seed=4, epochs=2, **SMALL).fit(rows, **QUIET)


def test_samples_are_the_generator_of_the_noise(gan):
    z = gan.latent(6, seed=8)
    np.testing.assert_allclose(z, plain.normals((6, 3), 8, plain.SAMPLE, 0), atol=1e-5)
    expected = plain.apply(net_of(gan.generator_), z.astype(np.float64), "softplus", "tanh")
    np.testing.assert_allclose(gan.generate(z), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(gan.sample(6, seed=8), gan.generate(z))
    assert not np.array_equal(gan.latent(6, seed=9), z) and not np.array_equal(gan.latent(6), gan.latent(6))


def test_discriminate_is_the_sigmoid_of_the_logit():
    X = blobs(50, 5)
    model = minigen.GAN(seed=4, epochs=2, **SMALL).fit(X, **QUIET)
    logits = plain.apply(net_of(model.discriminator_), X / 127.5 - 1, "leaky_relu", "linear")
    np.testing.assert_allclose(model.discriminate(X), sigmoid(logits[:, 0]), rtol=1e-4)


def test_interpolation_follows_the_great_circle(gan):
    a, b = np.array([2.0, 0, 0]), np.array([0, 2.0, 0])
    quarter = np.pi / 8 * np.arange(5)[:, None]
    circle = np.cos(quarter) * a + np.sin(quarter) * b
    np.testing.assert_allclose(gan.interpolate(a, b, 5), gan.generate(circle), atol=1e-5)
    a, b = np.array([0.3, -1.2, 0.4]), np.array([1.0, 0.2, -0.7])  # not of one length
    half = np.arccos(a @ b / np.sqrt(a @ a * (b @ b))) / 2
    np.testing.assert_allclose(gan.interpolate(a, b, 3)[1], gan.generate([(a + b) / (2 * np.cos(half))])[0], atol=1e-5)
    np.testing.assert_allclose(gan.interpolate(a, 3 * a, 3)[1], gan.generate([2 * a])[0], atol=1e-5)
    ends = np.concatenate([gan.latent(1, seed=5), gan.latent(1, seed=6)])
    np.testing.assert_allclose(gan.interpolate(5, 6, 2), gan.generate(ends), atol=1e-5)
    assert len(gan.interpolate(5, 6)) == 8


@pytest.mark.parametrize("likelihood", ["gaussian", None])
def test_what_lies_beyond_black_and_white_is_black_or_white(likelihood):
    """Bytes have no place for a pixel of -9 or 300: it may not come round at the other end."""
    settings = {"output": "linear"} if likelihood is None else {"likelihood": likelihood}
    model = (minigen.GAN if likelihood is None else minigen.VAE)(epochs=0, **settings, **SMALL)
    model.fit(blobs(64, 4), **QUIET)
    net = model.networks_[0] if likelihood is None else model.networks_[1]
    state = net.state()
    last = net.layers[-1].name
    state[f"{last}.W"][:] = 0
    low, middle, high, most = 0.0 * model.scale_ + model.shift_, 100 * model.scale_ + model.shift_, 300.0, 1e9
    state[f"{last}.b"][:] = [low - 0.1, middle, high, -most]
    net.load_state(state)
    np.testing.assert_array_equal(model.sample(2, seed=0), [[0, 100, 255, 0]] * 2)


# --- what a VAE computes ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vae():
    return minigen.VAE(seed=4, epochs=2, **SMALL).fit(blobs(96), **QUIET)


def test_encode_gives_mean_and_logvar_of_the_pixels_in_0_to_1(vae):
    X = blobs(30, seed=2)
    heads = plain.apply(net_of(vae.encoder_), X / 255, "relu", "linear")
    mu, logvar = vae.encode(X, return_logvar=True)
    np.testing.assert_allclose(mu, heads[:, :3], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logvar, heads[:, 3:], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(vae.encode(X), mu)


def test_reconstruct_decodes_the_mean(vae):
    X = blobs(30, seed=2)
    mu = plain.apply(net_of(vae.encoder_), X / 255, "relu", "linear")[:, :3]
    pixels = 255 * sigmoid(plain.apply(net_of(vae.decoder_), mu, "relu", "linear"))
    assert np.abs(vae.reconstruct(X) - pixels).max() <= 0.51
    np.testing.assert_array_equal(vae.decode(vae.encode(X)), vae.reconstruct(X))
    z = plain.normals((6, 3), 8, plain.SAMPLE, 0)
    pixels = 255 * sigmoid(plain.apply(net_of(vae.decoder_), z, "relu", "linear"))
    assert np.abs(vae.sample(6, seed=8) - pixels).max() <= 0.51


def test_bounds_are_drawn_anew_for_each_seed_and_draw(vae):
    X = blobs(30, seed=2)
    for bound in (vae.elbo, vae.score_samples):
        one = bound(X, samples=2, seed=1)
        np.testing.assert_array_equal(bound(X, samples=2, seed=1), one)
        assert (bound(X, samples=2, seed=2) != one).all()
        assert (bound(X, samples=3, seed=1) != one).all()
        assert (bound(X, samples=1, seed=1) != one).all()
    np.testing.assert_array_equal(vae.elbo(X), vae.elbo(X, samples=1, seed=0))
    np.testing.assert_array_equal(vae.score_samples(X, seed=3), vae.score_samples(X, samples=64, seed=3))


def test_one_draw_weighted_by_its_importance(vae):
    """The mean of log p(x, z) / q(z | x) is the ELBO, whatever the draws; both use the same ones."""
    X = blobs(200, seed=2)
    ratio = np.mean([vae.score_samples(X, samples=1, seed=s).mean() for s in range(20)])
    bound = np.mean([vae.elbo(X, seed=s).mean() for s in range(20)])
    assert abs(ratio - bound) < 0.1


def test_rows_of_a_large_X_do_not_share_noise_because_of_the_pieces(vae, monkeypatch):
    """Noise may depend on a row's place or not, but not on its place within a piece."""
    X = blobs(1).repeat(21, axis=0)
    for module in ("trained", "scoring"):
        monkeypatch.setattr(f"minigen.estimators.{module}.ROWS_AT_ONCE", 7)
    for bound in (vae.elbo, vae.score_samples):
        values = bound(X, samples=2, seed=1)
        apart = len(np.unique(values.round(6)))
        assert apart in (1, 21), f"{apart} different values of 21 rows in pieces of 7"


@pytest.mark.parametrize("rows", [1, 6, 7, 8, 14, 15])
def test_pieces_of_any_length_are_the_whole(vae, monkeypatch, rows):
    X = blobs(rows, seed=2)
    whole = vae.encode(X)
    monkeypatch.setattr("minigen.estimators.trained.ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(vae.encode(X), whole, rtol=1e-5, atol=1e-6)


def test_the_gaussian_bound_counts_the_variance():
    """An encoder and a decoder of zeros: x given z is N(0, v) whatever z is, and the KL is 0."""
    X = blobs(40, 4)
    model = minigen.VAE(likelihood="gaussian", variance=0.3, epochs=0, **SMALL).fit(X, **QUIET)
    for net in model.networks_:
        net.load_state({key: np.zeros_like(value) for key, value in net.state().items()})
    expected = -((X / 255) ** 2 / 0.6 + np.log(2 * np.pi * 0.3) / 2).sum(axis=1)
    np.testing.assert_allclose(model.elbo(X), expected, rtol=1e-5)
    np.testing.assert_allclose(model.score_samples(X, samples=3), expected, rtol=1e-5)
    assert model.score(X) == pytest.approx(expected.mean(), rel=1e-5)


def test_the_bound_is_the_likelihood_less_the_kl():
    """A decoder whose last weights are 0: x given z does not depend on z, and the bound not on the draws."""
    X = blobs(40, 4)
    model = minigen.VAE(beta=3.0, seed=2, epochs=0, **SMALL).fit(X, **QUIET)
    state, logits = model.decoder_.state(), np.array([-1.0, 0.5, 2.0, 0.0])
    last = model.decoder_.layers[-1].name
    state[f"{last}.W"][:], state[f"{last}.b"][:] = 0, logits
    model.decoder_.load_state(state)
    mu, logvar = (part.astype(np.float64) for part in model.encode(X, return_logvar=True))
    kl = (mu**2 + np.exp(logvar) - 1 - logvar).sum(axis=1) / 2
    assert kl.min() > 0.01
    x, p = X / 255, sigmoid(logits)
    expected = (x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=1) - kl
    np.testing.assert_allclose(model.elbo(X, samples=2, seed=5), expected, rtol=1e-5)

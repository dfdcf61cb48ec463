"""Bad input: the error names the argument, what came and what is allowed, and comes before any work."""

from __future__ import annotations

import re

import numpy as np
import pytest

import minigen
from models import blobs

MODELS = [minigen.GAN, minigen.VAE]
BAD = [
    ("device", "tpu", ValueError, "'auto', 'numpy', 'cpu', 'cuda'"),
    ("device", "cpu:1", ValueError, "cuda:1"),
    ("device", None, ValueError, "None"),
    ("precision", "fp8", ValueError, "'auto', 'ieee'"),
    ("precision", "TF32", ValueError, "'TF32'"),
    ("precision", None, ValueError, "None"),
    ("batch_size", 0, ValueError, "at least 1"),
    ("batch_size", -3, ValueError, "-3"),
    ("batch_size", 65, ValueError, "64 rows"),
    ("batch_size", 2.5, TypeError, "2.5"),
    ("learning_rate", 0, ValueError, "(0, inf)"),
    ("learning_rate", -1e-3, ValueError, "-0.001"),
    ("learning_rate", float("nan"), ValueError, "nan"),
    ("learning_rate", float("inf"), ValueError, "inf"),
    ("learning_rate", "fast", TypeError, "'fast'"),
    ("beta1", 1.0, ValueError, "[0, 1)"),
    ("beta2", -0.1, ValueError, "[0, 1)"),
    ("eps", 0.0, ValueError, "(0, inf)"),
    ("momentum", 1, ValueError, "[0, 1)"),
    ("weight_decay", -1, ValueError, "[0, inf)"),
    ("weight_decay", 0.1, ValueError, "adamw"),
    ("activation", "swish", ValueError, "'leaky_relu'"),
    ("optimizer", "adagrad", ValueError, "'adam', 'adamw', 'sgd'"),
    ("init", "zeros", ValueError, "'glorot_uniform'"),
    ("hidden", (0,), ValueError, "hidden[0]"),
    ("hidden", (128, -1), ValueError, "hidden[1]"),
    ("hidden", (1.5,), TypeError, "1.5"),
    ("hidden", "128", TypeError, "sequence"),
    ("latent_dim", 0, ValueError, "at least 1"),
    ("epochs", -1, ValueError, "at least 0"),
    ("epochs", True, TypeError, "True"),
    ("seed", -1, ValueError, "4294967295"),
    ("seed", 2**32, ValueError, "4294967295"),
]
GAN_ONLY = [
    ("loss", "wgan", ValueError, "'non_saturating', 'minimax'"),
    ("output", "softmax", ValueError, "'tanh'"),
    ("hidden_discriminator", (0,), ValueError, "hidden_discriminator[0]"),
]
VAE_ONLY = [
    ("likelihood", "laplace", ValueError, "'bernoulli', 'gaussian'"),
    ("variance", 0, ValueError, "(0, inf)"),
    ("beta", -1, ValueError, "[0, inf)"),
]


def refused(model, data, error, name, text):
    with pytest.raises(error, match=re.escape(text)) as caught:
        model.fit(data)
    assert name in str(caught.value)
    assert not hasattr(model, "networks_") and not hasattr(model, "history_"), "work began before the check"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("name", "value", "error", "text"), BAD)
def test_settings(model, name, value, error, text):
    refused(model(**{"batch_size": 32, name: value}), blobs(64), error, name, text)


@pytest.mark.parametrize(("name", "value", "error", "text"), GAN_ONLY)
def test_gan_settings(name, value, error, text):
    refused(minigen.GAN(**{"batch_size": 32, name: value}), blobs(64), error, name, text)


@pytest.mark.parametrize(("name", "value", "error", "text"), VAE_ONLY)
def test_vae_settings(name, value, error, text):
    refused(minigen.VAE(**{"batch_size": 32, name: value}), blobs(64), error, name, text)


def with_nan() -> np.ndarray:
    data = np.zeros((64, 3), np.float32)
    data[7, 1] = np.nan
    return data


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (with_nan(), ValueError, "row 7"),
        (np.full((64, 3), np.inf), ValueError, "infinite"),
        (np.zeros((64, 3), complex), ValueError, "complex128"),
        (np.array([["a", "b"]] * 64), TypeError, "<U1"),
        (np.empty((64, 3), object), ValueError, "NaN"),
        (np.empty((0, 3), np.uint8), ValueError, "(0, 3)"),
        (np.zeros((1, 3), np.uint8), ValueError, "1"),
        (np.zeros((64, 0), np.uint8), ValueError, "column"),
        (np.zeros(64, np.uint8), ValueError, "(64,)"),
        ("mnist", TypeError, "str"),
        (None, TypeError, "NoneType"),
        (np.array([[1.0, 2.0], [3.0, "a"]], object), TypeError, "'a'"),
        ([[1, 2], [3]], TypeError, "cannot be read as an array"),
        ([1.0, 2.0, 3.0], ValueError, "Reshape your data"),
        (np.zeros((64, 3), "M8[s]"), TypeError, "datetime64"),
    ],
)
def test_data(model, data, error, text):
    refused(model(batch_size=1), data, error, "X", text)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("container", ["csr_matrix", "csr_array", "coo_array", "dia_matrix"])
def test_sparse_data_and_how_to_make_them_dense(model, container):
    sparse = pytest.importorskip("scipy.sparse")
    refused(model(batch_size=1), getattr(sparse, container)(np.eye(3)), TypeError, "X", "X.toarray()")
    fitted = model(epochs=0, batch_size=2, latent_dim=3, hidden=4).fit(np.eye(3))
    with pytest.raises(TypeError, match=r"z must be a dense array, not a sparse one .*z.toarray\(\)"):
        (fitted.generate if model is minigen.GAN else fitted.decode)(getattr(sparse, container)(np.eye(3)))


@pytest.mark.parametrize(("output", "value"), [("tanh", -1.01), ("tanh", 2.0), ("sigmoid", -0.01), ("sigmoid", 1.01)])
def test_values_that_the_generator_cannot_reach(output, value):
    data = np.full((64, 3), 0.5)
    data[5, 2] = value
    refused(minigen.GAN(output=output, batch_size=32), data, ValueError, "X", f"output={output!r}")


def test_values_that_are_no_probabilities():
    refused(minigen.VAE(batch_size=32), np.full((64, 3), 1.5), ValueError, "X", "likelihood='gaussian'")


def test_unknown_names_are_errors():
    with pytest.raises(TypeError, match="learning_rat"):
        minigen.train_gan(blobs(), learning_rat=1)
    with pytest.raises(ValueError, match="preset must be one of 'article', 'quality'"):
        minigen.train_gan(blobs(), preset="best")
    with pytest.raises(ValueError, match="latent_dim"):
        minigen.GAN().set_params(latent=3)
    with pytest.raises(AttributeError, match="train_gann"):
        minigen.train_gann  # noqa: B018


@pytest.fixture(scope="module")
def gan():
    return minigen.GAN(epochs=0, hidden=4, latent_dim=3, batch_size=32).fit(blobs(64))


@pytest.fixture(scope="module")
def vae():
    return minigen.VAE(epochs=0, hidden=4, latent_dim=3, batch_size=32).fit(blobs(64))


def test_arguments_of_a_trained_gan(gan):
    for call, error, text in [
        (lambda: gan.sample(-1), ValueError, "n must be"),
        (lambda: gan.sample(2.0), TypeError, "n must be"),
        (lambda: gan.sample(1, seed=-1), ValueError, "seed"),
        (lambda: gan.generate(np.zeros((2, 4))), ValueError, "z must have shape (n, 3)"),
        (lambda: gan.interpolate(1, 2, steps=1), ValueError, "steps"),
        (lambda: gan.interpolate(np.zeros(4), 2), ValueError, "a must be"),
        (lambda: gan.discriminate(np.zeros((2, 5), np.uint8)), ValueError, "shape (12,)"),
        (lambda: gan.discriminate(np.zeros((2, 12))), TypeError, "uint8"),
        (lambda: gan.partial_fit(blobs(10)), ValueError, "batch_size"),
        (lambda: gan.partial_fit(blobs(64, 13)), ValueError, "shape (12,)"),
        (lambda: gan.partial_fit(blobs(64), epochs=-1), ValueError, "epochs"),
    ]:
        with pytest.raises(error, match=re.escape(text)):
            call()


def test_arguments_of_a_trained_vae(vae):
    for call, error, text in [
        (lambda: vae.sample(-1), ValueError, "n must be"),
        (lambda: vae.decode(np.zeros(3)), ValueError, "z must have shape (n, 3)"),
        (lambda: vae.elbo(blobs(5), samples=0), ValueError, "samples"),
        (lambda: vae.score_samples(blobs(5), seed="a"), TypeError, "seed"),
        (lambda: vae.encode(blobs(5, 11)), ValueError, "shape (12,)"),
    ]:
        with pytest.raises(error, match=re.escape(text)):
            call()


def test_devices_say_why_and_what_to_install():
    for name, device in minigen.devices().items():
        assert device.name == name and device.detail
        if not device.usable:
            with pytest.raises(minigen.DeviceError, match="cannot be used here"):
                minigen.train_gan(blobs(), device=name)

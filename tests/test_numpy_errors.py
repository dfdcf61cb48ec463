"""With NumPy's floating-point errors as exceptions, as ``np.seterr(all="raise")`` makes them, everything works."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import minigen
from minigen.device import get_backend
from minigen.reference import activations, gan_loss, latent, self_gated, vae_loss
from models import blobs

DEVICES = [name for name in ("numpy", "cpu") if minigen.devices()[name].usable]
FAR = np.array([-1e30, -1e4, -104, -88, -1e-40, 0, 1e-40, 88, 104, 1e4, 1e30])


@pytest.fixture(autouse=True)
def strict():
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", minigen.ACTIVATIONS)
def test_activations_far_out(activation, dtype):
    with np.errstate(under="ignore"):
        z = FAR.astype(dtype)
    if activation in self_gated.SELF_GATED:
        assert np.isfinite(self_gated.forward(z, activation)).all()
        assert np.isfinite(self_gated.backward(np.ones_like(z), z, activation)).all()
        return
    y = activations.forward(z, activation)
    assert np.isfinite(y).all() and np.isfinite(activations.backward(np.ones_like(y), y, activation)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_far_out(dtype):
    with np.errstate(under="ignore"):
        logits = FAR[:, None].astype(dtype)
    for loss, gradient in (
        gan_loss.discriminator(logits, 5),
        gan_loss.generator(logits),
        gan_loss.generator(logits, "minimax"),
        vae_loss.forward(logits, np.full_like(logits, 0.5), "bernoulli")[1:],
    ):
        assert np.isfinite(loss) and np.isfinite(gradient).all()
    heads = np.array([[1e-30, -1e3], [1e-30, -80]], dtype)
    assert np.isfinite(latent.forward(heads, np.full((2, 1), 1e-20, dtype))[0]).all()
    assert np.isfinite(latent.backward(np.full((2, 1), 1e-30, dtype), heads, np.ones((2, 1), dtype), 1.0)).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("data", [blobs(48), blobs(48) / 255], ids=["uint8", "float32"])
def test_a_model_from_training_to_scoring(device, data):
    settings = dict(epochs=2, hidden=4, latent_dim=2, batch_size=16, device=device)
    far = np.array([[1e30, -1e30], [1e4, 1e4], [-1e4, 3], [1e-40, -1e-40]])
    gan = minigen.GAN(**settings).fit(data)
    vae = minigen.VAE(**settings).fit(data)
    for items in (gan.generate(far), vae.decode(far), gan.sample(3), vae.sample(3), gan.interpolate(1, 2)):
        assert np.isfinite(items).all() and items.dtype == gan.data_dtype_
    for scores in (gan.discriminate(data), vae.elbo(data), vae.score_samples(data), vae.transform(data)):
        assert np.isfinite(scores).all()
    assert vae.reconstruct(data).shape == data.shape
    gan.partial_fit(data)


@pytest.mark.parametrize("device", DEVICES)
def test_latents_that_no_network_can_follow(device):
    """Infinity minus infinity in the second layer: NaN, which uint8 does not have."""
    settings = dict(epochs=1, hidden=(16, 16), latent_dim=2, batch_size=16, device=device)
    far = [[1, 1], [3e38, -3e38]]
    with pytest.raises(ValueError, match="row 1 lies too far out"):
        minigen.GAN(**settings).fit(blobs(48)).generate(far)
    assert np.isnan(minigen.GAN(**settings).fit(blobs(48) / 255).generate(far)[1]).any()


@pytest.mark.parametrize("device", DEVICES)
def test_a_training_that_vanishes(device):
    """Gradients of 1e-30 and less, whose squares no float32 holds."""
    data = np.full((32, 3), 1e-30, np.float32)
    settings = dict(epochs=3, hidden=4, latent_dim=2, batch_size=16, device=device, learning_rate=1e-30)
    for model in (minigen.VAE(likelihood="gaussian", **settings), minigen.GAN(**settings)):
        assert np.isfinite(model.fit(data).history_.values).all()


def test_the_reference_backend_multiplies_small_numbers():
    ops = get_backend("numpy")
    x, W, b = np.full((2, 3), 1e-30, np.float32), np.full((3, 2), 1e-30, np.float32), np.zeros(2, np.float32)
    y = ops.empty((2, 2))
    ops.dense_forward(x, W, b, y, "tanh")
    assert not y.any()

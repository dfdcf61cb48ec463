"""What is taken as data: any real numbers, flat items for pictures."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import minigen
from minigen.datasets import as_rows
from models import blobs

QUICK = dict(epochs=1, hidden=4, latent_dim=2, batch_size=16)
BINARY = np.random.default_rng(7).integers(0, 2, (48, 6))


@pytest.mark.parametrize(
    "data",
    [
        BINARY.tolist(),
        tuple(map(tuple, BINARY.tolist())),
        *(BINARY.astype(dtype) for dtype in ("?", "i1", "u2", "i8", "f2", "f8", "g", ">i4", ">f8")),
        BINARY.astype(object),
        np.array([[Fraction(int(x)) for x in row] for row in BINARY], object),
        BINARY.astype(np.float32)[:, ::-1][:, ::-1],
    ],
    ids=lambda data: f"{type(data).__name__}-{getattr(data, 'dtype', '')}",
)
def test_any_real_numbers_become_float32(data):
    rows, shape = as_rows(data)
    assert rows.dtype == np.float32 and shape == (6,)
    np.testing.assert_array_equal(rows, BINARY)
    plain = minigen.VAE(**QUICK).fit(BINARY.astype(np.float32))
    np.testing.assert_array_equal(minigen.VAE(**QUICK).fit(data).encode(data), plain.encode(BINARY.astype(np.float32)))


def test_whole_numbers_are_taken_by_a_model_of_bytes():
    X = blobs(32)
    vae = minigen.VAE(**QUICK).fit(X)
    for same in (X.tolist(), X.astype(np.int64), X.astype(np.uint16)):
        np.testing.assert_array_equal(vae.encode(same), vae.encode(X))
    for beyond in (-1, 256, 2**40):
        with pytest.raises(ValueError, match=r"X must lie in \[0, 255\]"):
            vae.encode(np.full((2, 12), beyond))
    with pytest.raises(TypeError, match="X must be uint8 like the data of the training, not float64"):
        vae.encode((X / 255).tolist())


def test_bytes_are_refused_by_a_model_of_floats():
    vae = minigen.VAE(**QUICK).fit(blobs(32) / 255)
    with pytest.raises(TypeError, match="X must be float32 like the data of the training, not uint8"):
        vae.encode(blobs(2))


@pytest.mark.parametrize("trained_flat", [False, True])
def test_flat_rows_stand_for_pictures_and_pictures_for_flat_rows(trained_flat):
    flat = blobs(48)
    pictures = flat.reshape(-1, 3, 4)
    mine, others = (flat, pictures) if trained_flat else (pictures, flat)
    vae = minigen.VAE(**QUICK).fit(mine)
    assert vae.n_features_in_ == 12
    for method in (vae.encode, vae.transform, vae.elbo, vae.score_samples):
        np.testing.assert_array_equal(method(others), method(mine))
    assert vae.reconstruct(mine).shape == mine.shape
    assert vae.reconstruct(others).shape == others.shape, "the answer has the shape of the data"
    np.testing.assert_array_equal(vae.reconstruct(others), vae.reconstruct(mine).reshape(others.shape))
    assert vae.sample(2).shape == (2, *mine.shape[1:]), "samples have the shape of the training data"
    vae.partial_fit(others)
    gan = minigen.GAN(**QUICK).fit(mine)
    np.testing.assert_array_equal(gan.discriminate(others), gan.discriminate(mine))
    for wrong in (flat.reshape(-1, 4, 3), flat.reshape(-1, 2, 2, 3), flat[:, :11]):
        if trained_flat and wrong.shape[1:] != (11,):
            continue  # C order is the only one there is
        with pytest.raises(ValueError, match="X must have items of shape"):
            gan.discriminate(wrong)

"""scikit-learn's own checks of an estimator, and its tools around ours."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import minigen
from models import blobs

pytest.importorskip("sklearn", minversion="1.8", reason="no scikit-learn that can be strict about exceptions")

from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402
from sklearn.utils.validation import check_is_fitted  # noqa: E402

QUICK = dict(epochs=1, hidden=(4,), latent_dim=2, batch_size=8)


@parametrize_with_checks([minigen.VAE(likelihood="gaussian", **QUICK), minigen.GAN(**QUICK)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("family", [minigen.GAN, minigen.VAE])
def test_an_untrained_model_raises_scikit_learns_error_too(family):
    for use in (lambda: family().sample(1), lambda: check_is_fitted(family())):
        with pytest.raises(NotFittedError):
            use()
    with pytest.raises(minigen.NotFittedError, match="is not trained yet") as caught:
        family().sample(1)
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, (NotFittedError, minigen.NotFittedError)) and str(again) == str(caught.value)
    check_is_fitted(family(**QUICK).fit(blobs(32)))


def test_a_vae_is_a_step_of_a_pipeline():
    X = np.random.default_rng(5).normal(3, 2, (40, 6))
    pipeline = make_pipeline(StandardScaler(), minigen.VAE(likelihood="gaussian", **QUICK))
    z = pipeline.fit_transform(X)
    assert z.shape == (40, 2) and z.dtype == np.float32
    np.testing.assert_array_equal(pipeline.transform(X), z)
    assert list(pipeline[-1].get_feature_names_out()) == ["vae0", "vae1"]


def test_a_gan_has_no_score_and_says_why():
    assert not hasattr(minigen.GAN, "score") and "no ``score``" in minigen.GAN.__doc__

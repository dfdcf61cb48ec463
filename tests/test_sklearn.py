"""scikit-learn's own checks of an estimator, and its tools around ours."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import minigen
from models import blobs

pytest.importorskip("sklearn", minversion="1.8", reason="no scikit-learn that can be strict about exceptions")

from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402
from sklearn.utils.validation import check_is_fitted  # noqa: E402

QUICK = dict(epochs=1, hidden=(4,), latent_dim=2, batch_size=8)


# A conditional VAE has no transform without labels, so the checks of transformers, which give y, want one that is not.
@parametrize_with_checks([minigen.VAE(likelihood="gaussian", conditional=False, **QUICK), minigen.GAN(**QUICK)])
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


SLOWER = QUICK | dict(epochs=60, hidden=(16,), learning_rate=0.01)


def test_a_pipeline_keeps_its_labels_for_the_classifier():
    """The VAE of a pipeline is trained, and encodes, as if there were no labels: new rows will have none."""
    rng = np.random.default_rng(5)
    y = rng.integers(0, 2, 80)
    X = rng.normal(0, 1, (80, 6)) + 4 * y[:, None]
    pipeline = make_pipeline(minigen.VAE(likelihood="gaussian", **SLOWER), LogisticRegression())
    vae, classifier = pipeline.fit(X, y)
    assert vae.classes_ is None and pipeline.score(X, y) > 0.8
    alone = minigen.VAE(likelihood="gaussian", **SLOWER).fit_transform(X)
    np.testing.assert_array_equal(alone, vae.transform(X))
    np.testing.assert_array_equal(LogisticRegression().fit(alone, y).coef_, classifier.coef_)


def test_a_search_gives_labels_to_fit_and_score():
    X, y = np.random.default_rng(5).normal(3, 2, (60, 6)), np.arange(60) % 3
    search = GridSearchCV(minigen.VAE(likelihood="gaussian", **QUICK), {"latent_dim": [1, 2]}, cv=2).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.classes_.tolist() == [0, 1, 2]
    assert search.score(X, y) == search.best_estimator_.elbo(X, y).mean()
    plain = GridSearchCV(minigen.VAE(likelihood="gaussian", conditional=False, **QUICK), {"latent_dim": [2]}, cv=2)
    assert plain.fit(X, y).best_estimator_.classes_ is None and np.isfinite(plain.score(X, y))


def test_a_gan_has_no_score_and_says_why():
    assert not hasattr(minigen.GAN, "score") and "no ``score``" in minigen.GAN.__doc__

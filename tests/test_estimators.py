"""The manners of an estimator: settings, copies, going on, and what a refused call leaves behind."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction

import numpy as np
import pytest

import minigen
from models import blobs

SMALL = {"hidden": (8,), "latent_dim": 3, "batch_size": 32, "epochs": 2}
QUIET = {"progress": False}


@pytest.fixture(params=[minigen.GAN, minigen.VAE])
def family(request):
    return request.param


@pytest.fixture
def model(family):
    return family(**SMALL).fit(blobs(), **QUIET)


def everything(model):
    """All that a training and its continuation depend on."""
    state = {key: value for net in model.networks_ for key, value in net.state().items()}
    return {**state, **model._state, "losses": model.history_.values}


def same(a, b):
    a, b = everything(a), everything(b)
    assert a.keys() == b.keys()
    for key, value in a.items():
        np.testing.assert_array_equal(value, b[key], key)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_goes_on_like_the_original_and_alone(model, copied):
    twin = copied(model)
    before = model.sample(4, seed=0)
    same(model, twin)
    twin.partial_fit(blobs(), epochs=3, **QUIET)
    np.testing.assert_array_equal(model.sample(4, seed=0), before)
    model.partial_fit(blobs(), epochs=3, **QUIET)
    same(model, twin)
    np.testing.assert_array_equal(model.sample(4, seed=0), twin.sample(4, seed=0))


def test_an_untrained_model_can_be_copied(family):
    assert copy.deepcopy(family(latent_dim=5)).latent_dim == 5


def test_a_callback_can_keep_a_copy_that_goes_on(family):
    kept = []
    whole = family(**SMALL).fit(blobs(), callbacks=[lambda end: kept.append(copy.deepcopy(end.model))], **QUIET)
    assert [model.history_.epochs for model in kept] == [1, 2]
    same(whole, kept[0].partial_fit(blobs(), epochs=1, **QUIET))


OTHERS = [("latent_dim", 5), ("hidden", (4, 4)), ("activation", "tanh"), ("optimizer", "sgd"), ("device", "numpy")]


@pytest.mark.parametrize(("name", "value"), OTHERS)
def test_a_trained_model_is_used_and_saved_as_it_was_made(model, tmp_path, name, value):
    drawn = model.sample(3, seed=1)
    was = model.get_params()[name]
    model.set_params(**{name: value})
    np.testing.assert_array_equal(model.sample(3, seed=1), drawn)
    model.save(tmp_path / "m")
    loaded = minigen.load(tmp_path / "m", device=model.device_)
    np.testing.assert_array_equal(loaded.sample(3, seed=1), drawn)
    with pytest.raises(ValueError, match=f"{name} must stay {was!r}".replace("(", r"\(").replace(")", r"\)")):
        model.partial_fit(blobs(), **QUIET)
    model.fit(blobs(), **QUIET)
    assert model.get_params()[name] == value
    model.partial_fit(blobs(), epochs=1, **QUIET)


def test_the_likelihood_of_a_trained_vae_stays():
    model = minigen.VAE(**SMALL).fit(blobs(), **QUIET)
    bounds, pictures = model.elbo(blobs()), model.reconstruct(blobs())
    model.set_params(likelihood="gaussian", variance=0.1)
    np.testing.assert_array_equal(model.elbo(blobs()), bounds)
    np.testing.assert_array_equal(model.reconstruct(blobs()), pictures)


def test_what_only_steers_the_training_may_change(model):
    model.set_params(learning_rate=1e-4, batch_size=16, epochs=1, beta1=0.8)
    assert model.partial_fit(blobs(), **QUIET).history_.epochs == 3


def test_partial_fit_leaves_the_settings_alone(family):
    model = family(**SMALL).partial_fit(blobs(), epochs=1, **QUIET)
    assert (model.epochs, model.history_.epochs) == (2, 1)


@pytest.mark.parametrize("rows", [64, 90, 200, 300])
def test_parts_of_another_size_are_whole_epochs(family, rows):
    ends = []
    model = family(**SMALL).fit(blobs(170), callbacks=[ends.append], **QUIET)
    first = model.history_.steps
    model.partial_fit(blobs(rows), callbacks=[ends.append], **QUIET)
    steps = rows // 32 if model.kind == "gan" else -(-rows // 32)
    assert model.history_.ends[2:] == [first + steps, first + 2 * steps]
    assert [end.epoch for end in ends] == [1, 2, 3, 4] and ends[-1].epochs == 4


def test_a_refused_fit_leaves_the_trained_model_as_it_was(model, tmp_path):
    drawn = model.sample(3, seed=1)
    model.set_params(**({"output": "sigmoid"} if model.kind == "gan" else {"likelihood": "bernoulli"}))
    with pytest.raises(ValueError, match="X must lie in"):
        model.fit(blobs() * 2.0)
    model.set_params(hidden=(10**12,))
    with pytest.raises(MemoryError):
        model.fit(blobs())
    np.testing.assert_array_equal(model.sample(3, seed=1), drawn)
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(minigen.load(tmp_path / "m").sample(3, seed=1), drawn)


def test_numbers_of_numpy_are_numbers(family, tmp_path):
    settings = dict(
        hidden=(np.int64(8),),
        latent_dim=np.int32(3),
        learning_rate=np.float32(0.5),
        eps=Fraction(1, 8),
        seed=np.uint32(7),
        batch_size=np.int64(32),
        epochs=np.int64(1),
    )
    family(**settings).fit(blobs(), **QUIET).save(tmp_path / "m")
    params = minigen.load(tmp_path / "m").get_params()
    assert (params["hidden"], params["learning_rate"], params["eps"], params["seed"]) == ((8,), 0.5, 0.125, 7)


@pytest.mark.parametrize("name", ["learning_rate", "eps"])
@pytest.mark.parametrize("value", [1e300, 1e-60])
def test_numbers_beyond_float32_are_refused(family, name, value):
    with pytest.raises(ValueError, match=f"{name} must be .* that a float32 can hold"):
        family(**SMALL).set_params(**{name: value}).fit(blobs())


@pytest.mark.parametrize("word", [True, np.True_, np.float64(1) < 2])
def test_any_true_of_a_callback_stops(family, word):
    model = family(**SMALL).fit(blobs(), callbacks=[lambda end: word], **QUIET)
    assert (model.history_.epochs, model.history_.stop_reason) == (1, "callback")


@pytest.mark.parametrize("word", [None, False, np.False_, 1, "go on"])
def test_nothing_else_stops(family, word):
    assert family(**SMALL).fit(blobs(), callbacks=[lambda end: word], **QUIET).history_.stop_reason == "finished"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"callbacks": print}, TypeError, "callbacks must be a list of functions"),
        ({"callbacks": [print, 3]}, TypeError, r"callbacks\[1\] must be a function of an EpochEnd, not 3"),
        ({"callbacks": None}, TypeError, "callbacks must be"),
        ({"progress": "no"}, ValueError, "progress must be one of None, True, False, not 'no'"),
    ],
)
def test_arguments_of_a_training_are_checked_before_it(family, arguments, error, text):
    model = family(**SMALL)
    with pytest.raises(error, match=text):
        model.fit(blobs(), **arguments)
    assert not hasattr(model, "networks_")
    model.fit(blobs(), **QUIET)
    with pytest.raises(error, match=text):
        model.partial_fit(blobs(), **arguments)
    assert model.history_.epochs == 2


@pytest.mark.parametrize(
    ("z", "error", "text"),
    [
        (np.full((2, 3), np.nan), ValueError, "z must be finite"),
        (np.full((2, 3), 1e300), ValueError, "z must be finite in float32"),
        (np.ones((2, 3), complex), TypeError, "complex128"),
        (np.empty((2, 3), object), TypeError, "object"),
        ("abc", TypeError, "z must be an array of real numbers"),
        ([[1, 2, 3], [1]], ValueError, "z must be an array of numbers"),
    ],
)
def test_latents_that_are_none(model, z, error, text):
    with pytest.raises(error, match=text):
        model.generate(z) if model.kind == "gan" else model.decode(z)


@pytest.mark.parametrize(
    ("end", "error", "text"),
    [
        (np.ones((1, 3)), ValueError, r"a must be a seed \(an integer\) or a point of shape \(3,\), not \(1, 3\)"),
        (1.0, ValueError, "a must be a seed"),
        ("x", TypeError, "a must be"),
        (None, TypeError, "a must be"),
        (True, TypeError, "a must be"),
        (np.full(3, np.inf), ValueError, "a must be finite"),
    ],
)
def test_ends_of_an_interpolation_that_are_none(end, error, text):
    model = minigen.GAN(**SMALL).fit(blobs(), **QUIET)
    with pytest.raises(error, match=text):
        model.interpolate(end, 2)


def test_threads_are_checked_by_name():
    for value, error in ((0, ValueError), (1025, ValueError), ("2", TypeError), (1.5, TypeError)):
        with pytest.raises(error, match="threads must be an integer from 1 to 1024"):
            minigen.set_num_threads(value)


def test_scikit_learn_takes_the_models(family, rng):
    pytest.importorskip("sklearn", reason="no scikit-learn")
    from sklearn.base import clone
    from sklearn.exceptions import NotFittedError
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler
    from sklearn.utils.validation import check_is_fitted

    table = rng.normal(size=(80, 5))
    model = family(**SMALL)
    pipeline = make_pipeline(MinMaxScaler(), model).fit(table)
    check_is_fitted(pipeline[-1])
    assert clone(pipeline[-1]).get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        check_is_fitted(clone(model))


def test_a_search_finds_the_better_settings():
    pytest.importorskip("sklearn", reason="no scikit-learn")
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(minigen.VAE(**SMALL), {"learning_rate": [1e-2, 1e-9]}, cv=2).fit(blobs())
    assert search.best_params_ == {"learning_rate": 1e-2}


def test_score_is_the_mean_bound():
    model = minigen.VAE(**SMALL).fit(blobs(), **QUIET)
    assert model.score(blobs()) == pytest.approx(model.elbo(blobs()).mean())

"""Callbacks that raise, save or train: what the model then is, and what its history tells."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import minigen
from models import blobs

FAMILIES = pytest.mark.parametrize("family", [minigen.GAN, minigen.VAE])
QUICK = dict(epochs=3, hidden=4, latent_dim=2, batch_size=16)


class Mistake(Exception):
    pass


def fail(end):
    if end.epoch == 2:
        raise Mistake


@FAMILIES
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_callback_that_raises_ends_the_training_with_an_error(family, method, tmp_path):
    model = family(**QUICK)
    with pytest.raises(Mistake):
        getattr(model, method)(blobs(48), callbacks=[fail])
    assert model.history_.stop_reason == "error" and model.history_.epochs == 2
    model.save(tmp_path / "model")
    model = minigen.load(tmp_path / "model")
    assert model.history_.stop_reason == "error" and model.sample(2).shape == (2, 12)
    model.partial_fit(blobs(48), epochs=1)
    assert model.history_.stop_reason == "finished"
    np.testing.assert_array_equal(model.history_.values, family(**QUICK).fit(blobs(48)).history_.values)


@FAMILIES
def test_a_model_saved_in_the_middle_has_not_finished(family, tmp_path):
    reasons = []

    def save(end):
        end.model.save(tmp_path / "model")
        reasons.append((end.model.history_.stop_reason, minigen.load(tmp_path / "model").history_.stop_reason))

    family(**QUICK).fit(blobs(48), callbacks=[save])
    assert reasons == [("", "")] * 3


@FAMILIES
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_model_in_training_refuses_to_be_trained(family, method):
    model, seen = family(**QUICK), []

    def train(end):
        with pytest.raises(RuntimeError, match=f"^{method} cannot be called in a callback"):
            getattr(end.model, method)(blobs(48))
        seen.append(copy.deepcopy(end.model).set_params(epochs=1))

    model.fit(blobs(48), callbacks=[train])
    np.testing.assert_array_equal(model.history_.values, family(**QUICK).fit(blobs(48)).history_.values)
    assert len(seen) == 3
    seen[0].fit(blobs(48))  # a copy may, and so may the model itself once it is done
    model.fit(blobs(48))

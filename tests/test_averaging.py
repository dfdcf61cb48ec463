"""The average of the generator's weights: the operation, a training with it on every device, and what uses it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import minigen
from helpers import InOut, assert_close, normals
from minigen.reference import averaging
from minigen.training import checkpoint
from models import blobs

SMALL: dict[str, Any] = {"hidden": (11,), "latent_dim": 3, "batch_size": 16, "seed": 9, "learning_rate": 0.01}
QUIET: dict[str, Any] = {"progress": False}


@pytest.mark.parametrize("t", [0, 1, 90, 9_989, 9_991, 2**40])
def test_operation(arena, rng, t):
    for n in (0, 1, 17, 1000, 5003):
        average, p = normals(rng, n), normals(rng, n)
        (out,) = arena.call("average", InOut(average), p, np.array([t], np.uint64), 0.999)
        assert_close(arena.backend, out, averaging.average(average, p, t, 0.999), np.abs(average) + np.abs(p))


def test_the_first_steps_are_the_polynomial_decay_average(rng):
    """As Shamir and Zhang have it: products of what each later step left, and no initial value."""
    eta, p = 9, normals(rng, 30, 4)
    weights = np.array([(eta + 1) / (k + eta) for k in range(1, 31)])
    for k in range(1, 31):
        weights[: k - 1] *= 1 - (eta + 1) / (k + eta)
    average = np.full(4, 1e3)
    for t in range(30):
        average = averaging.average(average, p[t], t, 0.999)
    np.testing.assert_allclose(average, weights @ p, rtol=1e-11, atol=1e-12)
    assert averaging.weight(9_990, 0.999) == pytest.approx(0.001)
    assert averaging.weight(10**6, 0.999) == 1 - 0.999


def test_a_training_averages_the_weights_of_every_step(backend, monkeypatch):
    """Epochs of one step, so that a callback sees the weights of each; the average against float64."""
    monkeypatch.setattr("minigen.estimators.base.get_backend", lambda device, precision: backend)
    seen = []
    model = minigen.GAN(**SMALL, ema=0.5, epochs=13)
    model.fit(blobs(16, 21), callbacks=[lambda end: seen.append(end.model.generator_.state())], **QUIET)
    for key, average in model.averaged_generator_.state().items():
        expected = np.zeros(average.shape)
        for t, state in enumerate(seen):
            w = max(0.5, 10 / (10 + t))  # the exponential average begins at t = 10
            expected += w * (state[key].astype(np.float64) - expected)
        assert_close(backend, average, expected, np.abs(expected) + 0.1)
        assert np.abs(average - seen[-1][key]).max() > 1e-5


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_saved_and_gone_on_with_to_the_bit(device, tmp_path):
    if not minigen.devices()[device].usable:
        pytest.skip("no compiled backend")
    X = blobs(50, 21)
    whole = minigen.GAN(**SMALL, ema=0.9, epochs=4, device=device).fit(X, **QUIET)
    half = minigen.GAN(**SMALL, ema=0.9, epochs=2, device=device).fit(X, **QUIET)
    half.save(tmp_path / "half")
    loaded = minigen.load(tmp_path / "half", device=device)
    np.testing.assert_array_equal(loaded.sample(5, seed=1), half.sample(5, seed=1))
    for model in (half, loaded):
        model.partial_fit(X, epochs=2, **QUIET)
        for key, value in whole._state.items():
            assert value.tobytes() == model._state[key].tobytes(), key
        np.testing.assert_array_equal(model.sample(5, seed=1), whole.sample(5, seed=1))
    plain = minigen.GAN(**SMALL, epochs=4, device=device).fit(X, **QUIET)
    for key, value in plain.generator_.state().items():
        np.testing.assert_array_equal(value, whole.generator_.state()[key], err_msg="the average changed the training")


def test_what_samples_with_the_average():
    X = blobs(48, 16).reshape(48, 4, 4).astype(np.float32) / 255
    model = minigen.GAN(**SMALL, ema=0.99, epochs=6, device="numpy").fit(X, **QUIET)
    z = model.latent(4, seed=2)
    with_average = model._to_data(model._apply(model.averaged_generator_, z))
    without = model._to_data(model._apply(model.generator_, z))
    assert np.abs(with_average - without).max() > 1e-3
    for draw in (model.sample, lambda n, seed, **how: model.generate(model.latent(n, seed), **how)):
        np.testing.assert_array_equal(draw(4, seed=2), with_average)
        np.testing.assert_array_equal(draw(4, seed=2, average=True), with_average)
        np.testing.assert_array_equal(draw(4, seed=2, average=False), without)
    np.testing.assert_allclose(model.interpolate(z[0], z[1], 2)[0], with_average[0], atol=1e-6)
    np.testing.assert_allclose(model.interpolate(z[0], z[1], 2, average=False)[0], without[0], atol=1e-6)
    shown = [model.show(4, seed=2, **how)._repr_png_() for how in ({}, {"average": True}, {"average": False})]
    assert shown[0] == shown[1] != shown[2]


def test_before_the_first_step_it_is_the_first_weights():
    model = minigen.GAN(**SMALL, ema=0.99, epochs=0, device="numpy").fit(blobs(), **QUIET)
    np.testing.assert_array_equal(model.sample(3, seed=1), model.sample(3, seed=1, average=False))


def test_refusals():
    for bad in (1, 1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match="ema must be a finite number in"):
            minigen.GAN(ema=bad).fit(blobs())
    model = minigen.GAN(**SMALL, epochs=1, device="numpy").fit(blobs(), **QUIET)
    for draw in (model.sample, lambda average: model.interpolate(1, 2, average=average)):
        with pytest.raises(ValueError, match="average must be None or False for a model that was trained with ema=0"):
            draw(average=True)
    with pytest.raises(ValueError, match="average must be one of None, True, False, not 0.5"):
        model.sample(average=0.5)
    with pytest.raises(ValueError, match="ema must stay 0.0 in partial_fit"):
        model.set_params(ema=0.9).partial_fit(blobs())


def test_a_file_without_the_average_is_refused(tmp_path):
    minigen.GAN(**SMALL, ema=0.9, epochs=1, device="numpy").fit(blobs(), **QUIET).save(tmp_path / "m")
    settings, tensors = checkpoint.read(tmp_path / "m")
    del tensors["training.generator.average"]
    checkpoint.write(tmp_path / "m", json.dumps(settings), tensors)
    with pytest.raises(minigen.ModelFileError, match=r"training\.generator\.average is missing"):
        minigen.load(tmp_path / "m")


def test_padding_costs_no_update_of_its_own():
    """On the CPU the updates stay in the weight gradients' epilogue: layers of widths that are no multiples of 16."""
    pytest.importorskip("minigen.cpu", reason="no compiled backend", exc_type=ImportError)
    updates = {}
    for ema in (0.0, 0.9):
        model = minigen.GAN(**SMALL, ema=ema, epochs=0, device="cpu", precision="ieee").fit(blobs(32, 21), **QUIET)
        step = model._step(blobs(32, 21))
        names = [call["operation"] for call in model._ops.capture(lambda step=step: step.compute(16)).describe()]
        updates[ema] = names.count("adam"), names.count("dense_wgrad_adam"), names.count("average")
    assert updates[0.9] == (*updates[0.0][:2], 1)

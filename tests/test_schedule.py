"""Schedules of the learning rate: the operation on every device, and trainings that follow it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigen
from helpers import Out, tolerance
from minigen.reference.schedule import SCHEDULES, rate
from models import blobs

SMALL: dict[str, Any] = {"hidden": (7,), "latent_dim": 3, "batch_size": 16, "seed": 4}
QUIET: dict[str, Any] = {"progress": False}
FAMILIES = pytest.mark.parametrize("family", [minigen.GAN, minigen.VAE])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("warmup", "horizon"), [(0, 1), (0, 40), (1, 2), (7, 60), (59, 60), (3, 2**31 - 1)])
def test_operation(arena, schedule, warmup, horizon):
    for t in sorted({0, 1, warmup, warmup + 1, 9 * horizon // 10, horizon - 2, horizon - 1, horizon, 2**40} - {-1}):
        (out,) = arena.call(
            "scheduled_rate", Out(1), np.array([0.375]), np.array([t], np.uint64), schedule, warmup, horizon
        )
        expected = rate(0.375, t, schedule, warmup, horizon)
        assert abs(out[0] - expected) <= tolerance(arena.backend) * expected, (t, out[0], expected)


def test_the_values():
    rates = {kind: [rate(1.0, t, kind, 2, 12) for t in (0, 1, 2, 7, 10, 11, 12, 99)] for kind in SCHEDULES}
    np.testing.assert_allclose(rates["constant"], [0.5, 1, 1, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(rates["linear"], [0.5, 1, 1, 0.5, 0.2, 0.1, 0.1, 0.1])
    np.testing.assert_allclose(rates["step"], [0.5, 1, 1, 1, 1, 0.1, 0.1, 0.1])
    assert (rate(1.0, 8, "step", 0, 10), rate(1.0, 9, "step", 0, 10)) == (1, 0.1)
    last = (1 + np.cos(np.pi * 0.9)) / 2
    np.testing.assert_allclose(rates["cosine"], [0.5, 1, 1, 0.5, (1 + np.cos(np.pi * 0.8)) / 2, last, last, last])


def test_the_cosine_is_pytorchs():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    for t in range(50):
        assert rate(0.3, t, "cosine", 0, 50) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()


def rates_of(model: Any) -> list[float]:
    return [float(optimizer.lr[0]) for optimizer in model._run.step.optimizers]


@FAMILIES
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_training_follows_it(family, schedule):
    """And past its end keeps the last rate; a callback sets what is scheduled."""
    seen: list[float] = []

    def watch(end):
        seen.append(rates_of(end.model)[-1])
        if end.step == 12:
            end.model.learning_rate = 0.004

    model = family(**SMALL, epochs=5, schedule=schedule, warmup=1.5, learning_rate=0.001, device="numpy")
    X = blobs(64)  # 4 steps an epoch
    model.fit(X, callbacks=[watch], **QUIET).partial_fit(X, epochs=2, callbacks=[watch], **QUIET)
    bases = [0.001] * 3 + [0.004] * 4
    expected = [rate(base, 4 * i + 3, schedule, 6, 20) for i, base in enumerate(bases)]
    np.testing.assert_allclose(seen, expected, rtol=1e-6)


@FAMILIES
def test_saved_in_the_middle_and_gone_on_with_to_the_bit(family, tmp_path):
    settings = {**SMALL, "epochs": 4, "schedule": "cosine", "warmup": 0.5, "device": "numpy"}
    X = blobs(70)
    whole = family(**settings).fit(X, **QUIET)
    family(**settings).fit(X, callbacks=[lambda end: end.epoch == 2], **QUIET).save(tmp_path / "half")
    half = minigen.load(tmp_path / "half", device="numpy").partial_fit(X, epochs=2, **QUIET)
    for key, value in whole._state.items():
        assert value.tobytes() == half._state[key].tobytes(), key
    constant = family(**{**settings, "schedule": "constant", "warmup": 0.0}).fit(X, **QUIET)
    name = whole.networks_[0].name
    assert constant._state[f"{name}.params"].tobytes() != whole._state[f"{name}.params"].tobytes()


def test_a_rate_for_each_player():
    """And a callback may change them."""
    seen = []

    def watch(end):
        seen.append(rates_of(end.model))
        end.model.learning_rate = (0.25, 0.5)

    minigen.GAN(**SMALL, epochs=2, learning_rate=(0.125, 2.0**-10), device="numpy").fit(
        blobs(), callbacks=[watch], **QUIET
    )
    assert seen == [[0.125, 2.0**-10], [0.25, 0.5]]


def test_a_pair_survives_a_file(tmp_path):
    minigen.GAN(**SMALL, epochs=1, learning_rate=(0.1, 0.2), device="numpy").fit(blobs(), **QUIET).save(tmp_path / "m")
    assert minigen.load(tmp_path / "m").learning_rate == (0.1, 0.2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "exponential"}, "schedule must be one of 'constant', .*, not 'exponential'"),
        ({"warmup": -1}, "warmup must be a finite number in"),
        ({"warmup": 3, "epochs": 3, "schedule": "linear"}, "warmup must be less than the 3 epochs .*, not 3"),
        ({"epochs": 10**9, "schedule": "linear"}, "epochs, in steps of a schedule, must be an integer from 1 to"),
    ],
)
@FAMILIES
def test_refusals(family, settings, message):
    with pytest.raises(ValueError, match=message):
        family(**SMALL, device="numpy", **settings).fit(blobs(), **QUIET)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ((0.1,), r"learning_rate must be a number or a pair of them, not \(0.1,\)"),
        ((0.1, 0.2, 0.3), "learning_rate must be a number or a pair"),
        ((0.1, 0), r"learning_rate\[1\] must be a finite number in"),
        ((0.1, "x"), r"learning_rate\[1\] must be a finite number in"),
    ],
)
def test_bad_pairs(rates, message):
    with pytest.raises((TypeError, ValueError), match=message):
        minigen.GAN(learning_rate=rates).fit(blobs())
    with pytest.raises(TypeError, match="learning_rate must be a finite number"):
        minigen.VAE(learning_rate=(0.1, 0.2)).fit(blobs())

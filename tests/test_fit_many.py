"""Models trained at once: each with the bits that it has alone, whatever becomes of the others."""

from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest

import minigen
from minigen.estimators.sharing import SharedRows
from minigen.training.progress import SharedBar
from models import blobs

SMALL = {"hidden": (8,), "latent_dim": 3, "batch_size": 32, "epochs": 3, "device": "cpu"}
DIVERGES = {**SMALL, "learning_rate": 1e18, "optimizer": "sgd"}
QUIET = {"progress": False}


@pytest.fixture
def two_threads():
    """As on a machine with two cores, whatever this one has."""
    before = minigen.get_num_threads()
    minigen.cpu._native.set_num_threads(2, True)
    yield
    minigen.cpu._native.set_num_threads(before)


def floats() -> np.ndarray:
    return np.random.default_rng(3).normal(2.0, 3.0, (70, 7)).astype(np.float32)


def various(device: str) -> list:
    """Seeds, rates, losses, layers and kinds of model that differ."""
    at = {**SMALL, "device": device}
    return [
        minigen.GAN(**at, seed=1),
        minigen.GAN(**at, seed=2, learning_rate=1e-3, loss="hinge", r1=0.5),
        minigen.GAN(**{**at, "hidden": (9, 5), "batch_size": 17}, normalization="batch", ema=0.9),
        minigen.VAE(**at, likelihood="gaussian", beta=0.5),
        minigen.VAE(**at, likelihood="gaussian", variance="learned", seed=3),
    ]


def same(a, b) -> bool:
    """Whether two models have the same weights, moments and losses to the bit."""
    states = [model._state for model in (a, b)]
    assert states[0].keys() == states[1].keys()
    equal = all(states[0][key].tobytes() == states[1][key].tobytes() for key in states[0])
    return equal and a.history_.values.tobytes() == b.history_.values.tobytes()


@pytest.mark.parametrize("device", ["cpu", "numpy"])
def test_each_has_the_bits_that_it_has_alone(device, two_threads):
    X = floats()
    alone = [model.fit(X, **QUIET) for model in various(device)[: 5 if device == "cpu" else 2]]
    models = various(device)[: len(alone)]
    assert minigen.fit_many(models, X, **QUIET) == models
    assert all(same(*pair) for pair in zip(models, alone, strict=True))
    assert not same(models[0], models[1]) and [m.history_.stop_reason for m in models] == ["finished"] * len(alone)


def test_labels_go_to_all(two_threads):
    X, y = blobs(60), np.arange(60) % 3
    models = minigen.fit_many([minigen.GAN(**SMALL, seed=seed) for seed in range(3)], X, y, **QUIET)
    assert all(same(model, minigen.GAN(**SMALL, seed=seed).fit(X, y, **QUIET)) for seed, model in enumerate(models))
    assert models[2].sample(4, y=1).shape == (4, 12)


def test_what_else_fit_takes_goes_to_each(two_threads):
    models = [minigen.GAN(**SMALL, seed=seed) for seed in range(2)]
    minigen.fit_many(models, blobs(), validation=blobs(40, seed=1), metrics=["frechet distance"], **QUIET)
    assert all(list(model.history_.evaluations.epochs) == [1, 2, 3] for model in models)
    assert same(models[1], minigen.GAN(**SMALL, seed=1).fit(blobs(), **QUIET))


def test_a_core_for_each_and_all_for_the_last(two_threads):
    """Two are in training at a time, each on one thread; the one that is left has both."""
    meeting, seen = threading.Barrier(2), []

    class Watched(minigen.GAN):
        def fit(self, X, y=None, **options):
            if self.seed < 2:
                meeting.wait(timeout=60)
                seen.append((threading.current_thread().name, minigen.get_num_threads()))
                meeting.wait(timeout=60)
            else:
                until = time.monotonic() + 60
                while minigen.get_num_threads() != 2 and time.monotonic() < until:  # the other thread has to end
                    time.sleep(1e-3)
                seen.append(("the last", minigen.get_num_threads()))
            return super().fit(X, y, **options)

    minigen.fit_many([Watched(**SMALL, seed=seed) for seed in range(3)], blobs(), **QUIET)
    assert len({name for name, _ in seen[:2]}) == 2 and [threads for _, threads in seen] == [1, 1, 2]
    assert minigen.get_num_threads() == 2


def test_one_that_diverges_does_not_end_the_others(two_threads):
    models = [minigen.VAE(**SMALL), minigen.GAN(**DIVERGES), minigen.GAN(**SMALL), minigen.GAN(**DIVERGES, seed=1)]
    with pytest.raises(
        minigen.SomeDiverged, match=r"2 of 4 models diverged.*models\[1\] in step \d+, models\[3\]"
    ) as e:
        minigen.fit_many(models, blobs(), **QUIET)
    assert list(e.value.errors) == [1, 3] and e.value.step == e.value.errors[1].step
    assert [m.history_.stop_reason for m in models] == ["finished", "diverged", "finished", "diverged"]
    assert same(models[2], minigen.GAN(**SMALL).fit(blobs(), **QUIET))
    with pytest.raises(minigen.TrainingDiverged):
        minigen.GAN(**DIVERGES).fit(blobs(), **QUIET)


def test_divergence_may_be_a_warning(two_threads):
    models = [minigen.GAN(**DIVERGES), minigen.GAN(**SMALL)]
    with pytest.warns(RuntimeWarning, match=r"1 of 2 models diverged") as warned:
        minigen.fit_many(models, blobs(), **QUIET, on_divergence="warn")
    assert warned[0].filename == __file__ and models[1].history_.epochs == 3


def test_callbacks_hear_of_every_model_one_at_a_time(two_threads):
    models = [minigen.GAN(**SMALL, seed=seed) for seed in range(4)]
    heard, inside = [], threading.Lock()

    def callback(end):
        assert inside.acquire(blocking=False)
        time.sleep(1e-3)
        heard.append((end.model.seed, end.epoch))
        inside.release()
        return end.model.seed == 2 and end.epoch == 1

    minigen.fit_many(models, blobs(), callbacks=[callback], **QUIET)
    assert sorted(heard) == [(seed, epoch) for seed in range(4) for epoch in ([1] if seed == 2 else [1, 2, 3])]
    assert [m.history_.stop_reason for m in models] == ["finished", "finished", "callback", "finished"]


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_in_a_callback_ends_all_and_is_raised(threads, two_threads):
    minigen.cpu._native.set_num_threads(threads, True)
    models = [minigen.GAN(**{**SMALL, "epochs": 10**6}, seed=seed) for seed in range(3)]
    heard = set()

    def fail(end):
        heard.add(end.model.seed)
        if end.model is models[0] and end.epoch >= 2 and len(heard) == threads:  # the other thread may begin late
            raise ZeroDivisionError("of the user's")

    with pytest.raises(ZeroDivisionError) as error:
        minigen.fit_many(models, blobs(), callbacks=[fail], **QUIET)
    assert error.value.__notes__[0].startswith("models[0]: GAN(")
    assert models[0].history_.stop_reason == "error"
    assert threads == 1 or models[1].history_.stop_reason == "interrupted"
    assert not hasattr(models[2], "history_")


@pytest.mark.parametrize("device", ["cpu", "numpy"])
def test_ctrl_c_ends_all_and_keeps_what_was_learnt(device, two_threads):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    models = [minigen.GAN(**{**SMALL, "epochs": 10**6, "device": device}, seed=seed) for seed in range(3)]

    def interrupt(end):
        if end.model is models[0] and end.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    try:
        assert minigen.fit_many(models, blobs(), callbacks=[interrupt], **QUIET) == models
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert {(m.history_.stop_reason, m.history_.stop_signal) for m in models} == {("interrupted", signal.SIGINT)}
    assert models[0].history_.epochs >= 2 and models[2].history_.epochs == 0


@pytest.mark.parametrize(
    ("models", "error", "message"),
    [
        ([minigen.GAN(**SMALL), 7], TypeError, r"models\[1\] must be a model such as minigen.GAN\(\), not 7"),
        ([minigen.GAN(**SMALL)] * 2, ValueError, r"models\[1\] must be in the list once"),
        ([minigen.VAE(**SMALL), minigen.GAN(beta1=2)], ValueError, r"models\[1\]: beta1 must be a finite number"),
        ([minigen.GAN(device="tpu")], ValueError, r"models\[0\]: device must be one of"),
    ],
)
def test_bad_models_are_told_before_any_work(models, error, message):
    with pytest.raises(error, match=message):
        minigen.fit_many(models, blobs(), **QUIET)
    assert not hasattr(models[0], "history_")


def test_bad_data_and_options_are_told(two_threads):
    models = [minigen.GAN(**SMALL, seed=seed) for seed in range(3)]
    with pytest.raises(ValueError, match="X must be finite|NaN"):
        minigen.fit_many(models, np.full((50, 3), np.nan), **QUIET)
    with pytest.raises(ValueError, match="on_divergence must be one of 'raise', 'warn', not 'ignore'"):
        minigen.fit_many(models, blobs(), on_divergence="ignore")
    with pytest.raises(TypeError, match=r"callbacks\[0\] must be a function"):
        minigen.fit_many(models, blobs(), callbacks=[3])
    with pytest.raises(TypeError, match="fit\\(\\) got an unexpected keyword argument 'epochs'"):
        minigen.fit_many(models, blobs(), epochs=3)
    assert minigen.fit_many([], blobs()) == []


def test_equal_rows_are_kept_once(two_threads, monkeypatch):
    """Of a table that each model standardises; -0 and 0 are not the same row."""
    kept, known = [], SharedRows.one_of
    monkeypatch.setattr(SharedRows, "one_of", lambda self, rows: kept.append(known(self, rows)) or kept[-1])
    minigen.fit_many([minigen.VAE(**SMALL, likelihood="gaussian", seed=seed) for seed in range(4)], floats(), **QUIET)
    assert len(kept) == 4 and all(rows is kept[0] for rows in kept)
    rows = SharedRows()
    zeros, negative = np.zeros((2, 3), np.float32), np.full((2, 3), -0.0, np.float32)
    assert rows.one_of(zeros) is zeros and rows.one_of(negative) is negative
    assert rows.one_of(zeros.copy()) is zeros and rows.one_of(zeros.T) is not zeros


def test_one_bar_for_all(two_threads, capsys):
    models = [minigen.GAN(**SMALL), minigen.GAN(**DIVERGES), minigen.GAN(**SMALL, seed=1)]
    with pytest.raises(minigen.SomeDiverged):
        minigen.fit_many(models, blobs(), progress=True)
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "3/3 models, 1 diverged: 100%" in err


def test_the_bars_total_counts_those_that_have_not_begun():
    shared = SharedBar(4, False)
    first, second = shared.part(100), shared.part(200)
    assert shared.bar.total == 600
    with second:
        second.update(50)
    assert shared.bar.total == 2 * (100 + 50)
    with first:
        first.update(100)
    assert shared.steps == 150

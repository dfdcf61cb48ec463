"""The parts of a training, each by itself: epochs, the ring of losses, the watch for what is not finite, the history,
and what a model file brings back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.training import loop
from minigen.training.history import History
from models import blobs, gan_training, vae_training

SMALL = {"hidden": (6,), "latent_dim": 2, "batch_size": 20, "progress": False}


def train(training: Any, history: History, epochs: int) -> None:
    loop.train(training, SimpleNamespace(learning_rate=1e-3), history, epochs, progress=False)


def fill(backend: Any, buffer: Any, value: float) -> None:
    backend.upload(np.full(buffer.shape, value, backend.dtype), out=buffer)


# --- epochs and the ring of losses -------------------------------------------------------------------


@pytest.mark.parametrize(("done", "begun"), [(0, 0), (1, 6), (5, 6), (6, 6), (7, 12)])
def test_beginning_an_epoch_goes_on_and_never_back(backend, done, begun):
    training = gan_training(backend, blobs(200), (3,))
    assert training.steps_per_epoch == 6
    for _ in range(done):
        training.run(1)
    training.begin_epoch()
    assert training.done == begun and backend.download(training.step.counter).tolist() == [begun]
    assert training.steps_left == 6


@pytest.mark.parametrize("ring", [1, 3, 7])
def test_a_short_ring_of_losses_loses_none(monkeypatch, ring):
    """Chunks are never longer than the ring, and its rows are those of their steps, whichever way it has turned."""
    whole = minigen.train_vae(blobs(410), epochs=3, seed=5, **SMALL).history_
    assert whole.steps == 3 * 21
    monkeypatch.setattr("minigen.models.step.RING", ring)
    monkeypatch.setattr("minigen.training.loop.SECONDS_BETWEEN_READS", 1e9)  # chunks grow as long as they may
    history = minigen.train_vae(blobs(410), epochs=3, seed=5, **SMALL).history_
    np.testing.assert_array_equal(history.values, whole.values)
    assert history.ends == whole.ends == [21, 42, 63]


def test_the_latest_losses_are_the_latest(backend, monkeypatch):
    monkeypatch.setattr("minigen.models.step.RING", 4)
    training = gan_training(backend, blobs(400), (3,), batch_size=20)
    seen = []
    for _ in range(7):
        training.run(1)
        seen.append(backend.download(training.step.losses).copy())
    np.testing.assert_array_equal(training.recent_losses(3), seen[-3:])


# --- what is not finite --------------------------------------------------------------------------------


class Planting:
    """The program of a step that, in step number ``at`` (from 1), does something more ``before`` or ``after`` it."""

    def __init__(self, training: Any, at: int, before: Any = None, after: Any = None) -> None:
        self.training, self.at = training, at
        self.before, self.after = before or (lambda: None), after or (lambda: None)

    def run(self, steps: int) -> None:
        ops = self.training.ops
        for _ in range(steps):
            now = int(ops.download(self.training.step.counter)[0]) + 1 == self.at
            if now:
                self.before()
            self.training.step.compute(self.training.step.batch_size)
            if now:
                self.after()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_loss_that_is_not_finite_ends_the_training_though_the_weights_are_finite(backend, value):
    training = gan_training(backend, blobs(400), (3,))
    program = Planting(training, 6, after=lambda: fill(backend, training.step.ring, value))
    training._programs[training.step.batch_size] = program
    history = History(training.step.loss_names)
    with pytest.raises(minigen.TrainingDiverged) as caught:
        train(training, history, 1)
    assert (caught.value.step, history.steps, history.stop_reason, training.done) == (6, 5, "diverged", 5)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (["generator.1", "discriminator.0"], "generator.1"),
        (["generator.0", "generator.1"], "generator.0"),
        (["discriminator.1", "generator.0"], "generator.0"),
        (["discriminator.1", "discriminator.0"], "discriminator.0"),
    ],
)
def test_of_two_bad_layers_the_one_that_data_reach_first_is_named(backend, bad, named):
    training = gan_training(backend, blobs(400), (3,))
    layers = {layer.name: layer for net in training.step.networks for layer in net.layers}
    plant = lambda: [fill(backend, layers[name].params["W"], np.nan) for name in bad]  # noqa: E731
    training._programs[training.step.batch_size] = Planting(training, 3, before=plant)
    with pytest.raises(minigen.TrainingDiverged, match=f"output of layer {named}") as caught:
        train(training, History(training.step.loss_names), 1)
    assert (caught.value.step, caught.value.layer) == (3, named)


@pytest.mark.parametrize("make", [gan_training, vae_training])
def test_the_search_follows_the_data_forward_and_the_gradient_backward(backend, make):
    training = make(backend, blobs(100), (3,))
    training.run(1)
    assert training.first_non_finite() is None
    (first, at_first), (second, at_second) = training.step.workspaces(training.step.batch_size)
    in_order = [
        (first.layers[0], at_first, 0),
        (first.layers[1], at_first, 1),
        (second.layers[0], at_second, 0),
        (second.layers[1], at_second, 1),
    ]
    for layer, _, _ in in_order:
        fill(backend, layer.params["W"], np.nan)
        assert training.first_non_finite() == ("weight", in_order[0][0].name)
    for i, (layer, work, at) in enumerate(in_order):  # a gradient reaches the last layer first
        fill(backend, work[at].dz, np.inf)
        assert training.first_non_finite() == ("gradient", layer.name), i
    for layer, work, at in reversed(in_order):  # outputs come before gradients, the first layer's first
        fill(backend, work[at].y, np.inf)
        assert training.first_non_finite() == ("output", layer.name)


def test_a_bias_is_a_weight_too(backend):
    training = gan_training(backend, blobs(100), (3,))
    training.run(1)
    fill(backend, training.step.discriminator.layers[1].params["b"], np.nan)
    assert training.first_non_finite() == ("weight", "discriminator.1")


def test_of_a_smaller_last_batch_only_its_own_rows_are_looked_at(backend):
    training = vae_training(backend, blobs(100), (3,), batch_size=32)
    for _ in range(3):
        training.run(1)
    for stored in (*training.step.encoder_work, *training.step.decoder_work):
        for buffer in (stored.y, stored.dz):
            fill(backend, buffer, np.nan)  # what a whole batch left there
    training.run(1)  # of 4 rows
    assert training.first_non_finite() is None
    fill(backend, training.step.encoder_work[1].y[3:4], np.nan)
    assert training.first_non_finite() == ("output", "encoder.1")


# --- history ---------------------------------------------------------------------------------------------


def test_a_callback_hears_the_means_of_the_epoch_that_ended():
    ends: list[Any] = []
    model = minigen.train_gan(blobs(100), epochs=3, callbacks=[ends.append], **SMALL)
    history = model.history_
    assert [(end.epoch, end.epochs, end.step) for end in ends] == [(1, 3, 5), (2, 3, 10), (3, 3, 15)]
    for i, end in enumerate(ends):
        assert end.model is model
        assert end.seconds == history.seconds[i] > 0
        for name, losses in history.losses.items():
            assert end.losses[name] == pytest.approx(losses[5 * i : 5 * i + 5].mean(), rel=1e-6)
            assert history.epoch_means()[i, history.names.index(name)] == pytest.approx(end.losses[name])
    assert history.last_epoch() == ends[-1].losses


def told(history: History) -> dict[str, Any]:
    """All that a history tells."""
    names = ("names", "epochs", "steps", "steps_under_way", "ends", "seconds", "stop_reason")
    return {
        **{name: getattr(history, name) for name in names},
        "values": history.values.tolist(),
        "repr": repr(history),
        "means": history.epoch_means().tolist(),
        "losses": {k: v.tolist() for k, v in history.losses.items()},
    }


def test_a_restored_history_tells_the_same(rng):
    history = History(("a", "b"))
    for steps, seconds in ((3, 0.5), (2, 0.25)):
        history.add(rng.normal(size=(steps, 2)).astype(np.float32))
        history.end_epoch(seconds)
    history.add(rng.normal(size=(4, 2)).astype(np.float32))
    history.stop_reason = "interrupted"
    assert (history.epochs, history.steps, history.steps_under_way, history.ends) == (2, 9, 4, [3, 5])
    again = History(history.names)
    again.restore(history.values, np.array(history.ends), history.seconds, history.stop_reason)
    assert told(again) == told(history)


@pytest.mark.parametrize(
    ("values", "ends", "seconds"),
    [
        (np.zeros((4, 3)), [2], [1.0]),
        (np.zeros(4), [2], [1.0]),
        (np.zeros((4, 2)), [2], [1.0, 1.0]),
        (np.zeros((4, 2)), [3, 2], [1.0, 1.0]),
        (np.zeros((4, 2)), [2, 2], [1.0, 1.0]),
        (np.zeros((4, 2)), [5], [1.0]),
        (np.zeros((4, 2)), [0], [1.0]),
    ],
)
def test_a_history_whose_parts_do_not_agree_is_refused(values, ends, seconds):
    with pytest.raises(ValueError, match="the saved history"):
        History(("a", "b")).restore(values, np.array(ends), seconds, "finished")


@pytest.mark.parametrize("family", [minigen.GAN, minigen.VAE])
def test_a_loaded_model_is_told_where_it_is_and_where_from(family, tmp_path):
    settings = {name: value for name, value in SMALL.items() if name != "progress"}
    model = family(epochs=4, device="numpy", **settings)
    model.fit(blobs(100), callbacks=[lambda end: end.epoch == 2], progress=False)
    model.source_ = "blobs.npy"
    model.save(tmp_path / "m")
    loaded = minigen.load(tmp_path / "m", device="numpy")
    assert (loaded.device, loaded.device_, loaded.precision_, loaded.source_) == ("numpy", "numpy", "ieee", "blobs.npy")
    assert (loaded.item_shape_, loaded.data_dtype_) == ((12,), np.uint8)
    assert told(loaded.history_) == told(model.history_) and loaded.history_.stop_reason == "callback"
    assert minigen.load(tmp_path / "m").device == "auto"


def test_an_epochs_seconds_are_its_own(monkeypatch):
    """By a clock that moves on by a second whenever it is looked at: no epoch counts the seconds of another."""
    clock = iter(range(10**6))
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    history = minigen.train_gan(blobs(100), epochs=8, **SMALL).history_
    assert len(history.seconds) == 8 and min(history.seconds) > 0
    assert sum(history.seconds) <= next(clock)

"""The loop: history, callbacks, progress, interruption, divergence, continuation, repeats."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import minigen
from minigen.training.run import TrainingRun
from models import blobs, gan_training, run

DEVICES = [name for name, device in minigen.devices().items() if device.usable]
SMALL = {"hidden": (16,), "latent_dim": 4, "batch_size": 32, "progress": False}


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


@pytest.mark.parametrize("train", [minigen.train_gan, minigen.train_vae])
def test_the_same_seed_gives_the_same_bits(device, train):
    a, b = (train(blobs(), epochs=3, seed=7, device=device, **SMALL) for _ in range(2))
    np.testing.assert_array_equal(a.history_.values, b.history_.values)
    for net, other in zip(a.networks_, b.networks_, strict=True):
        for key, value in net.state().items():
            np.testing.assert_array_equal(value, other.state()[key])
    c = train(blobs(), epochs=3, seed=8, device=device, **SMALL)
    assert not np.array_equal(a.history_.values, c.history_.values)


@pytest.mark.parametrize("train", [minigen.train_gan, minigen.train_vae])
def test_continuing_is_as_if_it_had_never_stopped(device, train):
    whole = train(blobs(), epochs=5, device=device, **SMALL)
    parts = train(blobs(), epochs=2, device=device, **SMALL).partial_fit(blobs(), epochs=3, progress=False)
    np.testing.assert_array_equal(whole.history_.values, parts.history_.values)
    np.testing.assert_array_equal(whole.sample(5, seed=1), parts.sample(5, seed=1))
    assert parts.history_.epochs == 5


def test_fit_starts_again(device):
    model = minigen.GAN(epochs=2, device=device, hidden=8, batch_size=32).fit(blobs())
    first = model.history_.values.copy()
    np.testing.assert_array_equal(model.fit(blobs()).history_.values, first)


def test_history_holds_every_step(tmp_path):
    model = minigen.train_vae(blobs(100), epochs=3, **SMALL)
    history = model.history_
    assert (history.epochs, history.steps) == (3, 12)
    assert list(history.losses) == ["loss", "reconstruction", "kl"]
    total = history.losses["reconstruction"] + history.losses["kl"]
    np.testing.assert_allclose(history.losses["loss"], total, rtol=1e-6)
    history.to_csv(tmp_path / "h.csv")
    with open(tmp_path / "h.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["step"] for row in table] == ["4", "8", "12"]
    rows = np.array([32, 32, 32, 4])
    np.testing.assert_array_equal(history.rows, np.tile(rows, 3))
    assert float(table[1]["kl"]) == pytest.approx(np.average(history.losses["kl"][4:8], weights=rows), rel=1e-5)
    assert "3 epochs" in repr(history)


def test_the_mean_of_an_epoch_is_over_rows(device, tmp_path):
    """129 rows at 128 a batch: the row left over counts as one row, wherever the mean is read, also after loading."""
    seen = []
    settings = {**SMALL, "batch_size": 128, "learning_rate": 1e-6}
    watch = lambda end: seen.append(end.losses["loss"])  # noqa: E731
    model = minigen.train_vae(blobs(129), epochs=4, device=device, callbacks=[watch], **settings)
    steps = model.history_.losses["loss"].astype(np.float64).reshape(4, 2)
    expected = (128 * steps[:, 0] + steps[:, 1]) / 129
    np.testing.assert_allclose(model.history_.epoch_means()[:, 0], expected, rtol=1e-12)
    np.testing.assert_allclose(seen, expected, rtol=1e-12)
    assert abs(expected - steps.mean(axis=1)).max() > 0.01, "the last row is like the others: nothing is tested"
    model.save(tmp_path / "m")
    loaded = minigen.load(tmp_path / "m", device=device)
    np.testing.assert_array_equal(loaded.history_.epoch_means(), model.history_.epoch_means())
    np.testing.assert_array_equal(loaded.history_.rows, model.history_.rows)
    gan = minigen.train_gan(blobs(129), epochs=2, device=device, **settings)
    np.testing.assert_array_equal(gan.history_.rows, [128, 128])


def test_callbacks_see_every_epoch_and_can_stop(device):
    seen = []

    def watch(end):
        seen.append((end.epoch, end.step, end.model.sample(1, seed=0).shape))
        return end.epoch == 3

    model = minigen.train_gan(blobs(), epochs=10, device=device, callbacks=[watch], **SMALL)
    assert seen == [(1, 6, (1, 12)), (2, 12, (1, 12)), (3, 18, (1, 12))]
    assert model.history_.epochs == 3 and model.history_.stop_reason == "callback"


def test_every_callback_is_called_even_when_one_stops():
    calls = []
    callbacks = [lambda end: True, lambda end: calls.append(end.epoch)]
    minigen.train_gan(blobs(), epochs=3, callbacks=callbacks, **SMALL)
    assert calls == [1]


@pytest.mark.parametrize("train", [minigen.train_gan, minigen.train_vae])
def test_a_callback_steers_the_learning_rate(train, device):
    """As if the training had been stopped there and gone on with the other rate, bit for bit."""

    def halve_after_two(end):
        if end.epoch == 2:
            end.model.learning_rate /= 2

    steered = train(blobs(), epochs=4, device=device, callbacks=[halve_after_two], **SMALL)
    stopped = train(blobs(), epochs=2, device=device, **SMALL)
    steady = train(blobs(), epochs=4, device=device, **SMALL)
    stopped.set_params(learning_rate=stopped.learning_rate / 2).partial_fit(blobs(), epochs=2, progress=False)
    np.testing.assert_array_equal(steered.history_.values, stopped.history_.values)
    np.testing.assert_array_equal(steered.sample(3, seed=1), stopped.sample(3, seed=1))
    assert not np.array_equal(steered.sample(3, seed=1), steady.sample(3, seed=1))


@pytest.mark.parametrize("rate", [0.0, -1e-3, float("nan"), "fast"])
def test_a_callback_cannot_set_a_bad_learning_rate(rate):
    model = minigen.GAN(epochs=3, **{k: v for k, v in SMALL.items() if k != "progress"})
    with pytest.raises((ValueError, TypeError), match="learning_rate must be"):
        model.fit(blobs(), callbacks=[lambda end: setattr(end.model, "learning_rate", rate)], progress=False)
    assert model.history_.epochs == 1


def test_a_callback_can_save_and_the_file_continues_bit_for_bit(tmp_path):
    path = tmp_path / "m.safetensors"
    save = lambda end: end.model.save(path) if end.epoch == 2 else None  # noqa: E731
    whole = minigen.train_gan(blobs(), epochs=4, callbacks=[save], **SMALL)
    resumed = minigen.load(path).partial_fit(blobs(), epochs=2, progress=False)
    np.testing.assert_array_equal(whole.history_.values, resumed.history_.values)
    np.testing.assert_array_equal(whole.sample(3, seed=1), resumed.sample(3, seed=1))


@pytest.fixture
def ctrl_c():
    """SIGINT raises KeyboardInterrupt, also in a process that a shell has started in the background to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_keeps_what_was_learnt(device):
    def interrupt(end):
        if end.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    model = minigen.train_gan(blobs(), epochs=100, device=device, callbacks=[interrupt], **SMALL)
    assert model.history_.stop_reason == "interrupted"
    assert 2 <= model.history_.epochs <= 3
    assert model.sample(2).shape == (2, 12)
    # The handler is gone: Ctrl-C is itself again.
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(5)


def test_an_interrupt_in_the_last_step_of_an_epoch_leaves_the_epoch_whole(device, monkeypatch):
    def run_and_interrupt(self, steps, run=TrainingRun.run):
        run(self, steps)
        os.kill(os.getpid(), signal.SIGINT)

    settings = {**SMALL, "batch_size": 200, "device": device}
    whole = minigen.train_gan(blobs(), epochs=3, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "run", run_and_interrupt)
        model = minigen.train_gan(blobs(), epochs=3, **settings)
    assert (model.history_.epochs, model.history_.steps, model.history_.stop_reason) == (1, 1, "interrupted")
    model.partial_fit(blobs(), epochs=2, progress=False)
    assert model.history_.ends == whole.history_.ends
    np.testing.assert_array_equal(whole.history_.values, model.history_.values)


def test_training_works_outside_of_the_main_thread():
    models = []
    thread = threading.Thread(target=lambda: models.append(minigen.train_gan(blobs(), epochs=2, **SMALL)))
    thread.start()
    thread.join()
    assert models[0].history_.epochs == 2


def test_divergence_names_step_and_layer_and_keeps_the_last_good_weights(device):
    model = minigen.GAN(
        hidden=(16,),
        latent_dim=4,
        batch_size=32,
        epochs=50,
        optimizer="sgd",
        learning_rate=1e9,
        output="linear",
        device=device,
    )
    with pytest.raises(minigen.TrainingDiverged, match=r"step \d+: .* of layer \w+\.\d") as caught:
        model.fit(blobs())
    assert model.history_.stop_reason == "diverged"
    assert model.history_.steps == caught.value.step - 1
    for net in model.networks_:
        assert all(np.isfinite(value).all() for value in net.state().values())
    assert np.isfinite(model.history_.values).all()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_model_that_finished_can_be_loaded(optimizer, device, tmp_path):
    """Gradients above 1e19 overflow Adam's v and nothing else: no weight moves any more, and the losses stay finite."""
    X = (np.random.default_rng(0).normal(size=(300, 4)) * 1e15).astype(np.float32)
    model = minigen.VAE(likelihood="gaussian", epochs=5, standardize=False, optimizer=optimizer, device=device)
    with pytest.raises(minigen.TrainingDiverged, match=r"step \d+: .* of layer (encoder|decoder)\.\d") as caught:
        model.fit(X)
    if optimizer == "adam":
        assert "the moment v of the optimizer of layer" in str(caught.value)
    assert model.history_.steps == caught.value.step - 1 and model.history_.stop_reason == "diverged"
    model.save(tmp_path / "m")
    loaded = minigen.load(tmp_path / "m", device=device)
    for key, value in model._state.items():
        np.testing.assert_array_equal(loaded._state[key], value, key)


def test_what_cannot_be_loaded_is_not_saved(tmp_path):
    model = minigen.train_vae(blobs(), epochs=1, **SMALL)
    v = model._state["decoder.v"]
    v[3], before = np.inf, v[3]
    with pytest.raises(ValueError, match=r"training\.decoder\.v must be finite"):
        model.save(tmp_path / "m")
    v[3] = before
    model.learning_rate = -1
    with pytest.raises(ValueError, match="learning_rate must be"):
        model.save(tmp_path / "m")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("where", ["weights", "m", "v"])
def test_divergence_is_found_at_the_right_step(backend, where):
    """A NaN planted in one layer before step 4 is named, though nine steps run before the losses are read."""
    from minigen.training import loop
    from minigen.training.history import History

    training = gan_training(backend, blobs(400))
    spell = training.step.compute
    layer = training.step.discriminator.layers[0 if where == "weights" else 1]
    slots = training.step.optimizers[1].slots
    bad = np.inf if where == "v" else np.nan  # an infinite v stops its weight: nothing else shows it
    planted = layer.params["W"] if where == "weights" else training.step.discriminator.named(slots[where])[2][1]

    class Planting:
        def run(self, steps):
            for _ in range(steps):
                if int(backend.download(training.step.counter)[0]) == 3:
                    backend.upload(np.full(planted.shape, bad, backend.dtype), out=planted)
                spell(training.step.batch_size)

    training._programs[training.step.batch_size] = Planting()
    history = History(training.step.loss_names)
    with pytest.raises(minigen.TrainingDiverged) as caught:
        loop._checked(training, history, training.enqueue(9))
    assert caught.value.step == 4 and caught.value.layer == layer.name
    assert where != "v" or "moment v of the optimizer" in str(caught.value)
    assert history.steps == 3 and training.done == 3


def test_going_back_is_to_the_same_bits(backend):
    training = gan_training(backend, blobs(400), hidden=(3,), latent=2)
    training.run(2)
    before = training.state()
    for _ in range(2 + backend.ahead):
        chunk = training.enqueue(2)
        for _ in range(backend.ahead):
            training.enqueue(1)
        training.roll_back(chunk)
        assert training.done == 2 and len(training._chunks) == 1 + backend.ahead
        for key, value in training.state().items():
            np.testing.assert_array_equal(value, before[key], err_msg=key)


def test_progress_is_shown_when_asked_for_and_else_only_on_a_terminal(capfd):
    settings = {**SMALL, "epochs": 2}
    del settings["progress"]
    minigen.train_gan(blobs(), progress=True, **settings)
    shown = capfd.readouterr().err
    assert "epoch 2/2" in shown and "generator" in shown and "step/s" in shown
    minigen.train_gan(blobs(), progress=False, **settings)
    minigen.train_gan(blobs(), **settings)  # standard error is no terminal here
    assert capfd.readouterr().err == ""


@pytest.mark.skipif("cpu" not in DEVICES, reason="no compiled backend")
def test_the_program_allocates_nothing_after_its_first_steps():
    """Resident memory and Python objects stay put over thousands of steps."""
    code = """
import resource, sys, tracemalloc
sys.path.insert(0, sys.argv[1])
from models import blobs, gan_training, run
from minigen.cpu import CpuBackend
training = gan_training(CpuBackend(), blobs())
run(training, 50)
tracemalloc.start()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(training, 5000)
python = tracemalloc.get_traced_memory()[1]
assert python < 64 * 1024, python
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1024
"""
    subprocess.run([sys.executable, "-c", code, os.path.dirname(__file__)], check=True)


def test_memory_mapped_data_stay_mapped(tmp_path, device):
    np.save(tmp_path / "x.npy", blobs())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    a = minigen.train_gan(mapped, epochs=2, device=device, **SMALL)
    b = minigen.train_gan(blobs(), epochs=2, device=device, **SMALL)
    np.testing.assert_array_equal(a.history_.values, b.history_.values)


def test_backends_run_the_same_training():
    """The estimator end to end on every usable device: losses within 1e-3 over 30 steps, samples within 2 of 255."""
    models = [minigen.train_gan(blobs(), epochs=5, device=device, **SMALL) for device in DEVICES]
    for model in models[1:]:
        np.testing.assert_allclose(model.history_.values, models[0].history_.values, rtol=1e-3)
        difference = np.abs(model.sample(50, seed=0).astype(int) - models[0].sample(50, seed=0))
        assert difference.max() <= 2


def test_run_reads_only_what_it_needs(backend, monkeypatch):
    """The ring of losses wraps: more steps than it has rows, read in pieces."""
    from minigen.models import step

    monkeypatch.setattr(step, "RING", 64)
    training = gan_training(backend, blobs(64), (2,), batch_size=32, latent=1)
    run(training, step.RING - 1)
    run(training, 3)
    last = training.recent_losses(4)
    assert np.isfinite(last).all() and len(np.unique(last[:, 0])) == 4

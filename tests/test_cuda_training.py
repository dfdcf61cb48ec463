"""Trainings with ``device="cuda"`` on a stand-in for CuPy: read-backs, faults, two GPUs, memory that runs out."""

from __future__ import annotations

import gc
import os
import signal

import numpy as np
import pytest

import minigen
from minigen.cuda import device
from minigen.reference import random
from minigen.training import loop
from minigen.training.history import History
from minigen.training.run import RING
from models import blobs, gan_training

SMALL = {"hidden": (16,), "latent_dim": 4, "batch_size": 32, "progress": False}
TRAIN = {"gan": minigen.train_gan, "vae": minigen.train_vae}


@pytest.fixture
def gpu(computing_gpus):
    return computing_gpus()


@pytest.fixture(params=TRAIN)
def train(request):
    return TRAIN[request.param]


def test_a_read_back_brings_the_losses_and_little_more(gpu, monkeypatch):
    """Not the weights and moments, whose copy for a return stays on the device."""
    model = minigen.GAN(hidden=(64,), latent_dim=4, batch_size=32, epochs=0, device="cuda").fit(blobs())
    run = model._training(model._ops.upload(blobs()))
    monkeypatch.setattr(model._ops, "is_finite", lambda buffer: True)  # a launch and its flags: see test_floors.py
    moved = {"to_host": 0, "to_device": 0}

    def count(name, method):
        def copy(self, *arguments):
            moved[name] += next(a.nbytes for a in arguments if isinstance(a, np.ndarray))
            return method(self, *arguments)

        return copy

    for name in moved:
        monkeypatch.setattr(device.Staging, name, count(name, getattr(device.Staging, name)))
    loop._checked_steps(run, model.history_, 5)
    assert moved == {"to_host": RING * 2 * 4, "to_device": 0}
    allocations = gpu.allocations, model._ops.executor.arena.in_use
    loop._checked_steps(run, model.history_, 1)
    assert (gpu.allocations, model._ops.executor.arena.in_use) == allocations, "what is kept is kept in the same place"


# --- two GPUs --------------------------------------------------------------------------------------


def test_the_second_gpu_does_what_the_first_does(computing_gpus, train):
    computing_gpus(gpus=2)
    first, second = (train(blobs(), epochs=3, device=f"cuda:{i}", **SMALL) for i in range(2))
    np.testing.assert_array_equal(first.history_.values, second.history_.values)
    for model, index in ((first, 0), (second, 1)):
        assert model._ops.executor.index == index
        run = model._training(model._ops.resident(blobs()))
        buffers = [run.data, run.ring, run.indices, *run._buffers().values()]
        assert {buffer.gpu for buffer in buffers} == {index}
    with pytest.raises(minigen.DeviceError, match="no cuda:2: this machine has 2 GPUs"):
        train(blobs(), epochs=1, device="cuda:2", **SMALL)


def test_a_model_moves_between_gpus(computing_gpus, train, tmp_path):
    computing_gpus(gpus=2)
    model = train(blobs(), epochs=2, device="cuda:1", **SMALL)
    model.save(tmp_path / "m")
    moved = minigen.load(tmp_path / "m", device="cuda:0").partial_fit(blobs(), epochs=1, progress=False)
    model.partial_fit(blobs(), epochs=1, progress=False)
    np.testing.assert_array_equal(moved.history_.values, model.history_.values)


# --- memory ----------------------------------------------------------------------------------------


def assert_trains_smaller(fake, train):
    """Nothing is left of what failed, and there is room for a small model again."""
    gc.collect()
    assert fake.used == 0 and fake.capturing is None and fake.current == fake.devices == []
    assert train(blobs(), epochs=1, device="cuda", **SMALL).history_.epochs == 1


def test_out_of_memory(computing_gpus, train):
    """At a buffer of the networks, or later at one of the training: for every size of memory."""
    needed = 0
    for megabytes in (1, 3, 6, 9, 12, 64):
        fake = computing_gpus(memory=megabytes * 2**20)
        try:
            train(blobs(), epochs=1, device="cuda", **SMALL | {"hidden": (512, 512)})
        except MemoryError as error:
            assert "cuda:0 is out of memory: a buffer of shape" in str(error) and "are free" in str(error)
            assert "smaller batch_size or hidden" in str(error)
            needed = megabytes
        assert_trains_smaller(fake, train)
    assert 1 <= needed < 64


def test_data_larger_than_the_memory(computing_gpus, train):
    fake = computing_gpus(memory=2**22)
    with pytest.raises(MemoryError, match=r"the data take 7.81 MiB .*, where \d\.\d+ MiB of 4.00 MiB are free.*uint8"):
        train(blobs(8000, 1024), epochs=1, device="cuda", **SMALL)
    assert fake.graphs == 0, "a step has run"
    assert_trains_smaller(fake, train)


# --- faults in the middle of graphs ----------------------------------------------------------------


def planting_nan(training, at):
    """Let the noise of one step hold a NaN, whenever that step is run."""
    book = training.ops.book

    def random_normal(out, seed, stream, step, original=book.random_normal):
        original(out, seed, stream, step)
        if int(step[0]) == at and stream == random.NOISE:
            out[-1, 0] = np.nan

    book.random_normal = random_normal


@pytest.mark.parametrize("at", [0, 5, 31, 32, 39])
def test_nan_is_found_within_one_read_back_and_named(gpu, at):
    """Among 40 steps, the first 32 of them in one graph."""
    from minigen.floors import get_backend

    training, clean = (gan_training(get_backend("cuda"), blobs(2000)) for _ in range(2))
    planting_nan(training, at)
    history = History(training.loss_names)
    with pytest.raises(minigen.TrainingDiverged, match=rf"step {at + 1}: .* output of layer generator\.0") as caught:
        loop._checked_steps(training, history, 40)
    assert (caught.value.step, training.done, history.stop_reason) == (at + 1, at, "diverged")
    if at:
        clean.run(at)
    for key, value in training.state().items():
        np.testing.assert_array_equal(value, clean.state()[key], err_msg=key)
    assert sum(len(losses) for losses in history._chunks) == at


def test_an_infinite_weight_is_found_though_no_loss_shows_it(gpu):
    """A generator with infinite weights still draws finite samples: its tanh ends at 1."""
    from minigen.floors import get_backend

    training = gan_training(get_backend("cuda"), blobs(2000))
    adam, last = training.ops.book.adam, training.generator.layers[-1].b

    def overflowing(p, g, m, v, lr, step, *rest):
        adam(p, g, m, v, lr, step, *rest)
        if int(step[0]) == 6:
            last[0] = np.inf

    training.ops.book.adam = overflowing
    with pytest.raises(minigen.TrainingDiverged, match="step 7") as caught:
        loop._checked_steps(training, History(training.loss_names), 7)
    assert caught.value.layer == "generator.1" and training.done == 6 and np.isfinite(last).all()


@pytest.mark.parametrize("at", [0, 3, 40])
def test_an_interrupt_in_the_middle_of_a_graph(gpu, train, at, monkeypatch):
    """Step 40 is in a graph of 32. The steps asked for are finished and kept; going on is as if nothing had been."""
    from minigen.floors import get_backend

    whole = train(blobs(4000), epochs=3, device="cuda", **SMALL)
    ops = get_backend("cuda")
    advance = ops.book.advance

    def interrupting(step, losses, history):
        if int(step[0]) == at and not interrupted:
            interrupted.append(at)
            os.kill(os.getpid(), signal.SIGINT)
        advance(step, losses, history)

    interrupted: list[int] = []
    ops.book.advance = interrupting
    monkeypatch.setattr("minigen.estimators.base.get_backend", lambda *names: ops)
    model = train(blobs(4000), epochs=3, device="cuda", **SMALL)
    assert interrupted and model.history_.stop_reason == "interrupted"
    steps = model.history_.steps
    assert at < steps < 3 * (4000 // 32)
    np.testing.assert_array_equal(model.history_.values, whole.history_.values[:steps])
    assert model.sample(2, seed=0).shape == (2, 12) and gpu.capturing is None
    ends = whole.history_.ends
    model.partial_fit(blobs(4000), epochs=3 - sum(end <= steps for end in ends), progress=False)
    np.testing.assert_array_equal(model.history_.values, whole.history_.values)
    assert model.history_.ends == ends

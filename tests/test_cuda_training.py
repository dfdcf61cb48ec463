"""Trainings with ``device="cuda"`` on a stand-in for CuPy: read-backs, faults, two GPUs, memory that runs out."""

from __future__ import annotations

import gc
import os
import signal
import time

import numpy as np
import pytest

import minigen
from minigen.cuda.plan.lowering import BLOCK, blocks
from minigen.models.step import RING
from minigen.reference import random
from minigen.training import loop
from minigen.training.history import History
from minigen.training.run import TrainingRun
from models import blobs, gan_training, run

SMALL = {"hidden": (16,), "latent_dim": 4, "batch_size": 32, "progress": False}
TRAIN = {"gan": minigen.train_gan, "vae": minigen.train_vae}


@pytest.fixture
def gpu(computing_gpus):
    return computing_gpus()


@pytest.fixture(params=TRAIN)
def train(request):
    return TRAIN[request.param]


def cuda_training(rows: int = 2000):
    from minigen.device import get_backend

    return gan_training(get_backend("cuda"), blobs(rows))


def assert_same_state(training, other):
    for key, value in training.state().items():
        np.testing.assert_array_equal(value, other.state()[key], err_msg=key)


@pytest.mark.slow
def test_a_read_back_brings_the_losses_and_little_more(gpu, monkeypatch):
    """Not the weights and moments, whose copy for a return stays on the device; and nothing is made anew for it."""
    training = cuda_training()
    runtime, moved = gpu.cuda.runtime, {1: 0, 2: 0, 3: 0}
    copy = runtime.memcpyAsync

    def count(to, source, size, kind, stream):
        moved[kind] += size
        copy(to, source, size, kind, stream)

    def held():
        return gpu.allocations, training.ops.executor.arena.in_use, len(gpu.pinned), len(training.ops.calls)

    for _ in range(2):
        training.enqueue(5)
    monkeypatch.setattr(runtime, "memcpyAsync", count)
    before = held()
    training.outcome(training.enqueue(5))
    state = [buffer for key, buffer in training.step.state_buffers().items() if key != "step"]  # weights and moments
    flags = sum(blocks(buffer.size, BLOCK) for buffer in state)
    assert moved[runtime.memcpyDeviceToHost] == 4 * (2 * RING + flags) and moved[runtime.memcpyHostToDevice] == 0
    loop.train(training, None, History(training.step.loss_names), 20, progress=False)
    assert held() == before


# --- one chunk ahead -------------------------------------------------------------------------------


def test_the_next_chunk_is_launched_before_the_last_is_waited_for(gpu, monkeypatch):
    """Also across the ends of epochs, where nobody looks at the model."""
    training, history = cuda_training(), History(("discriminator", "generator"))
    begin, outcome = TrainingRun.enqueue, TrainingRun.outcome
    order = []

    def logged_begin(self, steps):
        waited = gpu.waited
        chunk = begin(self, steps)
        order.append(("begin", self.done))
        assert gpu.waited == waited or len(order) == 1, "the host waited while it launched"
        return chunk

    def logged_outcome(self, chunk):
        order.append(("look", chunk.before + chunk.steps))
        return outcome(self, chunk)

    monkeypatch.setattr(TrainingRun, "enqueue", logged_begin)
    monkeypatch.setattr(TrainingRun, "outcome", logged_outcome)
    loop.train(training, None, history, 5, progress=False)
    ends = [end for what, end in order if what == "begin"]
    assert set(training.steps_per_epoch * np.arange(1, 6)) <= set(ends)
    expected = [("begin", ends[0])]
    for end, following in zip(ends, ends[1:], strict=False):
        expected += [("begin", following), ("look", end)]
    assert order == [*expected, ("look", ends[-1])]
    assert history.ends == list(training.steps_per_epoch * np.arange(1, 6)) and history.steps == training.done


def test_the_pipeline_changes_no_bits(gpu, train):
    """With callbacks each epoch is looked at before the next begins; the model is then that of the epoch's end."""
    seen = []

    def watch(end):
        seen.append((end.epoch, end.step, end.seconds, end.losses, end.model.sample(3, seed=0)))
        assert gpu.arriving == [] and end.model.history_.steps == end.step

    begin = time.perf_counter()
    ahead = train(blobs(1000), epochs=4, device="cuda", **SMALL)
    elapsed = time.perf_counter() - begin
    drained = train(blobs(1000), epochs=4, device="cuda", callbacks=[watch], **SMALL)
    np.testing.assert_array_equal(ahead.history_.values, drained.history_.values)
    for key, value in ahead._state.items():
        np.testing.assert_array_equal(value, drained._state[key], err_msg=key)
    assert ahead.history_.ends == drained.history_.ends == [step for _, step, *_ in seen]
    assert [epoch for epoch, *_ in seen] == [1, 2, 3, 4]
    assert [seconds for _, _, seconds, *_ in seen] == drained.history_.seconds
    assert min(ahead.history_.seconds) > 0 and sum(ahead.history_.seconds) < elapsed
    early = train(blobs(1000), epochs=2, device="cuda", **SMALL)
    np.testing.assert_array_equal(seen[1][-1], early.sample(3, seed=0))


def test_an_early_stop_leaves_nothing_behind_it(gpu, train):
    stopped = train(blobs(1000), epochs=9, device="cuda", callbacks=[lambda end: end.epoch == 2], **SMALL)
    assert (stopped.history_.epochs, stopped.history_.stop_reason) == (2, "callback")
    whole = train(blobs(1000), epochs=2, device="cuda", **SMALL)
    np.testing.assert_array_equal(stopped.history_.values, whole.history_.values)
    for key, value in whole._state.items():
        np.testing.assert_array_equal(value, stopped._state[key], err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 1, 2, 30, 61, 62, 63, 100, 123, 124, 185])
def test_nan_is_found_with_the_next_chunk_under_way(gpu, at, monkeypatch):
    """In the first step, around the ends of epochs of 62 or 63 steps, and in the last chunk of all."""
    training, clean = cuda_training(), cuda_training()
    planting_nan(training, at)
    back, behind = TrainingRun.roll_back, []

    def roll_back(self, chunk):
        behind.append(self.done - chunk.before - chunk.steps)
        back(self, chunk)

    monkeypatch.setattr(TrainingRun, "roll_back", roll_back)
    history = History(training.step.loss_names)
    with pytest.raises(minigen.TrainingDiverged, match=rf"step {at + 1}: .* output of layer generator\.0") as caught:
        loop.train(training, None, history, 3, progress=False)
    assert (caught.value.step, training.done, history.stop_reason) == (at + 1, at, "diverged")
    assert behind[0] > 0 or at >= 2 * training.steps_per_epoch, "nothing had been launched behind it"
    run(clean, at)
    assert_same_state(training, clean)
    assert history.steps == at and history.epochs == at // training.steps_per_epoch
    if at:
        np.testing.assert_array_equal(history.values, clean.recent_losses(at))


# --- two GPUs --------------------------------------------------------------------------------------


def test_the_second_gpu_does_what_the_first_does(computing_gpus, train):
    computing_gpus(gpus=2)
    first, second = (train(blobs(), epochs=3, device=f"cuda:{i}", **SMALL) for i in range(2))
    np.testing.assert_array_equal(first.history_.values, second.history_.values)
    for model, index in ((first, 0), (second, 1)):
        assert model._ops.executor.index == index
        run = model._training(model._ops.resident(blobs()))
        buffers = [run.step.data, run.step.ring, run.step.indices, *run.step.state_buffers().values()]
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


@pytest.mark.slow
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
    reference = training.ops.reference

    def execute(operation, original=reference.execute):
        original(operation)
        noise = operation.name == "random_normal" and operation["stream"] == random.NOISE
        if noise and int(operation["step"][0]) == at:
            operation["out"][-1, 0] = np.nan

    reference.execute = execute


@pytest.mark.parametrize("at", [0, 5, 31, 32, 39])
def test_nan_is_found_within_one_read_back_and_named(gpu, at):
    """Among 40 steps, the first 32 of them in one graph."""
    from minigen.device import get_backend

    training, clean = (gan_training(get_backend("cuda"), blobs(2000)) for _ in range(2))
    planting_nan(training, at)
    history = History(training.step.loss_names)
    with pytest.raises(minigen.TrainingDiverged, match=rf"step {at + 1}: .* output of layer generator\.0") as caught:
        loop._checked(training, history, training.enqueue(40))
    assert (caught.value.step, training.done, history.stop_reason) == (at + 1, at, "diverged")
    if at:
        clean.run(at)
    for key, value in training.state().items():
        np.testing.assert_array_equal(value, clean.state()[key], err_msg=key)
    assert sum(len(losses) for losses in history._chunks) == at


def test_an_infinite_weight_is_found_though_no_loss_shows_it(gpu):
    """A generator with infinite weights still draws finite samples: its tanh ends at 1."""
    from minigen.device import get_backend

    training = gan_training(get_backend("cuda"), blobs(2000))
    last = training.step.generator.layers[-1].params["b"]

    def overflowing(operation, original=training.ops.reference.execute):
        original(operation)
        if operation.name == "optimizer" and int(operation["step"][0]) == 6:
            last[0] = np.inf

    training.ops.reference.execute = overflowing
    with pytest.raises(minigen.TrainingDiverged, match="step 7") as caught:
        loop._checked(training, History(training.step.loss_names), training.enqueue(7))
    assert caught.value.layer == "generator.1" and training.done == 6 and np.isfinite(last).all()


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 3, 40])
def test_an_interrupt_in_the_middle_of_a_graph(gpu, train, at, monkeypatch):
    """Step 40 is in a graph of 32. The steps asked for are finished and kept; going on is as if nothing had been."""
    from minigen.device import get_backend

    whole = train(blobs(4000), epochs=3, device="cuda", **SMALL)
    ops = get_backend("cuda")

    def interrupting(operation, original=ops.reference.execute):
        if operation.name == "advance" and int(operation["step"][0]) == at and not interrupted:
            interrupted.append(at)
            os.kill(os.getpid(), signal.SIGINT)
        original(operation)

    interrupted: list[int] = []
    ops.reference.execute = interrupting
    monkeypatch.setattr("minigen.estimators.base.get_backend", lambda *names: ops)
    model = train(blobs(4000), epochs=3, device="cuda", **SMALL)
    assert interrupted and model.history_.stop_reason == "interrupted"
    steps = model.history_.steps
    assert at < steps < 3 * (4000 // 32) and model._state["step"][0] == steps, "what was under way is kept"
    np.testing.assert_array_equal(model.history_.values, whole.history_.values[:steps])
    assert model.sample(2, seed=0).shape == (2, 12) and gpu.capturing is None
    ends = whole.history_.ends
    model.partial_fit(blobs(4000), epochs=3 - sum(end <= steps for end in ends), progress=False)
    np.testing.assert_array_equal(model.history_.values, whole.history_.values)
    assert model.history_.ends == ends

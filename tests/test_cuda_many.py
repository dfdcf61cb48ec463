"""Several trainings at once with ``device="cuda"``: who is launched with whom, and that each has the bits that it has
alone. The kernels' own bits: interpreted_many.py."""

from __future__ import annotations

import gc
import signal
import threading
from functools import partial

import numpy as np
import pytest
from computing_cuda import ComputedProgram
from test_fit_many import QUIET, floats, same

import minigen
from minigen import cli
from minigen.cuda.backend import CudaBackend
from minigen.cuda.plan.tiles import order_of_sums
from minigen.cuda.run.memory import SLAB_PIECE, Slabs
from minigen.cuda.together import Together
from minigen.training.history import History
from models import blobs

AT = {"hidden": (8,), "latent_dim": 3, "batch_size": 32, "epochs": 3, "device": "cuda"}
DIVERGES = {**AT, "learning_rate": 1e18, "optimizer": "sgd"}


@pytest.fixture
def gpu(computing_gpus, monkeypatch):
    monkeypatch.setattr(ComputedProgram, "groups", [])
    return computing_gpus()


def gans(count: int = 3, **settings) -> list:
    return [minigen.GAN(**{**AT, **settings}, seed=seed) for seed in range(count)]


def various() -> list:
    """Three GANs that differ in numbers, one with other layers, two VAEs, with a smaller last batch."""
    return [
        *gans(2),
        minigen.GAN(**{**AT, "epochs": 2}, seed=5, learning_rate=1e-3, beta1=0.7),
        minigen.GAN(**{**AT, "hidden": (9, 5)}, normalization="batch", ema=0.9),
        minigen.VAE(**AT, likelihood="gaussian", beta=0.5),
        minigen.VAE(**AT, likelihood="gaussian", seed=3),
    ]


def test_each_has_the_bits_that_it_has_alone(gpu):
    X = floats()
    alone = [model.fit(X, **QUIET) for model in various()]
    models = various()
    assert minigen.fit_many(models, X, **QUIET) == models
    assert all(same(*pair) for pair in zip(models, alone, strict=True))
    assert not same(models[0], models[1])
    # The GANs of one kind together, the other one alone, the VAEs' whole batches and their last one; then without the
    # GAN that was to have two epochs.
    assert set(ComputedProgram.groups) == {(0, 1, 2), (3,), (4, 5), (0, 1)}


def test_a_mixture_of_devices(gpu):
    """The others are trained on their own devices meanwhile."""
    at = [{**AT, "device": device} for device in ("cuda", "numpy", "cuda", "cpu", "cpu")]
    models = minigen.fit_many([minigen.GAN(**settings, seed=i) for i, settings in enumerate(at)], blobs(), **QUIET)
    alone = [minigen.GAN(**settings, seed=i).fit(blobs(), **QUIET) for i, settings in enumerate(at)]
    assert all(same(*pair) for pair in zip(models, alone, strict=True)) and ComputedProgram.groups == [(0, 1)]


def test_labels_and_validation_go_to_all(gpu):
    X, y = blobs(60), np.arange(60) % 3
    measured = {"validation": (blobs(40, seed=1), np.arange(40) % 3), "metrics": ["frechet distance"], **QUIET}
    models = minigen.fit_many(gans(2), X, y, **measured)
    assert all(same(*pair) for pair in zip(models, [m.fit(X, y, **measured) for m in gans(2)], strict=True))
    assert all(list(model.history_.evaluations.epochs) == [1, 2, 3] for model in models)


def test_one_that_diverges_does_not_end_the_others(gpu):
    models = [*gans(2, optimizer="sgd"), minigen.GAN(**DIVERGES, seed=2)]
    with pytest.raises(minigen.SomeDiverged, match=r"1 of 3 models diverged.*models\[2\] in step \d+") as error:
        minigen.fit_many(models, blobs(), **QUIET)
    assert [m.history_.stop_reason for m in models] == ["finished", "finished", "diverged"]
    assert all(same(m, other.fit(blobs(), **QUIET)) for m, other in zip(models, gans(2, optimizer="sgd"), strict=False))
    with pytest.raises(minigen.TrainingDiverged) as alone:
        minigen.GAN(**DIVERGES, seed=2).fit(blobs(), **QUIET)
    assert error.value.errors[2].step == alone.value.step
    assert ComputedProgram.groups[0] == (0, 1, 2) and (0, 1) in ComputedProgram.groups


def watch(end):
    """Ends the training of seed 2 after an epoch, and changes the rate of seed 1."""
    end.model.learning_rate = 1e-3 if end.model.seed == 1 else end.model.learning_rate
    end.model.sample(3)  # takes memory, of this model's
    return end.model.seed == 2


def test_callbacks_are_each_models_own(gpu):
    models = minigen.fit_many(gans(), blobs(), callbacks=[watch], **QUIET)
    alone = [model.fit(blobs(), callbacks=[watch], **QUIET) for model in gans()]
    assert all(same(*pair) for pair in zip(models, alone, strict=True))
    assert [m.history_.stop_reason for m in models] == ["finished", "finished", "callback"]


def test_a_callback_may_train_another_model(gpu):
    """On the same GPU, by itself: nobody waits for it."""
    others = []

    def train(end):
        if end.epoch == 1:
            others.append(minigen.GAN(**AT, seed=9).fit(blobs(), **QUIET))

    minigen.fit_many(gans(2), blobs(), callbacks=[train], **QUIET)
    assert len(others) == 2 and same(*others)


def test_an_error_of_a_launch_ends_all_and_is_raised(gpu, monkeypatch):
    def fail(self, programs):
        raise MemoryError("no room for a graph")

    monkeypatch.setattr(ComputedProgram, "with_others", fail)
    models = gans()
    with pytest.raises(MemoryError, match="no room for a graph") as error:
        minigen.fit_many(models, blobs(), **QUIET)
    assert error.value.__notes__[0].startswith("models[") and threading.active_count() < 4
    assert {model.history_.stop_reason for model in models} == {"error"}


def test_ctrl_c_ends_all_and_keeps_what_was_learnt(gpu):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    models = gans(epochs=10**6)

    def interrupt(end):
        if end.model is models[0] and end.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    try:
        assert minigen.fit_many(models, blobs(), callbacks=[interrupt], **QUIET) == models
    finally:
        signal.signal(signal.SIGINT, before)
    assert {(m.history_.stop_reason, m.history_.stop_signal) for m in models} == {("interrupted", signal.SIGINT)}
    assert all(model.history_.epochs >= 2 for model in models)


def test_memory_is_shared_and_given_back(gpu):
    """The data are on the GPU once, a model's buffers a stride from the one's before, and all of it goes in the end."""
    X = blobs(500, 100)
    seen = []

    def look(end):
        run = end.model._run
        seen.append([b.data.ptr for b in (run.step.data, *run.step.state_buffers().values(), run.step.ring)])

    models = minigen.fit_many(gans(epochs=1), X, callbacks=[look], **QUIET)
    data, *buffers = zip(*seen, strict=True)
    assert len(set(data)) == 1
    assert {tuple(np.diff(sorted(addresses))) for addresses in buffers} == {(SLAB_PIECE, SLAB_PIECE)}
    models[0].partial_fit(X, epochs=1, **QUIET)  # alone, on the memory that it has
    del models, look
    gc.collect()
    assert gpu.used == 0


def test_slabs_that_part_ways():
    """Pieces of other sizes than the first model's are its own; after the end so are all."""

    class Memory:
        taken: list[int] = []

        def __init__(self, nbytes: int) -> None:
            self.ptr = 10**6 * len(self.taken)
            self.taken.append(nbytes)

    slabs = Slabs(2, Memory)
    arenas = [slabs.arena(model) for model in range(2)]
    for arena in arenas:
        arena.held = [arena.take(100), arena.take(SLAB_PIECE - 256), arena.take(300)]
    assert Memory.taken == [2 * SLAB_PIECE, 2 * SLAB_PIECE]
    first, second = ([block.address for block in arena.held] for arena in arenas)
    assert [b - a for a, b in zip(first, second, strict=True)] == [SLAB_PIECE] * 3
    blocks = [arenas[0].take(2 * SLAB_PIECE), arenas[1].take(3 * SLAB_PIECE)]
    assert Memory.taken[2:] == [4 * SLAB_PIECE, 3 * SLAB_PIECE]
    slabs.close()
    blocks.append(arenas[1].take(2 * SLAB_PIECE))
    assert Memory.taken[4:] == [2 * SLAB_PIECE]


@pytest.mark.parametrize("exact", [True, False])
def test_sums_have_the_order_of_one_model_unless_they_may_differ(pretend_gpu, exact):
    """Within a captured step only: what a model does by itself meanwhile, and afterwards, is cut as ever."""
    with Together(16, exact).member(3):
        ops = CudaBackend()
        x, W, b, y = ops.empty((256, 128)), ops.empty((128, 784)), ops.empty((784,)), ops.empty((256, 784))
        step = partial(ops.dense_forward, x, W, b, y, "tanh")
        (launch,) = ops.capture(step).schedule.launches
        (alone,) = ops.schedule(step).launches
    orders = {order_of_sums(each.jobs[0].tile, "forward", 90) for each in (launch, alone)}
    assert (len(orders) == 1) == exact and launch.grid[0] < alone.grid[0]


@pytest.mark.slow
def test_the_command_line(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(History, "plot", lambda history, path: None)  # slow, and no subject here
    np.save(tmp_path / "rows.npy", blobs())
    command = ["train", "gan", "--data", str(tmp_path / "rows.npy"), "--out", str(tmp_path / "runs"), "--seeds", "0-1"]
    command += ["--grid", "learning_rate=1e-3,2e-4", "--epochs", "2", "--device", "cuda", "--batch-size", "32"]
    assert cli.run([*command, "--hidden", "5", "--latent-dim", "3", "--quiet"]) == 0
    assert (0, 1, 2, 3) in ComputedProgram.groups
    ours = minigen.load(tmp_path / "runs" / "learning_rate=2e-4_seed=1")
    assert same(ours, minigen.GAN(**{**AT, "hidden": (5,), "epochs": 2}, seed=1).fit(blobs(), **QUIET))

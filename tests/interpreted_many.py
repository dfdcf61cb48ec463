"""Steps of several models in one launch, on Triton's interpreter or as PTX: run by test_cuda_interpreter.py and
test_cuda_ptx.py. Every access is checked, so also that no model's programs touch another's memory."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from conftest import without_gpu
from fake_cupy import FakeCupy

import minigen
import models
from minigen.cuda.plan import many
from minigen.cuda.plan.launch import Launch
from minigen.cuda.run import driver
from minigen.cuda.run.cache import Binary
from minigen.cuda.run.device import DeviceExecutor

DATA = models.blobs(20, 7)
NUMBERS = [
    {"seed": 3, "learning_rate": 1e-3},
    {"seed": 2**32 - 5, "learning_rate": 2e-3, "beta1": 0.8, "eps": 1e-6},
    {"seed": 3, "learning_rate": 2e-3, "beta2": 0.9},
]
KINDS = {
    "gan": partial(models.gan_training, data=DATA, hidden=(5,), latent=3, batch_size=6),
    "vae": partial(models.vae_training, data=DATA, hidden=(5,), latent=2, batch_size=6),
}


@pytest.mark.parametrize(("kind", "count", "cut_for"), [("gan", 3, 1), ("gan", 2, 400), ("vae", 2, 1)])
def test_each_has_the_bits_that_it_has_alone(kind, count, cut_for):
    """With the tiles of one model, and with those for many: the same then as alone with these."""
    ops = without_gpu()
    ops.target = replace(ops.target, models=cut_for)
    alone, trained = ([KINDS[kind](ops, **numbers) for numbers in NUMBERS[:count]] for _ in range(2))
    schedules = []
    for run in trained:
        run.step.data = trained[0].step.data
        schedules.append(ops.schedule(partial(run.step.compute, 6)).launches)
    assert len({many.kind_of(launches) for launches in schedules}) == 1
    together = many.together(schedules, ops.executor)
    assert [launch.grid for launch in together] == [(launch.grid[0], count, 1) for launch in schedules[0]]
    ops.executor.capture(together).run(1)
    for one, run in zip(alone, trained, strict=True):
        plan = ops.schedule(partial(one.step.compute, 6)).launches
        assert [launch.tile for launch in plan] == [launch.tile for launch in together]
        ops.executor.capture(plan).run(1)
        one.done = run.done = 1
        expected = one.state()
        for name, found in run.state().items():
            assert found.tobytes() == expected[name].tobytes(), name
        assert np.isfinite(run.recent_losses(1)).all()
        assert run.recent_losses(1).tobytes() == one.recent_losses(1).tobytes()


@pytest.fixture
def gpu(monkeypatch):
    """A pretended GPU whose kernels run."""
    fake, executor, launches = FakeCupy(), without_gpu().executor, list[Launch]()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(driver, "_has_driver", lambda: True)
    function = fake.cuda.Module().get_function("checked")
    fake.effects["checked"] = lambda number: executor.run(launches[int(number)])

    def bind(self, launch, binary, overlap):
        launches.append(launch)
        number = np.uint64(len(launches) - 1)
        return partial(function, (1, 1, 1), (32, 1, 1), (number,), shared_mem=0, stream=self.stream)

    monkeypatch.setattr(DeviceExecutor, "compile", lambda self, many: [(launch, Binary("", b"")) for launch in many])
    monkeypatch.setattr(DeviceExecutor, "_bind", bind)
    return launches


def test_fit_many(gpu):
    """From the models to the launches: one distance between the models' memory is enough for all pointers."""
    at = {"hidden": (3,), "latent_dim": 2, "batch_size": 12, "epochs": 1, "device": "cuda"}
    numbers = [{"seed": 1}, {"seed": 2, "learning_rate": (1e-3, 2e-3), "beta1": 0.7}]
    alone = [minigen.GAN(**at, **settings).fit(DATA, progress=False) for settings in numbers]
    trained = minigen.fit_many([minigen.GAN(**at, **settings) for settings in numbers], DATA, progress=False)
    for one, model in zip(alone, trained, strict=True):
        assert {name: value.tobytes() for name, value in one._state.items()} == {
            name: value.tobytes() for name, value in model._state.items()
        }
        assert one.history_.values.tobytes() == model.history_.values.tobytes()
    launched = [launch for launch in gpu if launch.preamble]
    assert len(launched) == 8 and all(launch.grid[1] == 2 and len(launch.args[0]) == 1 for launch in launched)

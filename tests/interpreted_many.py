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
WIDE = {"data": models.blobs(30, 70), "hidden": (40,), "latent": 20, "batch_size": 24}  # tiles of several sizes
NUMBERS = [
    {"seed": 3, "learning_rate": 1e-3},
    {"seed": 2**32 - 5, "learning_rate": 2e-3, "beta1": 0.8, "eps": 1e-6},
    {"seed": 3, "learning_rate": 2e-3, "beta2": 0.9},
]
KINDS = {
    "gan": partial(models.gan_training, data=DATA, hidden=(5,), latent=3, batch_size=6),
    "wide gan": partial(models.gan_training, **WIDE),
    "wide vae": partial(models.vae_training, **WIDE),
}


@pytest.mark.parametrize(
    ("kind", "count", "share"),
    [
        ("gan", 3, {}),
        ("gan", 2, {"models": 400, "exact": False}),
        ("wide gan", 2, {"models": 16}),
        ("wide vae", 2, {"models": 16}),
    ],
)
def test_each_has_the_bits_that_it_has_alone(kind, count, share):
    """With the tiles of one model or larger ones of their order; and with others as alone with those."""
    ops = without_gpu()
    plain, several = ops.target, replace(ops.target, **share)
    alone, trained = ([KINDS[kind](ops, **numbers) for numbers in NUMBERS[:count]] for _ in range(2))
    schedules = []
    ops.target = several
    for run in trained:
        run.step.data = trained[0].step.data
        schedules.append(ops.schedule(partial(run.step.compute, run.step.batch_size)).launches)
    assert len({many.kind_of(launches) for launches in schedules}) == 1
    together = many.together(schedules, ops.executor)
    assert [launch.grid for launch in together] == [(launch.grid[0], count, 1) for launch in schedules[0]]
    ops.executor.capture(together).run(1)
    ops.target = plain if several.exact else several
    compared = list(zip(alone, trained, strict=True))
    for one, run in compared[-1:] if "wide" in kind else compared:
        plan = ops.schedule(partial(one.step.compute, one.step.batch_size)).launches
        pairs = list(zip(plan, together, strict=True))
        assert all(mine.num_warps == theirs.num_warps for mine, theirs in pairs)
        wider = sum(mine.grid[0] > theirs.grid[0] for mine, theirs in pairs)
        assert wider >= 2 if "wide" in kind else all(mine.tile == theirs.tile for mine, theirs in pairs)
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

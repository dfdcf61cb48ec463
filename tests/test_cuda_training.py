"""Trainings with ``device="cuda"`` on a stand-in for CuPy: read-backs, faults, two GPUs, memory that runs out."""

from __future__ import annotations

import numpy as np
import pytest

import minigen
from minigen.cuda import device
from minigen.training import loop
from minigen.training.run import RING
from models import blobs

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

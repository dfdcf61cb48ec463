"""Fixtures: the usable floors, and a fresh seed for every test (``MINIGEN_TEST_SEED=n`` repeats one)."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers import Arena

from minigen.reference import NumpyBackend


def make_floor(name: str) -> Any:
    """The backend of this name; skips, saying why, where it cannot be used."""
    if name == "numpy":
        return NumpyBackend()
    if name == "numpy64":
        return NumpyBackend(np.float64)
    try:
        from minigen.cpu import CpuBackend
    except ImportError as error:
        pytest.skip(f"no compiled floor: {error}")
    return CpuBackend()


@pytest.fixture(params=["numpy", "numpy64", "cpu"])
def floor(request: pytest.FixtureRequest) -> Any:
    """Each floor in turn, as a Backend."""
    return make_floor(request.param)


@pytest.fixture
def seed() -> int:
    """A fresh seed, printed so that a failure shows it."""
    value = int(os.environ.get("MINIGEN_TEST_SEED", secrets.randbelow(2**32)))
    print(f"repeat with MINIGEN_TEST_SEED={value}")
    return value


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """Random numbers of the test."""
    return np.random.default_rng(seed)


@pytest.fixture
def arena(floor: Any, rng: np.random.Generator) -> Iterator[Arena]:
    """Guarded buffers on the floor, verified at the end of the test."""
    arena = Arena(floor, rng)
    yield arena
    arena.verify()

"""Every Triton kernel compiles for each supported generation of GPUs, without a GPU and without spilling registers."""

from __future__ import annotations

import importlib.util
import os
import secrets
from itertools import product
from typing import Any

import numpy as np
import pytest
from test_ops import SETTINGS, SIZES, calls, letters, ordered

from helpers import InOut, Out
from minigen.cuda.backend import PRECISIONS
from minigen.cuda.plan import tiles
from minigen.cuda.plan.fusion import MOST_SCORES
from minigen.cuda.tools import report
from minigen.ops import OPERATIONS

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="Triton interprets in this process"),
]
EVERYTHING = bool(os.environ.get("MINIGEN_TEST_EVERYTHING"))
"""Compile every launch for every architecture and precision. Otherwise all of them for the default precision on sm_90,
and of the rest, which takes a quarter of an hour on two cores, one in eight, others in each run."""
every_architecture = pytest.mark.parametrize("architecture", report.ARCHITECTURES)
OTHERS = [precision for precision in PRECISIONS if precision not in ("bf16x6", "bf16x3")]  # these are for large layers


def drawn(launches: list[Any], architecture: int, precision: str = "tf32x3") -> list[Any]:
    """The launches that this run compiles; ``precision`` where they depend on it."""
    if EVERYTHING or (architecture, precision) == (90, "tf32x3"):
        return launches
    return secrets.SystemRandom().sample(launches, (len(launches) + 7) // 8)


def assert_fit(found: list[report.Resources]) -> None:
    print(report.table(found))
    for kernel in found:
        assert kernel.stack == 0, kernel
        assert 0 < kernel.registers <= 65536 // (32 * kernel.warps), kernel
        assert kernel.shared <= tiles.SHARED.get(kernel.architecture, 99) * 1024, kernel


def compile_the_models_steps(architecture):
    ops = report.planning_backend(architecture, "tf32x3")
    launches = [launch for model in report.MODELS for launch in report.model_launches(model, ops)]
    assert len(launches) == 8 + 6
    return report.resources([x for x in launches if "PRECISION" not in kernel_parameters(x)], ops)


@pytest.mark.background(run=compile_the_models_steps)
@every_architecture
def test_the_models_steps(architecture, result):
    """Every launch of the article's GAN step and of the VAE step beside it that takes no product: see below."""
    assert_fit(result)


def compile_operations_by_themselves():
    ops = report.planning_backend(90, "tf32x3")
    launches = [launch for model in report.MODELS for launch in report.model_launches(model, ops, fuse=False)]
    launches = [launch for launch in launches if "PRECISION" not in kernel_parameters(launch)]
    return report.resources([*launches, *report.other_launches(ops)], ops)


@pytest.mark.background(run=compile_operations_by_themselves)
def test_operations_by_themselves(result):
    """The launches of steps that are not fused, without products, and of operations that the models do not use."""
    assert_fit(result)


def compile_every_operation(architecture):
    """Each operation of the registry in its first choice, at sizes that are no multiples of a tile."""
    ops = report.planning_backend(architecture, "ieee")
    rng = np.random.default_rng(0)
    launches = []
    for name, row in OPERATIONS.items():
        arguments = next(calls(row, rng, sizes_of(row)))
        given = [on_device(ops, argument) for argument in ordered(row, arguments)]
        launches += ops.schedule(lambda name=name, given=given: getattr(ops, name)(*given), fuse=False).launches
    assert len(launches) > len(OPERATIONS) / 2
    return report.resources(drawn(launches, architecture), ops)


def sizes_of(row):
    sizes = SIZES | dict.fromkeys(letters(row), 100)
    sizes |= {letter: 4 for letter in "GK" if letter in sizes}
    return sizes | ({"R": 100 * SETTINGS["draws"]} if "draws" in row.settings else {})


def on_device(ops, argument):
    if isinstance(argument, Out):
        return ops.empty(argument.shape, argument.dtype)
    array = argument.array if isinstance(argument, InOut) else argument
    if not isinstance(array, np.ndarray):
        return argument
    return ops.empty(array.shape, None if array.dtype.kind == "f" else array.dtype)


@pytest.mark.background(run=compile_every_operation)
@every_architecture
def test_every_operation(architecture, result):
    assert_fit(result)


def compile_products(architecture, precision):
    ops = report.planning_backend(architecture, precision)
    launches = [
        launch
        for model in report.MODELS
        for fuse in (True, False)
        for launch in report.model_launches(model, ops, fuse)
    ]
    launches = [x for x in launches if "PRECISION" in kernel_parameters(x)]
    assert {"dense_forward", "dense_dgrad", "dense_wgrad"} <= {launch.name for launch in launches}
    return report.resources(drawn(launches, architecture, precision), ops)


@pytest.mark.background(run=compile_products)
@pytest.mark.parametrize("precision", OTHERS)
@every_architecture
def test_products(architecture, precision, result):
    """Those of both models, fused and not; what takes no product is the same in every precision."""
    assert {kernel.architecture for kernel in result} == {architecture}
    assert_fit(result)


def kernel_parameters(launch):
    """The names of the parameters of the functions that a launch runs."""
    jobs = [value for name, value in launch.source.fn.__globals__.items() if name.startswith("job_")]
    return {name for job in jobs for name in job.arg_names}


LARGE = [*product(report.ARCHITECTURES, OTHERS), (90, "bf16x6"), (120, "bf16x6")]  # what takes the most registers


def compile_large_layers(architecture, precision):
    ops = report.planning_backend(architecture, precision)
    assert tiles.shape_class(4096, 1024, architecture) == "many"
    return report.resources(drawn(dense_launches(ops, 4096, 1024, 1024), architecture, precision), ops)


@pytest.mark.background(run=compile_large_layers)
@pytest.mark.parametrize("architecture, precision", LARGE)
def test_large_layers(architecture, precision, result):
    """The tiles of large products, in the gradients with an update in the epilogue."""
    assert {(kernel.architecture, kernel.precision) for kernel in result} == {(architecture, precision)}
    assert_fit(result)


def dense_launches(ops, B, n_in, n_out):
    """Forward, input gradient, weight gradient with Adam's update: three launches."""
    x, W, b, y = ops.empty((B, n_in)), ops.empty((n_in, n_out)), ops.empty((n_out,)), ops.empty((B, n_out))
    dx = ops.empty(x.shape)
    flat = n_in * n_out + n_out
    p, g, m, v = (ops.empty((flat,)) for _ in range(4))
    lr, step = ops.empty((1,)), ops.empty((1,), "uint64")

    def spell():
        ops.dense_forward(x, W, b, y, "tanh")
        ops.dense_dgrad(y, W, dx, x, "relu")
        ops.dense_wgrad(x, y, g[: n_in * n_out].reshape(n_in, n_out), g[n_in * n_out :])
        ops.adam(p, g, m, v, lr, step)

    launches = ops.schedule(spell).launches
    assert sum("dense_wgrad" in launch.fuses for launch in launches) == 1
    return launches


def test_the_head_takes_layers_of_any_tile():
    """A logit is summed from at most MOST_SCORES shares: the widest hidden layer that the smallest tiles allow."""
    for B in (32, 128, 1024, 8192):
        assert -(-2048 // tiles.choose("forward", B, 2048, 784, 90, "tf32x3").BN) <= MOST_SCORES

"""Every launch of a training step fits the card: random models, and what happens to a kernel that does not fit."""

from __future__ import annotations

import importlib.util
import os
import secrets
from typing import Any

import numpy as np
import pytest

from minigen import DeviceError
from minigen.cuda.backend import PRECISIONS
from minigen.cuda.plan import codegen, tiles
from minigen.cuda.plan.launch import Launch
from minigen.cuda.run.compiler import compile_launches
from minigen.cuda.tools import report
from minigen.cuda.tools.explain import schedule_of

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="Triton interprets in this process"),
]

MODELS = int(os.environ.get("MINIGEN_TEST_MODELS", "1"))
"""How many random models, each for any architecture. The seeds are printed; MINIGEN_TEST_SEED=n repeats that of one."""

MOST_SPILLED = 2048
"""Bytes of stack a thread: a spill costs time but no correctness. The models' own steps spill nothing at all
(test_cuda_compile.py); of some thirty random ones the worst spilled 672."""


def random_model(rng: np.random.Generator) -> tuple[str, str, int, dict[str, Any]]:
    """Model, precision, columns and settings; half of the sizes are of any order of magnitude, half just any."""

    def size(least: int, most: int) -> int:
        if rng.integers(2):
            return int(rng.integers(least, most + 1))
        return int(np.exp(rng.uniform(np.log(least), np.log(most + 1))))

    model = str(rng.choice(["gan", "vae"]))
    settings = {
        "hidden": tuple(size(1, 2048) for _ in range(rng.integers(1, 3))),
        "latent_dim": size(1, 256),
        "batch_size": size(1, 4096),
    }
    return model, str(rng.choice(PRECISIONS)), size(1, 2048), settings


def compile_a_random_model(number: int) -> tuple[str, list[report.Resources]]:
    seed = int(os.environ.get("MINIGEN_TEST_SEED", secrets.randbelow(2**32)))
    rng = np.random.default_rng(seed)
    model, precision, columns, settings = random_model(rng)
    architecture = int(rng.choice(report.ARCHITECTURES))
    ops = report.planning_backend(architecture, precision)
    launches = schedule_of(model, ops, columns, settings).launches
    told = f"MINIGEN_TEST_SEED={seed}: {model} on sm_{architecture}, {columns} columns, {settings}"
    return told, report.resources(launches, ops)


@pytest.mark.background(run=compile_a_random_model)
@pytest.mark.parametrize("number", range(MODELS))
def test_a_random_model_fits(number, result):
    model, found = result
    print(model, report.table(found), sep="\n")
    for kernel in found:
        assert kernel.shared <= tiles.shared_memory(kernel.architecture), (kernel, model)
        assert 0 < kernel.registers <= 65536 // (32 * kernel.warps), (kernel, model)
        assert kernel.stack <= MOST_SPILLED, (kernel, model)


def compile_a_wide_latent_layer(precision: str) -> tuple[int, list[report.Resources]]:
    """Of a VAE whose other sizes are the defaults."""
    latent_dim = 33 + secrets.randbelow(32)
    ops = report.planning_backend(90, precision)
    launches = schedule_of("vae", ops, 784, {"latent_dim": latent_dim}).launches
    return latent_dim, report.resources([x for x in launches if "latent_sample" in x.name], ops)


@pytest.mark.background(run=compile_a_wide_latent_layer)
@pytest.mark.parametrize("precision", ["tf32x3", "bf16"])
def test_a_stage_of_the_latent_layer_holds_both_heads(precision, result):
    """With 33 to 64 latents they took 294,912 of 232,448 bytes: the tile's own columns were counted alone."""
    latent_dim, (kernel,) = result
    assert kernel.shared <= tiles.shared_memory(90) and not kernel.reduced, (latent_dim, kernel)


def one_product() -> tuple[Any, list[Launch]]:
    ops = report.planning_backend(90, "tf32x3")
    x, W, b, y = ops.empty((16, 900)), ops.empty((900, 16)), ops.empty((16,)), ops.empty((16, 16))
    return ops.executor, list(ops.schedule(lambda: ops.dense_forward(x, W, b, y, "relu")).launches)


def compile_with_little_memory() -> list[tuple[int, int, tuple[int, ...]]]:
    """One product on cards with less and less shared memory, twice: each time what it has and takes, and the tile."""
    executor, launches = one_product()
    found = []
    for limit in (2**20, 50_000, 5_000, 2**20, 50_000, 5_000):
        executor.shared_limit = limit
        ((launch, binary),) = compile_launches(launches, executor)
        (job,) = launch.jobs
        sizes = (launch.num_stages, job.tile.SPLIT, job.tile.BK, job.tile.BM, job.tile.BN)
        assert job.arguments["BK"] == job.tile.BK and job.arguments["SPLIT"] == job.tile.SPLIT
        found.append((limit, binary.shared, sizes))
    executor.shared_limit = 1000
    with pytest.raises(DeviceError, match=r"dense_forward wants \d+ bytes.*smallest tile.*sm_90 has 1000"):
        compile_launches(launches, executor)
    return found


@pytest.mark.background(run=compile_with_little_memory)
def test_a_kernel_that_does_not_fit_gets_fewer_stages_then_a_smaller_tile(result):
    assert all(shared <= limit for limit, shared, _ in result), result
    stages, splits, terms, *sides = zip(*(sizes for _, _, sizes in result[:3]), strict=True)
    assert stages[0] == 3 and stages[2] == 1 and stages[0] >= stages[1] >= stages[2], result
    assert splits[0] * terms[0] > splits[2] * terms[2], result
    assert all(set(side) == {16} for side in sides), result
    assert result[:3] == result[3:], "the same card gets the same tiles"


def test_what_is_reduced_first():
    """Of several jobs, those that hold the most; stages, chunks, terms; until nothing is left."""
    ops = report.planning_backend(90, "tf32x3")
    launch = next(x for x in report.model_launches("vae", ops) if x.name.count("dense_wgrad") > 1)
    seen = [launch]
    while (smaller := codegen.with_less_memory(seen[-1])) is not None:
        assert smaller.grid == launch.grid and smaller.args == launch.args
        seen.append(smaller)
    assert [x.num_stages for x in seen[:3]] == [3, 2, 1] and {x.num_stages for x in seen[2:]} == {1}
    assert all(job.tile is None or (job.tile.SPLIT, job.tile.BK) == (1, 16) for job in seen[-1].jobs)
    assert seen[-1].num_warps == launch.num_warps


@pytest.mark.parametrize("architecture", [80, 86, 90, 100, 120])
def test_chosen_tiles_fit_by_their_own_count(architecture):
    rng = np.random.default_rng()
    for _ in range(300):
        shape, width = [int(n) for n in np.exp(rng.uniform(0, 9, 3))], int(rng.choice([0, 16, 64, 128])) or None
        operation, precision = str(rng.choice(["forward", "dgrad", "wgrad"])), str(rng.choice(PRECISIONS))
        tile = tiles.choose(operation, *shape, architecture, precision, width)
        assert tiles.staged_bytes(tile, architecture, width) <= tiles.shared_memory(architecture), (shape, width, tile)

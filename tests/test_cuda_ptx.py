"""What Triton's compiler makes of the CUDA backend's kernels, run without a GPU, instruction by instruction (see ptx/).

Here on sm_90, products in every precision, and in one on the other architectures. ``MINIGEN_TEST_BACKENDS=ptx80-bf16``
has ``pytest FILE -k ptx`` run the tests of any operation, and ``pytest interpreted_fusions.py`` those of that kind, as
another architecture's code.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from test_cuda_compile import drawn

from helpers import PRODUCTS, relative_error
from minigen.cuda.backend import PRECISIONS, CudaBackend
from minigen.cuda.plan import tiles
from ptx.executor import PtxExecutor

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
HERE = Path(__file__).parent
OF_PARTS = ("bf16x6", "bf16x3")  # they are for large layers
OTHERS = [precision for precision in PRECISIONS if precision not in OF_PARTS]


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process that compiles, in the folder of the tests."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | environment
    path = os.pathsep.join(filter(None, [str(HERE.parent), environment.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=HERE,
        env=environment | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def run(backend: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest on one backend."""
    return python(
        *("-m", "pytest", "-m", "", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"),
        *arguments,
        MINIGEN_TEST_BACKENDS=backend,
    )


def assert_passed(done: subprocess.CompletedProcess[str]) -> None:
    print(done.stdout[-20000:], done.stderr[-2000:])
    assert done.returncode == 0
    assert " passed" in done.stdout and "skipped" not in done.stdout


def run_products(architecture: int, precision: str) -> subprocess.CompletedProcess[str]:
    backend = f"ptx{architecture}-{precision}"
    cases = drawn([("forward", "tanh"), ("dgrad", "leaky_relu"), ("wgrad", None)], architecture, precision)
    return run(backend, *(f"test_dense.py::test_{name}[{backend}{f'-{a}' if a else ''}]" for name, a in cases))


EVERY_ONE = [*((90, p) for p in OTHERS), (80, "tf32x3"), (120, "tf32x3")]


@pytest.mark.background(run=run_products)
@pytest.mark.parametrize("architecture, precision", EVERY_ONE)
def test_products(architecture, precision, result):
    """Forward and both gradients, on random odd shapes; but for the default precision one of the three, any."""
    assert_passed(result)


def multiply(precision: str, kind: str) -> tuple[dict[str, float], set[str]]:
    """A layer's products in the tiles of a class of larger shapes: relative errors, and names of instructions."""
    rng = np.random.default_rng()
    step = 16 if rng.integers(2) else 1  # rows of whole vectors, or not
    B, I, O = (int(n) * step for n in rng.integers(130 // step, 300 // step, 3))  # noqa: E741
    executor = PtxExecutor(90)
    ops = CudaBackend(executor=executor, precision=precision)
    x, W, b, dz = (ops.upload(rng.standard_normal(s, np.float32)) for s in ((B, I), (I, O), (O,), (B, O)))
    y, dx, dW, db = (ops.empty(a.shape) for a in (dz, x, W, b))
    with mock.patch.object(tiles, "shape_class", return_value=kind):
        ops.dense_forward(x, W, b, y, "linear")
        ops.dense_dgrad(dz, W, dx, x, "relu")
        ops.dense_wgrad(x, dz, dW, db)
    x, W, b, dz = (a.astype(np.float64) for a in (x, W, b, dz))
    pairs = {"y": (y, x @ W + b), "dx": (dx, dz @ W.T * (x > 0)), "dW": (dW, x.T @ dz), "db": (db, dz.sum(0))}
    names = {instruction.name for code in executor.codes.values() for instruction in code.instructions}
    return {f"{name}, {B} x {I} x {O}": relative_error(*pair) for name, pair in pairs.items()}, names


@pytest.mark.background(run=multiply)
@pytest.mark.parametrize("precision, kind", [*product(OTHERS, ["some", "many"]), *product(OF_PARTS, ["many"])])
def test_tiles_of_larger_layers(precision, kind, result):
    """Those in which Hopper's tensor cores read shared memory by themselves, among others."""
    errors, instructions = result
    for name, error in errors.items():
        assert error < PRODUCTS[precision], (name, errors)
    assert ("wgmma" in instructions) == (precision != "ieee")


def run_the_articles_step(architecture: int) -> subprocess.CompletedProcess[str]:
    return run(f"ptx{architecture}", "interpreted_article.py")


@pytest.mark.background(run=run_the_articles_step)
@pytest.mark.parametrize("architecture", [90])
def test_the_articles_step(architecture, result):
    """The GAN and the VAE in full size, in the default precision."""
    assert_passed(result)


def run_steps() -> subprocess.CompletedProcess[str]:
    return run("ptx90", "interpreted_steps.py", "-k", "test_gan or test_vae or pieces")


@pytest.mark.background(run=run_steps)
def test_steps(result):
    """Several in a row, of small odd sizes."""
    assert_passed(result)


def run_models_together() -> subprocess.CompletedProcess[str]:
    return run("ptx90", "interpreted_many.py", "-k", "wide and gan")


@pytest.mark.background(run=run_models_together)
def test_models_together(result):
    """Two GANs in one launch, in larger tiles than each alone. Without ``-k`` the file has three, and VAEs."""
    assert_passed(result)


def run_operations() -> subprocess.CompletedProcess[str]:
    names = ("activations", "gan_loss", "penalty", "vae_loss", "latent", "optimizer", "random", "batch")
    slow = "follow_the_same_path or repeats_the_step or distributions or an_epoch_visits or autograd or follows"
    return run("ptx90", "-k", f"ptx and not ({slow})", *(f"test_{name}.py" for name in names))


@pytest.mark.background(run=run_operations)
def test_operations(result):
    assert_passed(result)


def run_profile() -> subprocess.CompletedProcess[str]:
    return python("-m", "ptx.profile", "gan", "--lines", "3")


MOST_ISSUED = {True: 21_000, False: 23_000}
"""Clocks of the default GAN's step, as :mod:`ptx.profile` counts them, that no change may exceed unnoticed; by whether
Triton divides chunks of a product among warps."""


@pytest.mark.background(run=run_profile)
def test_profile(result):
    """A line for each launch, and lines of the kernels beneath: the products among them. The step stays as short."""
    assert result.returncode == 0, result.stderr
    print(result.stdout)
    head, *launches, total = (line for line in result.stdout.splitlines() if not line.startswith(" " * 8))
    counts = [int(line.split()[0].replace(",", "")) for line in (*launches, total)]
    assert "issue" in head and len(launches) == 8 and sum(counts[:-1]) == counts[-1] > 1000
    assert counts[-1] <= MOST_ISSUED[tiles.divides_chunks()]
    assert "total = tl.dot(a, b, total, input_precision=PRECISION)" in result.stdout

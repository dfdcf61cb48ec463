"""Precisions "bf16" and "bf16x6" of the CPU backend: dense products on AMX tiles and on AVX512-BF16 dot products.

What they must come to is the float64 product of operands that NumPy has rounded to bf16, or of the operands themselves.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from helpers import Arena, Out, normals, relative_error, use_threads
from minigen.backend import DENSE_ACTIVATIONS
from minigen.models.hidden import dense_layers
from minigen.models.network import Network
from minigen.models.optimizer import OptimizerSettings
from minigen.models.vae import VaeStep
from minigen.reference import activations, dense
from minigen.training.run import TrainingRun

cpu = pytest.importorskip("minigen.cpu", reason="minigen._native is not built")
native = cpu._native

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = native.supported_bf16()
needs_bf16 = pytest.mark.skipif(not SUPPORTED, reason="no AVX512-BF16 and no AMX-BF16, or no compiler that knows them")

TIGHT = 1e-5
"""Relative error left when both sides have rounded the operands: float32 sums, and activations of a few ulp."""
AS_FLOAT32 = 3e-6
"""The same of bf16x6, whose operands are not rounded; in float32 the largest of these products come to 2e-6."""
ROUNDED = 1e-2
"""Relative error of the rounding itself, at most; bf16 has 8 bits."""

SIZES = (1, 2, 3, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 100, 129)
LARGE = [
    (1, 37, 53),
    (128, 100, 128),
    (130, 785, 129),  # k in two blocks
    (70, 33, 1061),  # columns in two blocks
    (33, 1300, 40),
    (64, 0, 33),
    (0, 19, 33),
]


def to_bf16(array: np.ndarray) -> np.ndarray:
    """float64 with the values of float32 ``array`` rounded to the nearest bf16, ties to even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)


@pytest.fixture
def ops() -> Any:
    return cpu.CpuBackend(precision="bf16")


needs_amx = pytest.mark.skipif(not SUPPORTED or cpu.bf16() != "amx", reason="no AMX-BF16, or others are asked for")


@pytest.fixture(params=["bf16", pytest.param("bf16x6", marks=needs_amx)])
def either(request: pytest.FixtureRequest) -> Any:
    return cpu.CpuBackend(precision=request.param)


@pytest.fixture
def guarded(either: Any, rng: np.random.Generator) -> Iterator[Arena]:
    arena = Arena(either, rng)
    yield arena
    arena.verify()


@pytest.fixture(autouse=True)
def keep_threads() -> Iterator[None]:
    before = cpu.get_num_threads()
    yield
    cpu.set_num_threads(before)


def layer(rng: np.random.Generator, B: int, n_in: int, n_out: int) -> dict[str, np.ndarray]:
    return {
        "x": normals(rng, B, n_in),
        "W": normals(rng, n_in, n_out),
        "b": normals(rng, n_out),
        "dz": normals(rng, B, n_out),
    }


def products(arena: Arena, x: Any, W: Any, b: Any, dz: Any, activation: str) -> list[np.ndarray]:
    """y, dx, dW and db, where the activation is that of y and of x."""
    (B, n_in), n_out = x.shape, W.shape[1]
    (y,) = arena.call("dense_forward", x, W, b, Out(B, n_out), activation)
    (dx,) = arena.call("dense_dgrad", dz, W, Out(B, n_in), activations.forward(x, activation), activation)
    dW, db = arena.call("dense_wgrad", x, dz, Out(n_in, n_out), Out(n_out))
    return [y, dx, dW, db]


def expected(x: Any, W: Any, b: Any, dz: Any, activation: str, rounding: Any) -> list[np.ndarray]:
    """The same in float64. ``rounding`` is applied to the operands of the products, and to nothing else."""
    before = activations.forward(x, activation).astype(np.float32).astype(np.float64)
    q = {"x": rounding(x), "W": rounding(W), "dz": rounding(dz)}
    y = dense.forward(q["x"], q["W"], b, activation)
    dx = dense.dgrad(q["dz"], q["W"], before, activation)
    return [y, dx, q["x"].T @ q["dz"], dz.sum(axis=0)]


def same(out: np.ndarray, reference: np.ndarray, tolerance: float, scale: np.ndarray) -> None:
    error = np.linalg.norm(out - reference)
    assert error <= tolerance * np.linalg.norm(scale), (error, tolerance * np.linalg.norm(scale), out.shape)


def check_products(arena: Arena, rng: np.random.Generator, shape: tuple[int, int, int], activation: str) -> None:
    given = layer(rng, *shape)
    single = {name: a.astype(np.float32).astype(np.float64) for name, a in given.items()}
    computed = products(arena, **single, activation=activation)
    in_six = arena.backend.precision == "bf16x6"
    rounded = expected(**single, activation=activation, rounding=np.asarray if in_six or shape[2] == 1 else to_bf16)
    exact = expected(**single, activation=activation, rounding=np.asarray)
    # Sums whose terms cancel are measured by their terms.
    x, W, b, dz = (np.abs(single[name]) for name in ("x", "W", "b", "dz"))
    scales = [np.sqrt(x**2 @ W**2) + b, np.sqrt(dz**2 @ W.T**2), np.sqrt(x.T**2 @ dz**2), np.sqrt((dz**2).sum(axis=0))]
    for out, one, other, scale in zip(computed, rounded, exact, scales, strict=True):
        same(out, one, AS_FLOAT32 if in_six else TIGHT, scale)
        same(out, other, ROUNDED, scale)
    same(computed[3], exact[3], 1e-6, scales[3])  # db is a sum of float32


# --- numbers ------------------------------------------------------------------------------------


@needs_bf16
@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS)
def test_products_of_odd_shapes(guarded: Arena, rng: np.random.Generator, activation: str) -> None:
    for shape in [(1, 1, 1), (33, 33, 1), (1, 33, 33), (33, 1, 33), *rng.choice(SIZES, (8, 3)).tolist()]:
        check_products(guarded, rng, tuple(shape), activation)


@needs_bf16
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_products_beyond_a_block(guarded: Arena, rng: np.random.Generator, shape: tuple[int, int, int]) -> None:
    check_products(guarded, rng, shape, "tanh")


@needs_bf16
def test_operands_are_rounded_to_the_nearest_even(ops: Any, rng: np.random.Generator) -> None:
    """A product with the identity is the rounding, bit for bit, in each operand."""
    bits = rng.integers(0, 2**32, (64, 40), dtype=np.uint32)
    bits[:20] = bits[:20] >> 16 << 16 | 0x8000  # halfway
    bits[20:30] |= 0x7FFF
    values = bits.view(np.float32)
    smallest = np.float32(2.0**-126)  # below, numbers count as zero
    values = np.where(np.isfinite(values) & (np.abs(values) < 3.3e38), values, np.float32(1.5))
    rounded = to_bf16(np.where(np.abs(values) < smallest, np.float32(0), values))
    identity, out = np.eye(40, dtype=np.float32), ops.upload(np.full((64, 40), np.nan, np.float32))
    ops.dense_forward(values, identity, np.zeros(40, np.float32), out)
    assert np.array_equal(out, rounded)
    ops.dense_dgrad(values, identity, out)
    assert np.array_equal(out, rounded)
    across = ops.upload(np.full((64, 64), np.nan, np.float32))
    ops.dense_dgrad(np.eye(64, dtype=np.float32), np.ascontiguousarray(np.pad(values, ((0, 0), (0, 24)))), across)
    assert np.array_equal(across[:40].T, rounded)


@needs_amx
def test_three_parts_hold_all_bits(rng: np.random.Generator) -> None:
    """A product with the identity in bf16x6 is the operand, bit for bit, unless its last part counts as zero."""
    ops = cpu.CpuBackend(precision="bf16x6")
    values = rng.integers(0, 2**32, (64, 40), dtype=np.uint32).view(np.float32)
    within = np.isfinite(values) & (np.abs(values) < 3e38) & (np.abs(values) > 1e-30)
    values = np.where(within, values, np.float32(1.5))
    out = ops.upload(np.full((64, 40), np.nan, np.float32))
    ops.dense_forward(values, np.eye(40, dtype=np.float32), np.zeros(40, np.float32), out)
    assert np.array_equal(out, values)
    ops.dense_dgrad(values, np.eye(40, dtype=np.float32), out)
    assert np.array_equal(out, values)


@needs_amx
@pytest.mark.parametrize("shape", [(128, 784, 128), (128, 128, 784), (1000, 1000, 500)], ids=str)
def test_bf16x6_is_as_good_as_float32(rng: np.random.Generator, shape: tuple[int, int, int]) -> None:
    given = {name: array.astype(np.float32) for name, array in layer(rng, *shape).items()}
    exact = given["x"].astype(np.float64) @ given["W"] + given["b"]
    errors = {}
    for precision in ("ieee", "bf16x6"):
        y = np.full(exact.shape, np.nan, np.float32)
        cpu.CpuBackend(precision=precision).dense_forward(given["x"], given["W"], given["b"], y)
        errors[precision] = relative_error(y, exact)
    assert errors["bf16x6"] <= errors["ieee"] < 1e-6, errors


@needs_bf16
def test_nan_and_infinity_pass_through(either: Any, rng: np.random.Generator) -> None:
    """A bad entry reaches the sums that it belongs to, and no other; also where tiles are filled up."""
    B, n_in, n_out = 35, 19, 21
    for bad in (np.nan, np.inf):
        given = {name: a.astype(np.float32) for name, a in layer(rng, B, n_in, n_out).items()}
        given["x"][17, 3], given["dz"][34, 20] = bad, bad
        y, dx, dW, db = (np.zeros(s, np.float32) for s in ((B, n_out), (B, n_in), (n_in, n_out), (n_out,)))
        either.dense_forward(given["x"], given["W"], given["b"], y)
        either.dense_dgrad(given["dz"], given["W"], dx)
        either.dense_wgrad(given["x"], given["dz"], dW, db)
        for out, row in ((y, 17), (dx, 34)):
            assert not np.isfinite(out[row]).any() and np.isfinite(np.delete(out, row, axis=0)).all()
        assert not np.isfinite(dW[3]).any() and not np.isfinite(dW[:, 20]).any() and not np.isfinite(db[20])
        assert np.isfinite(np.delete(np.delete(dW, 3, axis=0), 20, axis=1)).all() and np.isfinite(db[:20]).all()


@needs_bf16
def test_a_head_of_one_output_stays_float32(rng: np.random.Generator) -> None:
    x, W, b = (a.astype(np.float32) for a in (normals(rng, 50, 77), normals(rng, 77, 1), normals(rng, 1)))
    both = [np.full((50, 1), np.nan, np.float32) for _ in range(2)]
    for precision, y in zip(("ieee", "bf16"), both, strict=True):
        cpu.CpuBackend(precision=precision).dense_forward(x, W, b, y)
    assert both[0].tobytes() == both[1].tobytes()


# --- threads and programs -----------------------------------------------------------------------


def all_products(ops: Any, shape: tuple[int, int, int], seed: int) -> list[bytes]:
    B, n_in, n_out = shape
    given = {name: ops.upload(a.astype(np.float32)) for name, a in layer(np.random.default_rng(seed), *shape).items()}
    out = [np.full(s, np.nan, np.float32) for s in ((B, n_out), (B, n_in), (n_in, n_out), (n_out,))]

    def step() -> None:
        ops.dense_forward(given["x"], given["W"], given["b"], out[0], "sigmoid")
        ops.dense_dgrad(given["dz"], given["W"], out[1], given["x"], "relu")
        ops.dense_wgrad(given["x"], given["dz"], out[2], out[3])

    step()
    direct = [buffer.tobytes() for buffer in out]
    for buffer in out:
        buffer.fill(np.nan)
    ops.capture(step).run(2)
    assert [buffer.tobytes() for buffer in out] == direct, "a program's bits are not those of direct calls"
    return direct


@needs_bf16
@pytest.mark.parametrize("shape", [*LARGE[:5], (259, 517, 300), (40, 129, 784)], ids=str)
def test_bits_do_not_depend_on_threads(either: Any, seed: int, shape: tuple[int, int, int]) -> None:
    cpu.set_num_threads(1)
    alone = all_products(either, shape, seed)
    for threads in (2, 3, 4, 7):
        use_threads(threads)
        assert all_products(either, shape, seed) == alone, threads


# --- training -----------------------------------------------------------------------------------


def train(precision: str, data: np.ndarray, epochs: int) -> np.ndarray:
    """Mean loss terms of each epoch of a VAE 784-400-20."""
    ops = cpu.CpuBackend(precision=precision)
    sizes = {"encoder": (784, 400, 40), "decoder": (20, 400, 784)}
    networks = [Network(ops, name, dense_layers(layers, "relu", "linear")) for name, layers in sizes.items()]
    for first, network in zip((0, 2), networks, strict=True):
        network.initialize(0, "glorot_uniform", first)
    settings = OptimizerSettings("adam", learning_rate=1e-3, beta1=0.9, beta2=0.999, eps=1e-8)
    step = VaeStep(ops, *networks, data, batch_size=128, settings=settings, seed=0, scale=1 / 255, shift=0.0)
    training = TrainingRun(step)
    means = []
    for _ in range(epochs):
        training.run(training.steps_per_epoch)
        means.append(training.recent_losses(training.steps_per_epoch).mean(axis=0))
    return np.array(means)


@needs_bf16
def test_models_keep_the_precision_in_their_files(either: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    settings = {"hidden": (8,), "latent_dim": 3, "batch_size": 32, "epochs": 1, "device": "cpu", "progress": False}
    model = minigen.train_vae(rng.random((64, 9)), precision=either.precision, **settings)
    model.save(tmp_path / "model.safetensors")
    assert minigen.load(tmp_path / "model.safetensors").precision_ == either.precision


@needs_bf16
def test_a_vae_learns_as_in_float32() -> None:
    """The same weights, batches and noise: losses of every epoch within half a percent."""
    data = minigen.datasets.mnist_sample().images.reshape(-1, 784)
    single, rounded = (train(precision, data, 4) for precision in ("ieee", "bf16"))
    assert single[-1, 0] < 0.75 * single[0, 0], "it did not learn"
    assert np.max(np.abs(rounded[:, 0] / single[:, 0] - 1)) < 5e-3
    assert relative_error(rounded, single) < 5e-3
    assert (rounded != single).any(), "nothing was rounded"


# --- which instructions, and machines without ------------------------------------------------------


def python(code: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


ERROR = """
import minigen.cpu
try: minigen.cpu.CpuBackend(precision="bf16")
except ValueError as error: print(error)
"""


@pytest.mark.parametrize("name", SUPPORTED[:-1])
def test_the_slower_instructions_pass_these_tests(name: str) -> None:
    chosen = ["-k", "not slower and not machine", __file__]
    command = [sys.executable, "-m", "pytest", "-m", "", "-q", "-p", "no:cacheprovider", *chosen]
    result = subprocess.run(command, env=os.environ | {"MINIGEN_BF16": name}, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:]
    assert python("import minigen.cpu as c; print(c.bf16())", MINIGEN_BF16=name) == name


@pytest.mark.skipif(not SUPPORTED[:-1], reason="AMX is all there is, or nothing")
def test_bf16x6_without_amx_is_an_error() -> None:
    message = python(ERROR.replace("bf16", "bf16x6"), MINIGEN_BF16=SUPPORTED[0])
    assert "not 'bf16x6': that needs AMX" in message and SUPPORTED[0] in message


@needs_bf16
def test_the_fastest_instructions_are_the_default() -> None:
    assert python("import minigen.cpu as c; print(c.bf16())", MINIGEN_BF16="") == SUPPORTED[-1]


@needs_bf16
def test_wrong_instructions_are_an_error_that_lists_the_allowed() -> None:
    message = python(ERROR, MINIGEN_BF16="mmx")
    assert "MINIGEN_BF16" in message and "'mmx'" in message and ", ".join(SUPPORTED) in message


def test_a_machine_without_bf16_says_so() -> None:
    message = python(ERROR, MINIGEN_ISA="baseline")
    assert "precision must be ieee on this machine: bf16 needs AVX512-BF16 or AMX-BF16" in message


def test_an_unknown_precision_lists_the_known() -> None:
    with pytest.raises(ValueError, match="precision must be .*'ieee'.*'bf16'.*'fp8'"):
        cpu.CpuBackend(precision="fp8")


@needs_amx
@pytest.mark.parametrize(
    ("n_in", "n_out", "forward", "dgrad", "wgrad"),
    [
        (100, 128, True, False, False),
        (129, 128, False, False, False),
        (784, 63, True, False, False),
        (63, 784, False, True, False),
        (32, 784, False, True, True),
        (40, 40, True, True, True),
    ],
)
def test_small_layers_stay_float32(n_in: int, n_out: int, forward: bool, dgrad: bool, wgrad: bool) -> None:
    """The bits are those of ieee where splitting the operands does not pay, and only there."""
    results = []
    for precision in ("ieee", "bf16x6"):
        ops = cpu.CpuBackend(precision=precision)
        values = layer(np.random.default_rng(0), 70, n_in, n_out)
        x, W, b, dz = (np.asarray(values[name], np.float32) for name in ("x", "W", "b", "dz"))
        y, dx, dW, db = (np.full(size, np.nan, np.float32) for size in (dz.shape, x.shape, W.shape, b.shape))
        ops.dense_forward(x, W, b, y)
        ops.dense_dgrad(dz, W, dx)
        ops.dense_wgrad(x, dz, dW, db)
        results.append([a.tobytes() for a in (y, dx, dW)])
    assert [a == b for a, b in zip(*results, strict=True)] == [forward, dgrad, wgrad]

"""Programs of the CPU backend fuse weight gradients with the Adam behind them: same bits, and only where it is safe."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from helpers import use_threads

cpu = pytest.importorskip("minigen.cpu", reason="minigen._native is not built")
ISAS = cpu._native.supported_isas()


class Network:
    """Layers of ``sizes`` whose parameters lie ``padding`` floats apart in one buffer, and what they are trained on."""

    def __init__(self, ops: Any, rng: np.random.Generator, batch: int, sizes: list[int], padding: int) -> None:
        self.ops = ops
        pairs = list(zip(sizes, sizes[1:], strict=False))
        count = sum(i * o + o + 2 * padding for i, o in pairs)

        def normal(*shape: int) -> np.ndarray:
            return ops.upload(rng.standard_normal(shape, dtype=np.float32))

        self.p, self.g, self.m = normal(count), normal(count), normal(count)
        self.v = ops.upload(np.abs(self.m))
        self.lr, self.step = ops.upload(np.full(1, 0.01, np.float32)), ops.upload(np.full(1, 3, np.uint64))
        self.layers, at = [], 0
        for i, o in pairs:
            dW = self.g[at : at + i * o].reshape(i, o)
            db = self.g[at + i * o + padding : at + i * o + padding + o]
            self.layers.append((normal(batch, i), normal(batch, o), dW, db))
            for end in (at + i * o, at + i * o + padding + o):  # the rest of a line of 64 bytes is padding, and zero
                for flat in (self.p, self.g, self.m, self.v):
                    flat[end : min(-(-end // 16) * 16, end + padding)] = 0
            at += i * o + o + 2 * padding

    def gradients(self) -> None:
        for x, dz, dW, db in reversed(self.layers):
            self.ops.dense_wgrad(x, dz, dW, db)

    def update(self) -> None:
        self.ops.adam(self.p, self.g, self.m, self.v, self.lr, self.step)

    def decayed_update(self) -> None:
        self.ops.adamw(self.p, self.g, self.m, self.v, self.lr, self.step, weight_decay=0.1)

    def run(self, step: Callable[[], None]) -> list[str]:
        """Two steps as a program; the names of its calls."""
        program = self.ops.capture(step)
        program.run(2)
        return [call["operation"] for call in program.describe()]


def compare(rng: np.random.Generator, batch: int, sizes: list[int], padding: int, decay: bool) -> None:
    """A program and the same calls made one by one, from the same numbers."""
    seed = int(rng.integers(2**32))
    fused, plain = (Network(cpu.CpuBackend(), np.random.default_rng(seed), batch, sizes, padding) for _ in range(2))

    def step_of(net: Network) -> Callable[[], None]:
        return lambda: (net.gradients(), net.decayed_update() if decay else net.update())  # type: ignore[func-returns-value]

    names = fused.run(step_of(fused))
    assert names[: len(sizes) - 1] == ["dense_wgrad_adamw" if decay else "dense_wgrad_adam"] * (len(sizes) - 1)
    for _ in range(2):
        step_of(plain)()
    for name in "pmv":
        got, wanted = getattr(fused, name), getattr(plain, name)
        assert got.tobytes() == wanted.tobytes(), (seed, name, batch, sizes, padding)


@pytest.fixture(autouse=True)
def keep_threads() -> Any:
    before = cpu.get_num_threads()
    yield
    cpu.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_bits_are_those_of_separate_calls(rng: np.random.Generator, threads: int) -> None:
    use_threads(threads)
    for _ in range(6):
        sizes = [int(n) for n in rng.integers(1, 130, size=rng.integers(2, 5))]
        compare(rng, int(rng.integers(1, 200)), sizes, int(rng.integers(0, 20)), bool(rng.integers(2)))
    compare(rng, 128, [784, 128, 1], 16, False)
    compare(rng, 900, [300, 50, 1], 0, True)  # several blocks of the batch: unfinished sums in the gradient's buffer
    compare(rng, 5, [700, 33], 3, False)


@pytest.mark.slow
@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa != cpu.isa()])
def test_so_on_every_instruction_set(isa: str) -> None:
    command = [sys.executable, "-m", "pytest", "-m", "", "-q", "-p", "no:cacheprovider", "-k", "bits", __file__]
    result = subprocess.run(command, env={**os.environ, "MINIGEN_ISA": isa}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:]


def read_the_gradient(net: Network) -> None:
    net.ops.activation_forward(net.g, net.ops.empty(net.g.shape), "relu")


def change_the_gradient(net: Network) -> None:
    net.ops.activation_forward(net.g, net.g, "relu")


def overwrite_an_input(net: Network) -> None:
    x = net.layers[0][0]
    net.ops.activation_forward(x, x, "relu")


def overwrite_a_delta(net: Network) -> None:
    dz = net.layers[-1][1]
    net.ops.activation_forward(dz, dz, "tanh")


def fill_a_layer_twice(net: Network) -> None:
    net.ops.dense_wgrad(*net.layers[0])


OF_ONE_LAYER = (overwrite_an_input, overwrite_a_delta, fill_a_layer_twice)
"""The other layer is none the worse for these."""
BEFORE_THE_UPDATE = (read_the_gradient, change_the_gradient, overwrite_an_input, overwrite_a_delta, fill_a_layer_twice)


@pytest.mark.parametrize(
    ("between", "after"),
    [*((call, False) for call in BEFORE_THE_UPDATE), (read_the_gradient, True), (change_the_gradient, True)],
)
def test_what_forbids_it(rng: np.random.Generator, between: Callable[[Network], None], after: bool) -> None:
    seed = int(rng.integers(2**32))
    program, plain = (Network(cpu.CpuBackend(), np.random.default_rng(seed), 7, [9, 5, 3], 1) for _ in range(2))

    def step_of(net: Network) -> Callable[[], None]:
        def step() -> None:
            net.gradients()
            if not after:
                between(net)
            net.update()
            if after:
                between(net)

        return step

    names = program.run(step_of(program))
    assert names.count("dense_wgrad_adam") == (1 if between in OF_ONE_LAYER else 0), seed
    assert names.count("dense_wgrad") >= 1
    for _ in range(2):
        step_of(plain)()
    for name in "pmv":
        assert getattr(program, name).tobytes() == getattr(plain, name).tobytes(), (seed, name)


def test_a_gradient_without_layers_and_layers_without_an_update_stay_as_they_are(rng: np.random.Generator) -> None:
    net = Network(cpu.CpuBackend(), rng, 7, [9, 5, 3], 1)
    assert net.run(net.update) == ["adam"]
    assert net.run(net.gradients) == ["dense_wgrad"] * 2


def test_a_fused_call_tells_what_it_costs(rng: np.random.Generator) -> None:
    net = Network(cpu.CpuBackend(), rng, 7, [9, 5], 0)
    (call,) = net.ops.capture(lambda: (net.gradients(), net.update())).describe()
    parameters = 9 * 5 + 5
    assert call["flops"] == 2 * 7 * 9 * 5 + 7 * 5 + 14 * parameters
    assert call["bytes"] == 4 * (7 * (9 + 5) + 6 * parameters)  # x and dz once; p, m and v read and written


BF16 = cpu._native.supported_bf16()


@pytest.mark.skipif(not BF16, reason="no AVX512-BF16 and no AMX-BF16, or no compiler for them")
@pytest.mark.parametrize("precision", ["bf16", *["bf16x6"] * ("amx" in BF16)])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_in_bf16_only_large_layers_are_fused(rng: np.random.Generator, precision: str, threads: int) -> None:
    """With products of the precision that was asked for; the others leave their gradient to an Adam of its own."""
    use_threads(threads)
    seed = int(rng.integers(2**32))
    for batch, sizes in ((64, [90, 500, 370, 1]), (200, [1500, 100, 1]), (1, [90, 1500, 3])):
        ops = [cpu.CpuBackend(precision=precision) for _ in range(2)]
        program, plain = (Network(one, np.random.default_rng(seed), batch, sizes, 1) for one in ops)
        names = program.run(lambda net=program: (net.gradients(), net.decayed_update()))  # type: ignore[misc]
        assert names.count("dense_wgrad_adamw") == 1, names
        assert names.count("dense_wgrad") == len(sizes) - 2
        assert names[-1] == "adamw"
        for _ in range(2):
            plain.gradients()
            plain.decayed_update()
        for name in "pmv":
            got, wanted = getattr(program, name), getattr(plain, name)
            assert got.tobytes() == wanted.tobytes(), (seed, name, batch, sizes)

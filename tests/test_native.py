"""The compiled backend: instruction sets, threads, programs, forks, bad buffers, accuracy, sanitizers."""

from __future__ import annotations

import ctypes.util
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import use_threads
from minigen.reference import latent, optimizer, random

cpu = pytest.importorskip("minigen.cpu", reason="minigen._native is not built")
native = cpu._native

ROOT = Path(__file__).resolve().parent.parent
ISAS = native.supported_isas()
OPERATIONS = ("activations", "batch", "dense", "gan_loss", "latent", "optimizer", "penalty", "random", "vae_loss")


@pytest.fixture
def ops() -> Any:
    return cpu.CpuBackend()


@pytest.fixture(autouse=True)
def keep_threads() -> Any:
    before = cpu.get_num_threads()
    yield
    cpu.set_num_threads(before)
    native.choose_threads(True)


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run another interpreter with these environment variables added."""
    return subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True
    )


# --- instruction sets ---------------------------------------------------------------------------


OTHERS = [isa for isa in ISAS if isa != cpu.isa()]
"""What the operations' own tests do not run on."""


@pytest.mark.parametrize("isa", ISAS)
def test_instruction_set_by_name(isa: str) -> None:
    one = python("-c", "import minigen.cpu as c; print(c.isa(), c.CpuBackend().isa)", MINIGEN_ISA=isa)
    assert one.stdout.split() == [isa, isa]


@pytest.mark.slow
@pytest.mark.parametrize("isa", OTHERS)
def test_every_instruction_set_passes_the_operation_tests(isa: str) -> None:
    files = [f"tests/test_{name}.py" for name in OPERATIONS]
    result = python("-m", "pytest", "-m", "", "-q", "-p", "no:cacheprovider", "-k", "cpu", *files, MINIGEN_ISA=isa)
    assert result.returncode == 0, result.stdout[-4000:]


@pytest.mark.slow
@pytest.mark.parametrize("isa", OTHERS)
def test_every_instruction_set_is_accurate_and_independent_of_threads(isa: str) -> None:
    chosen = "accuracy or bits or special or propagate"
    result = python("-m", "pytest", "-m", "", "-q", "-p", "no:cacheprovider", "-k", chosen, __file__, MINIGEN_ISA=isa)
    assert result.returncode == 0, result.stdout[-4000:]


def test_wrong_instruction_set_is_an_error_that_lists_the_allowed() -> None:
    code = "import minigen.cpu\ntry: minigen.cpu.CpuBackend()\nexcept ValueError as error: print(error)"
    message = python("-c", code, MINIGEN_ISA="sse9").stdout
    assert "MINIGEN_ISA" in message and "'sse9'" in message and ", ".join(ISAS) in message


def test_empty_choice_of_instruction_set_means_none() -> None:
    result = python("-c", "import minigen.cpu as c; print(c.isa())", MINIGEN_ISA="")
    assert result.stdout.strip() == ISAS[-1]


# --- every operation once, at sizes that several threads share -------------------------------------


class Everything:
    """Every operation with its buffers; ``outputs`` lists what they write."""

    def __init__(self, ops: Any, seed: int, B: int = 157, D: int = 401) -> None:
        rng = np.random.default_rng(seed)
        self.ops = ops
        self.outputs: list[np.ndarray] = []
        self.calls: list[Callable[[], None]] = []

        def normal(*shape: int) -> np.ndarray:
            return ops.upload(rng.normal(size=shape).astype(np.float32))

        def out(*shape: int, dtype: Any = None) -> np.ndarray:
            buffer = ops.upload(np.full(shape, -77, ops.dtype if dtype is None else dtype))
            self.outputs.append(buffer)
            return buffer

        def state(*shape: int) -> np.ndarray:
            self.outputs.append(ops.upload(np.abs(normal(*shape))))
            return self.outputs[-1]

        def add(method: str, *arguments: Any) -> None:
            self.calls.append(lambda: getattr(ops, method)(*arguments))

        step, lr = ops.upload(np.array([3], np.uint64)), ops.upload(np.array([1e-3], np.float32))
        self.outputs.append(step)
        x, z, W, b, rows, loss = normal(B, D), normal(B, D), normal(D, 97), normal(97), out(B), out(1)
        logits, n = normal(B, 1), B * D
        for activation in ("linear", "relu", "leaky_relu", "tanh", "sigmoid", "softplus"):
            add("dense_forward", x, W, b, out(B, 97), activation)
            add("dense_dgrad", normal(B, 97), W, out(B, D), x, activation)
            add("activation_forward", z, out(B, D), activation)
            add("activation_backward", x, z, out(B, D), activation)
        add("dense_wgrad", x, z, out(D, D), out(D))
        add("gan_loss_discriminator", logits, B // 3, out(B, 1), out(1))
        add("gan_loss_generator", logits, out(B, 1), out(1), "non_saturating")
        add("gan_loss_generator", logits, out(B, 1), out(1), "minimax")
        add("gan_loss_discriminator", logits, B // 3, out(B, 1), out(1), "hinge", 0.1)
        add("gradient_penalty", z, out(B, D), out(B), out(1), "r1", 2.0)
        add("gradient_penalty", z, out(B, D), out(B), out(1), "two_sided", 2.0)
        add("interpolate", z, x, logits[:, 0], out(B, D))
        add("activation_curvature", x, z, z, state(B, D), "tanh", True)
        add("clip", state(n), 0.5)
        add("add_noise", x, z, step, out(B, D), 0.3, 9)
        add("vae_loss", z, x, out(B, D), rows, loss, "bernoulli")
        add("vae_loss", z, x, out(B, D), out(B), out(1), "gaussian", 0.3)
        add("latent_forward", normal(B, 2 * D), x, out(B, D), out(B), out(1))
        add("latent_backward", z, normal(B, 2 * D), x, normal(D), out(B, 2 * D))
        add("sgd", state(n), normal(n), state(n), lr, 0.9, 0.01)
        add("adam", state(n), normal(n), state(n), state(n), lr, step)
        add("adamw", state(n), normal(n), state(n), state(n), lr, step)
        add("random_uniform", out(B, D), seed, 1, step)
        add("random_normal", out(B, D), seed, 2, step)
        indices = out(B, dtype=np.int32)
        add("batch_indices", indices, 1000, seed, 3, step, B, 6)
        add("batch_gather", ops.upload(rng.integers(0, 256, (1000, D)).astype(np.uint8)), indices, out(B, D), 0.5, -1.0)
        add("batch_gather", normal(1000, D), indices, out(B, D), 2.0, 1.0)
        add("advance", step, normal(3), out(5, 3))

    def step(self) -> None:
        for call in self.calls:
            call()

    def bits(self) -> list[bytes]:
        return [output.tobytes() for output in self.outputs]


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_bits_do_not_depend_on_threads(ops: Any, seed: int, threads: int) -> None:
    cpu.set_num_threads(1)
    alone = Everything(ops, seed)
    alone.step()
    use_threads(threads)
    together = Everything(ops, seed)
    together.step()
    assert together.bits() == alone.bits()


def test_bits_of_a_replay_are_those_of_direct_calls(ops: Any, seed: int) -> None:
    direct, replayed = Everything(ops, seed), Everything(ops, seed)
    before = replayed.bits()
    program = ops.capture(replayed.step)
    assert replayed.bits() == before, "capturing must not run the step"
    for _ in range(5):
        direct.step()
    program.run(2)
    program.run(0)
    program.run(3)
    assert replayed.bits() == direct.bits()


def test_bits_of_an_element_do_not_depend_on_its_place(ops: Any, rng: np.random.Generator) -> None:
    """Vector lanes and the rest of a loop compute the same: any slice of the input gives that slice of the output."""
    z = ops.upload(rng.normal(scale=3, size=1000).astype(np.float32))
    for activation in ("relu", "leaky_relu", "tanh", "sigmoid", "softplus"):
        whole = ops.empty(z.shape)
        ops.activation_forward(z, whole, activation)
        for start, stop in ((1, 2), (3, 20), (17, 999), (5, 38)):
            part = ops.empty((stop - start,))
            ops.activation_forward(z[start:stop], part, activation)
            assert part.tobytes() == whole[start:stop].tobytes()


def test_a_replay_allocates_nothing_in_python(ops: Any, seed: int) -> None:
    everything = Everything(ops, seed, B=40, D=60)
    program = ops.capture(everything.step)
    program.run(2)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        program.run(3)
        assert tracemalloc.get_traced_memory()[1] - before < 512  # the argument and the call itself
    finally:
        tracemalloc.stop()


def test_a_program_keeps_its_buffers_alive(ops: Any) -> None:
    n = 300_000
    out, temporary = ops.empty((n,)), ops.upload(np.full(n, 2, np.float32))
    step = functools.partial(ops.activation_forward, temporary, out, "linear")
    program = ops.capture(step)
    del step, temporary
    trash = [ops.upload(np.full(n, 9, np.float32)) for _ in range(4)]
    program.run(1)
    assert (out == 2).all() and trash


def test_a_program_describes_its_calls(ops: Any) -> None:
    x, W, b, y = ops.empty((2, 3)), ops.empty((3, 4)), ops.empty((4,)), ops.empty((2, 4))
    (call,) = ops.capture(lambda: ops.dense_forward(x, W, b, y, "relu")).describe()
    assert call["operation"] == "dense_forward"
    assert call["shapes"] == {"x": (2, 3), "W": (3, 4), "b": (4,), "y": (2, 4)}
    assert call["flops"] == 2 * 2 * 3 * 4
    assert call["bytes"] == 4 * (6 + 12 + 4 + 8)


def test_a_profile_runs_the_program_and_times_each_call(ops: Any, rng: np.random.Generator) -> None:
    x, y, W, b = (ops.upload(rng.standard_normal(size, dtype=np.float32)) for size in ((7, 5), (7, 3), (5, 3), (3,)))
    program = ops.capture(lambda: [ops.dense_forward(x, W, b, y, "relu"), ops.activation_forward(y, y, "tanh")])
    program.run(1)
    expected = y.copy()
    y[:] = np.nan
    seconds = np.array(program.profile(4))
    np.testing.assert_array_equal(y, expected)
    assert seconds.shape == (4, len(program.describe())) and (seconds >= 0).all() and seconds.sum() > 0
    with pytest.raises(ValueError, match="steps must be an integer of at least 0, not -1"):
        program.profile(-1)


def test_what_a_program_refuses(ops: Any) -> None:
    y = ops.empty((2,))
    program = ops.capture(lambda: ops.activation_forward(y, y, "relu"))
    with pytest.raises(ValueError, match="steps must be an integer of at least 0, not -1"):
        program.run(-1)
    with pytest.raises(RuntimeError, match="upload cannot be part of a captured step"):
        ops.capture(lambda: ops.upload(np.zeros(2, np.float32)))
    with pytest.raises(RuntimeError, match="download cannot be part of a captured step"):
        ops.capture(lambda: ops.download(y))
    with pytest.raises(RuntimeError, match="capture cannot be part of a captured step"):
        ops.capture(lambda: ops.capture(lambda: None))
    ops.upload(np.zeros(2, np.float32))  # a failed capture leaves nothing behind


def test_errors_in_a_running_program_reach_python(ops: Any) -> None:
    data, indices, out = ops.empty((3, 2)), ops.upload(np.array([0, 3], np.int32)), ops.upload(np.zeros((2, 2), "f4"))
    program = ops.capture(lambda: ops.batch_gather(data, indices, out))
    with pytest.raises(ValueError, match="indices must lie in"):
        program.run(1)
    assert (out == 0).all()


# --- threads, the interpreter lock, forks --------------------------------------------------------


def test_number_of_threads(ops: Any) -> None:
    cores = native.usable_cores()
    for threads in (1, 2, 1024):
        cpu.set_num_threads(threads)
        assert cpu.get_num_threads() == min(threads, cores), "more threads than cores only take turns"
    cpu.set_num_threads(1)
    for bad in (0, -1, 1025):
        with pytest.raises(ValueError, match=f"threads must be an integer from 1 to 1024, not {bad}"):
            cpu.set_num_threads(bad)
    for bad in (1.5, "2", None):
        with pytest.raises(TypeError):
            cpu.set_num_threads(bad)
    assert cpu.get_num_threads() == 1
    native.set_num_threads(3, beyond_cores=True)
    assert cpu.get_num_threads() == 3


@pytest.mark.slow
def test_initial_number_of_threads() -> None:
    code = "import minigen.cpu as c; print(c.get_num_threads())"
    cores = str(native.usable_cores())
    for asked, expected in [("1", "1"), ("1,4", "1"), ("800", cores), ("", cores), ("-3", cores)]:
        assert python("-c", code, OMP_NUM_THREADS=asked).stdout.strip() == expected, asked
    later = code + "; import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(c.get_num_threads())"
    assert python("-c", later, OMP_NUM_THREADS="").stdout.split() == [cores, "1"]


GROUPS = {  # what /proc/self/cgroup says, files below /sys/fs/cgroup, and the cores that are left
    "v2, none": ("0::/\n", {"cpu.max": "max 100000\n"}, 1024),
    "v2": ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
    "v2, nested": ("0::/a/b\n", {"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1),
    "v2, inner is less": ("0::/a/b\n", {"a/cpu.max": "800000 100000\n", "a/b/cpu.max": "250000 100000\n"}, 3),
    "v2, a container's own": ("0::/../elsewhere\n", {"cpu.max": "50000 100000\n"}, 1),
    "v1": (
        "5:memory:/m\n4:cpu,cpuacct:/a\n1:name=systemd:/\n",
        {"cpu,cpuacct/a/cpu.cfs_quota_us": "400000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"},
        4,
    ),
    "v1, none": ("4:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 1024),
    "v1, in a container": (
        "4:cpu:/docker/0123\n",
        {"cpu/cpu.cfs_quota_us": "20000\n", "cpu/cpu.cfs_period_us": "10000\n"},
        2,
    ),
    "v1 beside v2": (
        "4:cpu:/a\n0::/b\n",
        {"cpu/a/cpu.cfs_quota_us": "300000\n", "cpu/a/cpu.cfs_period_us": "100000\n", "unified/b/cpu.max": "max 1\n"},
        3,
    ),
    "nothing": ("", {}, 1024),
    "nonsense": ("what\n0::\n:::\n", {"cpu.max": "lots\n"}, 1024),
}


@pytest.mark.parametrize("case", GROUPS)
def test_quotas_of_control_groups(case: str, tmp_path: Path) -> None:
    own, files, cores = GROUPS[case]
    for name, content in {"proc/self/cgroup": own, **{f"sys/fs/cgroup/{k}": v for k, v in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert native.quota_cores(str(tmp_path)) == cores


# How long a step takes on a machine, by its number of threads.
QUIET = {4: 1.0e-3, 2: 1.8e-3, 1: 3.4e-3}
BUSY = {4: 9.0e-3, 2: 6.0e-3, 1: 3.5e-3}


def run_choice(choice: Any, machine: dict[int, float], seconds: float, rng: np.random.Generator) -> tuple[int, float]:
    """Steps for some seconds, each up to a tenth slower or faster: their number, and that of threads at the end."""
    passed, steps, threads = 0.0, 0, 0
    while passed < seconds:
        threads = choice.threads(max(machine))
        step = machine[threads] * rng.uniform(0.9, 1.1)
        choice.took(step)
        passed += step
        steps += 1
    return steps, threads


def test_the_number_of_threads_follows_what_is_faster(rng: np.random.Generator) -> None:
    choice = native.ThreadChoice()
    for machine in (QUIET, BUSY, QUIET, BUSY):
        run_choice(choice, machine, 3, rng)  # time to notice
        steps, _ = run_choice(choice, machine, 5, rng)
        assert steps > 0.93 * 5 / min(machine.values())


def test_trials_go_on_while_it_has_been_faster(rng: np.random.Generator) -> None:
    choice = native.ThreadChoice()
    run_choice(choice, QUIET, 2, rng)
    run_choice(choice, {4: 9.0e-3, 2: 9.5e-3, 1: 9.2e-3}, 15, rng)  # slow with any number: no trial wins
    run_choice(choice, BUSY, 5, rng)  # four threads are as slow as before, so that only a trial tells
    assert run_choice(choice, BUSY, 0.5, rng)[0] > 0.5 / BUSY[2]


def test_trials_are_rare_where_they_do_not_help(rng: np.random.Generator) -> None:
    choice = native.ThreadChoice()
    run_choice(choice, QUIET, 2, rng)  # an earlier program of this process may have left it at one thread
    steps, threads = run_choice(choice, QUIET, 10, rng)
    assert steps > 0.98 * 10 / QUIET[4] and threads == 4
    for limit in (1, 3):
        one = native.ThreadChoice()
        assert {one.threads(limit) for _ in range(1000) if one.took(1e-3) is None} <= set(range(1, limit + 1))


def test_trials_cost_little_in_the_first_seconds_of_long_steps(rng: np.random.Generator) -> None:
    slow = {2: 37e-3, 1: 70e-3}
    run_choice(native.ThreadChoice(), slow, 5, rng)  # a new program begins with what the last one chose
    steps = [run_choice(native.ThreadChoice(), slow, 3.6, rng)[0] for _ in range(50)]
    assert np.mean(steps) > 0.962 * 3.6 / slow[2]


def test_the_interpreter_lock_is_released(ops: Any) -> None:
    z = ops.upload(np.ones((1000, 1000), np.float32))
    program = ops.capture(lambda: ops.activation_forward(z, z, "tanh"))
    worker = threading.Thread(target=program.run, args=(300,))
    worker.start()
    turns = 0
    while worker.is_alive():
        turns += 1
    assert turns > 100, "this thread stood still while the program ran"


def test_two_python_threads_run_operations_at_once(ops: Any, seed: int) -> None:
    expected = Everything(ops, seed)
    expected.step()
    both = [Everything(cpu.CpuBackend(), seed) for _ in range(2)]
    workers = [threading.Thread(target=everything.step) for everything in both]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert both[0].bits() == both[1].bits() == expected.bits()


FORK = """
import os, signal, sys, threading, numpy as np
import minigen.cpu as cpu
{before}
ops = cpu.CpuBackend()
cpu._native.set_num_threads(2, beyond_cores=True)
z = ops.upload(np.linspace(-3, 3, 300_000, dtype=np.float32))
y, again = ops.empty(z.shape), ops.empty(z.shape)
program = ops.capture(lambda: ops.activation_forward(z, again, "tanh"))
if "started" in sys.argv:
    ops.activation_forward(z, y, "tanh")
if "busy" in sys.argv:  # another thread has the team while this one forks
    threading.Thread(target=ops.capture(lambda: ops.activation_forward(z, y, "tanh")).run, args=(3000,)).start()
child = os.fork()
if child == 0:
    signal.alarm(60)  # a hang ends as a failure
    program.run(3)
    threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 2
    good = cpu.get_num_threads() == 2 == threads and np.allclose(again, np.tanh(z), atol=1e-6)
    os._exit(0 if good else 1)
ops.activation_forward(z, y, "tanh")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

GOMP = """
import ctypes, ctypes.util
gomp = ctypes.CDLL(ctypes.util.find_library("gomp"))
nothing = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)
gomp.GOMP_parallel(nothing, None, 2, 0)  # as compiled code of LightGBM and others calls it
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("parent", ["fresh", "started", "busy", "openmp"])
def test_a_forked_child_has_threads_of_its_own(parent: str) -> None:
    if parent == "openmp" and not ctypes.util.find_library("gomp"):
        pytest.skip("no libgomp")
    code = FORK.format(before=GOMP if parent == "openmp" else "")
    result = python("-c", code, parent, *["started"] * (parent == "openmp"))
    assert result.returncode == 0, result.stderr


def test_threads_that_wait_sleep(ops: Any) -> None:
    """Between trainings, and while the one that hands out computes alone, they take no time from anybody."""
    use_threads(3)
    z = ops.upload(np.ones(300_000, np.float32))
    ops.activation_forward(z, z, "tanh")  # starts them
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.05


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc that tells of threads")
def test_signals_are_for_threads_of_python(ops: Any) -> None:
    use_threads(3)
    z = ops.upload(np.ones(300_000, np.float32))
    ops.activation_forward(z, z, "tanh")
    blocked = [re.search(r"SigBlk:\s*(\w+)", task.read_text()) for task in Path("/proc/self/task").glob("*/status")]
    assert sum(bool(int(mask[1], 16) >> (signal.SIGINT - 1) & 1) for mask in blocked if mask) >= 2


# --- buffers -------------------------------------------------------------------------------------


def f32(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_buffers_are_aligned(ops: Any) -> None:
    for shape in ((), (1,), (3, 5), (1001,)):
        buffer = ops.empty(shape)
        assert buffer.shape == shape and buffer.dtype == np.float32
        assert buffer.ctypes.data % 64 == 0 and buffer.flags.c_contiguous
    assert ops.empty((0, 7)).shape == (0, 7)
    assert ops.empty((3,), np.uint64).dtype == np.uint64


# --- numbers -------------------------------------------------------------------------------------

SMALLEST = 2.0**-124
"""Below, results may be flushed to zero on the way."""


def sweep() -> np.ndarray:
    """Four million float32 numbers of every size and both signs, infinities among them, no NaN."""
    x = np.arange(0, 2**32, 1021, dtype=np.uint32).view(np.float32)
    return np.concatenate([x[~np.isnan(x)], np.array([np.inf, -np.inf, 0, -0.0, 1e4, -1e4], np.float32)])


def ulps(y: np.ndarray, reference: np.ndarray) -> float:
    """Largest error in units of the last place of the float32 reference, where that is an ordinary number."""
    with np.errstate(over="ignore"):
        rounded = np.abs(reference).astype(np.float32)
    assert np.array_equal(np.isinf(y), np.isinf(rounded))
    ordinary = (rounded > SMALLEST) & np.isfinite(rounded)
    assert np.all(np.abs(y[rounded <= SMALLEST]) <= 2 * SMALLEST)
    return float(np.max(np.abs(y[ordinary] - reference[ordinary]) / np.spacing(rounded[ordinary])))


@pytest.mark.parametrize(("activation", "allowed"), [("tanh", 3.5), ("sigmoid", 2.5), ("softplus", 2.75)])
def test_accuracy_of_activations(ops: Any, activation: str, allowed: float) -> None:
    x = sweep()
    y = ops.empty(x.shape)
    ops.activation_forward(x, y, activation)
    z = x.astype(np.float64)
    e = np.exp(-np.abs(z))
    formulas = {
        "tanh": lambda: np.tanh(z),
        "sigmoid": lambda: np.where(z >= 0, 1, e) / (1 + e),
        "softplus": lambda: np.maximum(z, 0) + np.log1p(e),
    }
    assert ulps(y, formulas[activation]()) <= allowed
    if activation in ("tanh", "sigmoid"):
        assert np.abs(y).max() <= 1


def test_accuracy_of_exp_and_expm1(ops: Any) -> None:
    x = sweep()
    n = len(x)
    y = ops.empty((n,))
    ops.activation_backward(np.ones(n, np.float32), -x, y, "softplus")  # -expm1(x)
    with np.errstate(over="ignore"):
        assert ulps(y, -np.expm1(x.astype(np.float64))) <= 2.5
    x = x[(np.abs(x) < 1000) & (x <= latent.LOGVAR_LIMIT)]
    n = len(x)
    heads, z = np.stack([np.zeros(n, np.float32), x], axis=1), ops.empty((n, 1))
    ops.latent_forward(heads, np.ones((n, 1), np.float32), z, ops.empty((n,)), ops.empty((1,)))
    with np.errstate(over="ignore"):
        assert ulps(z[:, 0], np.exp(x.astype(np.float64) / 2)) <= 1.5


def test_accuracy_of_normals(ops: Any, seed: int) -> None:
    out = ops.empty((1_000_001,))
    ops.random_normal(out, seed, 4, np.array([2**40 + 5], np.uint64))
    expected = random.normal(out.shape, seed, 4, 2**40 + 5, np.float64)
    assert np.max(np.abs(out - expected)) < 1e-6
    apart = np.abs(expected) > 1e-9  # where the sine or cosine is 0, float64 has a rest of pi's rounding
    assert np.max(np.abs(out - expected)[apart] / np.abs(expected[apart])) < 5e-7


def test_accuracy_of_adam_over_all_sizes(ops: Any, rng: np.random.Generator) -> None:
    n = 200_003
    size = 10.0 ** rng.uniform(-15, 6, (2, n))
    g, m = (np.sign(rng.normal(size=n)) * size).astype(np.float32)  # alike in sign: no cancellation in the mean
    v = (10.0 ** rng.uniform(-35, 12, n)).astype(np.float32)
    p = np.zeros(n, np.float32)
    expected = optimizer.adam(*(a.astype(np.float64) for a in (p, g, m, v)), lr=1.0, t=6)
    ops.adam(p, g, m, v, np.ones(1, np.float32), np.array([5], np.uint64))
    for computed, exact in zip((p, m, v), expected, strict=True):
        assert np.max(np.abs(computed - exact) / np.abs(exact)) < 1e-6


def test_special_values_in_adam(ops: Any) -> None:
    """Zero, denormal, infinite and NaN gradients and means, each alone among ordinary ones."""
    inf, nan = np.inf, np.nan
    g = np.array([0, 0, 1, inf, nan, 1, 1e-42, 3e19, 0, 1], np.float32)
    m = np.array([0, 1e-40, 1, 1, 1, inf, 0, 1, 0, nan], np.float32)
    v = np.array([0, 1e-40, 1, 1, 1, 1, 0, 1, inf, 1], np.float32)
    p = np.ones(len(g), np.float32)
    with np.errstate(all="ignore"):
        expected, *_ = optimizer.adam(p, g, m, v, lr=0.1, t=1)
    ops.adam(p, g, m, v, np.array([0.1], np.float32), np.zeros(1, np.uint64))
    assert np.allclose(p, expected, rtol=1e-6, atol=0, equal_nan=True)


def test_special_case_of_adam_without_eps(ops: Any) -> None:
    """0 / 0 is NaN and 1 / 0 infinite, as in the reference, not whatever an estimate makes of them."""
    p, m = np.zeros(3, np.float32), np.array([0, 1, -1], np.float32)
    ops.adam(p, f32(3), m, f32(3), np.ones(1, np.float32), np.zeros(1, np.uint64), 0.9, 0.999, 0.0)
    assert np.isnan(p[0]) and p[1] == -np.inf and p[2] == np.inf


def test_denormal_means_do_not_linger(ops: Any) -> None:
    """They would stay denormal for ever, and make every further update many times slower."""
    p, m, v = np.ones(50, np.float32), np.full(50, 1e-40, np.float32), np.full(50, 1e-40, np.float32)
    ops.adam(p, f32(50), m, v, np.ones(1, np.float32), np.zeros(1, np.uint64))
    assert (m == 0).all() and (v == 0).all() and (p == 1).all()
    assert np.float32(1e-40) * np.float32(0.5) != 0, "the mode must not leak out of the operation"


def test_nan_propagates(ops: Any) -> None:
    z = np.array([1, np.nan, 2] * 20, np.float32)
    for activation in ("linear", "relu", "leaky_relu", "tanh", "sigmoid", "softplus"):
        y = ops.empty(z.shape)
        ops.activation_forward(z, y, activation)
        assert np.array_equal(np.isnan(y), np.isnan(z))
    logits, loss, rows = z.reshape(-1, 1), ops.empty((1,)), ops.empty((len(z),))
    gradient = ops.empty(logits.shape)
    ops.gan_loss_generator(logits, gradient, loss)
    assert np.isnan(loss[0]) and np.array_equal(np.isnan(gradient), np.isnan(logits))
    ops.vae_loss(logits, f32(*logits.shape), gradient, rows, loss, "bernoulli")
    assert np.isnan(loss[0]) and np.array_equal(np.isnan(rows), np.isnan(z))
    heads = np.repeat(logits, 2, axis=1)
    ops.latent_forward(heads, np.ones_like(logits), gradient, rows, loss)
    assert np.array_equal(np.isnan(gradient), np.isnan(latent.forward(heads, np.ones_like(logits))[0]))


# --- the C++ side, under sanitizers ----------------------------------------------------------------


def drive(kind: str) -> tuple[Path, list[tuple[str, subprocess.CompletedProcess[str]]]]:
    """Build tests/native_driver.cpp, and run it on every instruction set: the folder, and the ends of the runs."""
    folder = ROOT / "build" / f"driver-{kind}"
    # Only what can be run is built with sanitizers: that takes minutes.
    options = (
        ["-DMINIGEN_SANITIZE=address,undefined", f"-DMINIGEN_ISAS={';'.join(ISAS)}"] if kind == "sanitized" else []
    )
    configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-DMINIGEN_DRIVER=ON", *options]
    (folder / "CMakeCache.txt").unlink(missing_ok=True)  # it may name a ninja of an environment that is gone
    for command in (configure, ["cmake", "--build", str(folder), "--parallel", "2"]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    choices = [(isa, {"MINIGEN_ISA": isa}) for isa in ISAS]
    choices += [(cpu.isa(), {"MINIGEN_BF16": name}) for name in native.supported_bf16()[:-1]]
    ends = []
    for isa, choice in choices:
        environment = {**os.environ, **choice, "UBSAN_OPTIONS": "print_stacktrace=1"}
        command = [str(folder / "native_driver")]
        ends.append((isa, subprocess.run(command, env=environment, capture_output=True, text=True)))
    return folder, ends


builds = pytest.mark.skipif(
    None in map(shutil.which, ("cmake", "c++", "nm")) or not (ROOT / "CMakeLists.txt").exists(),
    reason="no cmake, c++ or nm here, or no C++ sources",
)


@pytest.mark.background(run=drive)
@builds
@pytest.mark.parametrize("kind", ["plain"])
def test_no_instruction_set_lends_code_to_another(kind: str, result: Any) -> None:
    """The linker keeps one copy of a weak symbol (an inline function, say), perhaps one that this CPU cannot run."""
    for isa in (*ISAS, *native.supported_bf16()):
        objects = list(result[0].glob(f"csrc/CMakeFiles/kernels_{isa}.dir/**/*.o"))
        assert objects
        symbols = subprocess.run(["nm", "-C", *objects], capture_output=True, text=True, check=True).stdout
        weak = [line.split(" W ", 1)[1] for line in symbols.splitlines() if " W " in line]
        assert not [symbol for symbol in weak if f"minigen::{isa}::" not in symbol]


@pytest.mark.background(run=drive)
@builds
@pytest.mark.parametrize("kind", ["plain", "sanitized"])
def test_kernels_in_buffers_of_exact_size(kind: str, result: Any) -> None:
    for isa, end in result[1]:
        assert end.returncode == 0, end.stdout[-3000:] + end.stderr[-3000:]
        assert end.stdout.startswith(f"{isa}: "), end.stdout

"""Programmatic dependent launch: which kernels wait by themselves, which launches may overlap, and where none may."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from minigen import DeviceError
from minigen.cuda.plan import codegen
from minigen.cuda.plan.launch import Launch
from minigen.cuda.run import compiler, dependent, device, driver
from minigen.cuda.run.build import build_of
from minigen.cuda.run.cache import Binary
from minigen.cuda.tools.report import planning_backend
from ptx.executor import PtxExecutor, kernel_of

triton = pytest.importorskip("triton", reason="no Triton")


# --- kernels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture, waits", [(80, False), (90, True), (120, True)])
def test_kernels_wait_before_anything_else(architecture, waits):
    """Also those of several jobs, and of smaller tiles."""
    ops = planning_backend(architecture, "tf32x3")
    x, W, b, y, dW = (ops.empty(shape) for shape in ((32, 20), (20, 9), (9,), (32, 9), (20, 9)))
    step = ops.empty((1,), np.uint64)
    step_of = lambda: (ops.dense_forward(x, W, b, y, "relu"), ops.random_uniform(dW, 0, 0, step))  # noqa: E731
    launches = ops.schedule(step_of).launches
    assert [len(launch.jobs) for launch in launches] == [2]
    while launches[-1] is not None:
        launches = [*launches, codegen.with_less_memory(launches[-1])]
    assert len(launches) > 2
    for launch in launches[:-1]:
        lines = codegen.GENERATED[launch.source.fn].text.splitlines()
        assert launch.waits == waits and lines[2].strip() == "pid = tl.program_id(0)"
        assert (lines[3] == "    wait_for_launch_before()") == waits and ("wait" in "".join(lines)) == waits


def compile_for(architecture):
    """The text of a small kernel, and what it writes in the executor, which checks that it waits first."""
    executor = PtxExecutor(architecture)
    ops = type(planning_backend(architecture, "ieee"))(executor=executor)
    out, step = ops.empty((3000,)), ops.upload(np.array([3], np.uint64))
    (launch,) = ops.schedule(lambda: ops.random_uniform(out, 5, 6, step)).launches
    executor.run(launch)
    return kernel_of(build_of(launch, executor)).text, out


@pytest.mark.background(run=compile_for)
@pytest.mark.parametrize("architecture", [80, 90, 120])
def test_instructions(architecture, result):
    from minigen.reference import random

    text, out = result
    assert text.count("griddepcontrol.wait") == text.count("griddepcontrol.launch_dependents") == (architecture >= 90)
    assert text.find("griddepcontrol.wait") <= text.find("griddepcontrol.launch_dependents")
    np.testing.assert_array_equal(out, random.uniform((3000,), 5, 6, 3))


# --- launches --------------------------------------------------------------------------------------


@pytest.fixture
def kernel(monkeypatch):
    """A Triton kernel that nobody compiles."""
    from cuda_kernel import scale_rows
    from triton.runtime.jit import JITFunction

    monkeypatch.setattr(compiler, "compile_builds", lambda builds: [Binary("scale_rows", b"code", 64)] * len(builds))
    return JITFunction(scale_rows)


def pair(executor, kernel):
    """There and back: the first kernel waits by itself."""
    x, y = executor.empty((1000,), np.float32), executor.empty((1000,), np.float32)
    there = Launch("scale_rows", kernel, (4, 1, 1), (x, y, 1000, 0.5), {"BLOCK": 256}, num_warps=2, waits=True)
    return there, Launch("scale_rows", kernel, (4, 1, 1), (y, x, 1000, 3.0), {"BLOCK": 256}), x


def test_in_graphs_launches_that_wait_are_dependent(install, kernel):
    """With the same arguments as others, and the same results."""
    fake = install()
    fake.effects["scale_rows"] = lambda x, y, n, factor, *scratch: np.multiply(x, factor, out=y)
    executor = device.DeviceExecutor()
    there, back, x = pair(executor, kernel)
    executor.upload(np.ones(1000, np.float32), out=x)
    for launch in (there, back):
        executor.run(launch)
    assert fake.dependent == [] and executor.dependent_problem is None
    direct, fake.launches = fake.launches, []
    executor.upload(np.ones(1000, np.float32), out=x)
    program = executor.capture([there, back])
    assert fake.dependent == ["scale_rows"] and fake.launches == []
    program.run(1)
    assert (executor.download(x) == 1.5).all()
    for one, other in zip(direct, fake.launches, strict=True):
        assert one[:3] == other[:3] and one[4] == other[4]
        assert all(a is b or (a == b and type(a) is type(b)) for a, b in zip(one[3], other[3], strict=True))
    program.run(device.STEPS_PER_GRAPH)
    assert len(fake.dependent) == 1 + device.STEPS_PER_GRAPH


def test_all_launches_of_a_step_are_dependent(pretend_gpu, kernel):
    from minigen.cuda.backend import CudaBackend

    ops = CudaBackend()
    x, step = ops.empty((10,)), ops.empty((1,), np.uint64)
    ops.capture(lambda: (ops.random_uniform(x, 0, 0, step), ops.activation_forward(x, x, "relu"))).run(1)
    assert pretend_gpu.dependent == ["scale_rows"] * 2 and len(pretend_gpu.launches) == 2


def test_what_the_driver_refuses_is_said_with_the_way_out(install, kernel, monkeypatch):
    fake = install()
    executor = device.DeviceExecutor()
    refused = types.SimpleNamespace(name="CUDA_ERROR_NOT_SUPPORTED")
    monkeypatch.setattr(sys.modules["cuda.bindings.driver"], "cuLaunchKernelEx", lambda *call: (refused,))
    with pytest.raises(DeviceError, match=r"CUDA_ERROR_NOT_SUPPORTED.*MINIGEN_DEPENDENT_LAUNCH=0"):
        executor.capture(pair(executor, kernel)[:2])
    assert fake.capturing is None


@pytest.mark.parametrize(
    "problem, properties, version, setting",
    [
        (None, {}, "13.0.3", None),
        (None, {"capability": "120"}, "12.9.0", "1"),
        ("MINIGEN_DEPENDENT_LAUNCH=0", {}, "13.0.3", "0"),
        ("sm_89 has none", {"capability": "89"}, "13.0.3", None),
        ("runs CUDA up to 12.2, and 12.3 is needed", {"driver": 12020}, "13.0.3", None),
        ("cuda-bindings is missing: pip install 'cuda-bindings==13.*'", {}, None, None),
        ("is for a newer driver: pip install 'cuda-bindings==12.*'", {"driver": 12090}, "13.0.3", ""),
    ],
)
def test_where_there_is_none_it_is_said(install, kernel, monkeypatch, problem, properties, version, setting):
    fake = install(**properties)
    monkeypatch.setattr(dependent, "_bindings_version", lambda: version)
    if setting:
        monkeypatch.setenv("MINIGEN_DEPENDENT_LAUNCH", setting)
    executor = device.DeviceExecutor()
    if problem is None:
        assert executor.dependent_problem is None
        assert driver.describe().endswith(", with programmatic dependent launch")
    else:
        assert problem in executor.dependent_problem
        assert driver.describe().endswith(f", without programmatic dependent launch: {executor.dependent_problem}")
    executor.capture(pair(executor, kernel)[:2]).run(1)
    assert len(fake.dependent) == (problem is None) and len(fake.launches) == 2


def test_another_setting_is_refused(install, monkeypatch):
    install()
    monkeypatch.setenv("MINIGEN_DEPENDENT_LAUNCH", "yes")
    with pytest.raises(ValueError, match="MINIGEN_DEPENDENT_LAUNCH must be 0 or 1, not 'yes'"):
        device.DeviceExecutor()


def test_without_bindings(monkeypatch):
    """Neither the package nor the one around it."""
    for name in ("cuda.bindings", "cuda"):
        monkeypatch.setattr(dependent.importlib.util, "find_spec", lambda found, name=name: found != name)
        assert dependent._bindings_version() is None


def test_cuda_bindings_takes_what_it_is_given():
    """The real one, which lays the structures out for the driver."""
    real = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed", exc_type=ImportError)
    array, stream = types.SimpleNamespace(data=types.SimpleNamespace(ptr=2**40)), types.SimpleNamespace(ptr=7)
    call = dependent.call(None, (5, 2, 1), 128, 4096, stream, (array, np.int32(-3), np.float32(0.5), np.uint64(0)))
    module, config, _, (values, kinds), _ = call.args
    assert module is real and (config.gridDimX, config.gridDimY, config.gridDimZ) == (5, 2, 1)
    assert (config.blockDimX, config.sharedMemBytes, int(config.hStream), config.numAttrs) == (128, 4096, 7, 1)
    assert int(config.attrs[0].id) == 6 and config.attrs[0].value.programmaticStreamSerializationAllowed == 1
    assert values == (2**40, -3, 0.5, 0) and [np.dtype(kind).itemsize for kind in kinds] == [8, 4, 4, 8]
    newest = 1000 * int(dependent._bindings_version().split(".")[0]) + 30
    assert dependent.find_problem(90, newest) is None

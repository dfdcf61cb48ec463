"""Kernels that are compiled in processes side by side: the same binaries, from every kind of main program."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from minigen.cuda.plan import codegen
from minigen.cuda.run import build, compiler
from minigen.cuda.tools import report

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="Triton interprets in this process"),
]


@pytest.fixture
def builds(kernels_folder):
    """Of three small kernels, by key."""
    ops = report.planning_backend(90, "tf32x3")
    x, y = ops.empty((100,)), ops.empty((100,))
    launches = [
        launch
        for kind in ("relu", "tanh", "sigmoid")
        for launch in ops.schedule(lambda kind=kind: ops.activation_forward(x, y, kind)).launches
    ]
    return {each.key: each for each in (build.build_of(launch, ops.executor) for launch in launches)}


@pytest.mark.slow
def test_the_binaries_are_those_of_one_process(builds, monkeypatch, tmp_path):
    monkeypatch.setenv(compiler.SETTING, "2")
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    side_by_side = compiler.compile_builds(list(builds.values()))
    assert len([process for process in started if "minigen.cuda.run.compiler" in process.args]) == 2
    assert all(process.poll() is not None for process in started), "none is left behind"
    monkeypatch.setenv(compiler.SETTING, "1")
    monkeypatch.setenv("MINIGEN_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(compiler, "_binaries", {})
    assert compiler.compile_builds(list(builds.values())) == side_by_side


def test_the_key_is_the_same_in_every_process(builds, monkeypatch):
    """Triton 3.6's own depends on where modules lie in memory. Ours depends on every kernel's source and constants."""
    (key, asked), *_ = builds.items()
    monkeypatch.setattr(asked.function, "hash", "of another process")
    assert replace(asked).key == key
    digest = build.kernels_digest.__wrapped__
    assert digest() == build.kernels_digest()
    from minigen.cuda.kernels import activations, random

    for module, name, value in ((random, "uniform_quads", activations.forward), (random, "NEW", 3)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, value, raising=False)
            assert digest() != build.kernels_digest()
            patch.setattr(build, "kernels_digest", digest)
            assert replace(asked).key != key


@pytest.mark.slow
def test_a_kernel_that_does_not_compile_is_reported(builds, monkeypatch):
    """With Triton's own words; no process is left waiting."""
    monkeypatch.setenv(compiler.SETTING, "2")
    kernel = codegen.GENERATED[next(iter(builds.values())).function.fn]
    text = kernel.text.replace("job_0(pid", "job_9(pid")
    broken = codegen.jit_function(kernel.name, text, tuple(kernel.globals.items()))
    with pytest.raises(RuntimeError, match=r"(?s)could not be compiled for sm_90.*job_9 is not defined"):
        compiler.compile_builds([*builds.values(), replace(next(iter(builds.values())), function=broken)])


def test_a_process_that_is_killed_is_reported(builds, monkeypatch):
    monkeypatch.setenv(compiler.SETTING, "2")
    start = compiler.Process.__init__

    def start_and_kill(self, scratch):
        start(self, scratch)
        self.process.kill()

    monkeypatch.setattr(compiler.Process, "__init__", start_and_kill)
    with pytest.raises(RuntimeError, match="the process that was to compile activations_forward ended with status -9"):
        compiler.compile_builds(list(builds.values()))


@pytest.mark.slow
def test_a_changed_source_is_noticed(builds, monkeypatch, tmp_path):
    monkeypatch.setenv(compiler.SETTING, "2")
    with pytest.raises(RuntimeError, match="has changed on disk since this one began"):
        changed = {f"other {key}": each for key, each in builds.items()}
        compiler.compile_in_processes(changed, 2, str(tmp_path))


def test_how_many_processes(monkeypatch):
    monkeypatch.delenv(compiler.SETTING, raising=False)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert compiler.process_count(1) == 0 and compiler.process_count(1000) == (cores if cores > 1 else 0)
    monkeypatch.setenv(compiler.SETTING, "3")
    assert [compiler.process_count(n) for n in (0, 1, 2, 3, 4)] == [0, 0, 2, 3, 3]
    for bad in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv(compiler.SETTING, bad)
        with pytest.raises(ValueError, match=f"{compiler.SETTING} must be a positive integer, not '{bad}'"):
            compiler.process_count(4)
    monkeypatch.setenv(compiler.SETTING, "3")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert compiler.process_count(4) == 0
    monkeypatch.delattr(sys, "frozen")
    monkeypatch.setattr(sys, "executable", "")
    assert compiler.process_count(4) == 0


PROGRAM = """
    import multiprocessing, sys, tempfile, os
    os.environ.update(MINIGEN_CACHE=tempfile.mkdtemp(), MINIGEN_COMPILE_PROCESSES="2")
    print("begun")
    from minigen.cuda.run import compiler
    from minigen.cuda.tools import report
    def train():
        ops = report.planning_backend(90, "tf32x3")
        x, y = ops.empty((100,)), ops.empty((100,))
        kinds = ("relu", "tanh")
        launches = [ops.schedule(lambda: ops.activation_forward(x, y, kind)).launches[0] for kind in kinds]
        print(len(compiler.compile_launches(launches, ops.executor)), "compiled")
        sys.stdout.flush()
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a script without a guard", "python -c", "a daemonic process"])
def test_any_main_program(tmp_path, kind):
    """multiprocessing would run the script again, and refuse a daemonic process any of its own."""
    daemon = "\nprocess = multiprocessing.get_context('fork').Process(target=train, daemon=True)\nprocess.start()\n"
    text = textwrap.dedent(PROGRAM) + (daemon + "process.join()" if "daemonic" in kind else "\ntrain()") + "\n"
    script = tmp_path / "script.py"
    script.write_text(text)
    command = [sys.executable, str(script)] if "script" in kind else [sys.executable, "-c", text]
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split("\n")[:2] == ["begun", "2 compiled"], done.stderr

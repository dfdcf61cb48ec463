"""Kernels compiled side by side, in processes of their own.

A kernel takes the compiler one to several seconds on one core, and threads do not help: Triton parses kernels with
``ast``, and CPython 3.11's counts the recursion of all threads together ("AST constructor recursion depth mismatch").

The processes are ordinary ones that run this module, not ``multiprocessing``'s: these would import the program's main
module again, which a notebook, ``python -c`` and a script without ``if __name__ == "__main__"`` do not survive, and a
daemonic process may not have them. A request is a line of JSON on the standard input; the answer, on the standard
output, is a line of JSON, and where the compilation succeeded an entry as :func:`minigen.cuda.cache.encode` gives it.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any

from minigen.cuda import cache, compiler, dispatch
from minigen.cuda.cache import Binary
from minigen.cuda.compiler import TritonBuild

SETTING = "MINIGEN_COMPILE_PROCESSES"
FACTS = ("signature", "constexprs", "aligned", "num_warps", "num_stages", "architecture")  # of a build, as JSON


def wanted(builds: int) -> int:
    """How many processes compile so many kernels: one for each of this process's cores, at most one a kernel.

    ``MINIGEN_COMPILE_PROCESSES`` sets another number. 0, to compile in this process, where there would be only one,
    and where ``sys.executable`` is no Python that could be started: in a frozen or embedding program. Raises ValueError
    for a setting that is no positive integer.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        return 0
    text = os.environ.get(SETTING, "")
    if text and not (text.isdecimal() and int(text) > 0):
        raise ValueError(f"{SETTING} must be a positive integer, not {text!r}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(int(text or cores), builds)
    return count if count > 1 else 0


def compile_all(
    builds: Mapping[str, TritonBuild], count: int, scratch: str, keep: Callable[[str, Binary], None]
) -> None:
    """Call ``keep`` with the key and binary of each of ``builds``, in their order, from ``count`` processes.

    All kernels must be of :func:`minigen.cuda.dispatch.launch_of`. ``scratch`` is an empty folder, to be removed
    afterwards. Raises RuntimeError, with the compiler's report, for a kernel that does not compile.
    """
    idle: SimpleQueue[Process] = SimpleQueue()

    def compile_one(key: str) -> Binary:
        process = idle.get()
        try:
            return process.compile(key, builds[key])
        finally:
            idle.put(process)

    with ExitStack() as stack:
        processes = [stack.enter_context(Process(scratch)) for _ in range(count)]
        for process in processes:
            idle.put(process)
        threads = stack.enter_context(ThreadPoolExecutor(count))
        try:
            for key, binary in zip(builds, threads.map(compile_one, builds), strict=True):
                keep(key, binary)
        finally:  # after an error or an interruption, too, the threads must not wait for an answer any more
            for process in processes:
                process.kill()


class Process:
    """One that compiles what it is asked for, until the end of the block."""

    def __init__(self, scratch: str) -> None:
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        environment = os.environ | {"PYTHONPATH": path, "TRITON_CACHE_DIR": scratch}
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def compile(self, key: str, build: TritonBuild) -> Binary:
        """The binary. Raises RuntimeError."""
        name = build.function.__name__
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(described(build)).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the process has ended: it gives no answer either
        answer = json.loads(self.process.stdout.readline() or "null")
        if answer is None:
            raise RuntimeError(f"the process that was to compile {name} ended with status {self.process.wait()}")
        if "error" in answer:
            raise RuntimeError(f"{name} could not be compiled for sm_{build.architecture}: {answer['error']}")
        binary = cache.decode(self.process.stdout.read(answer["bytes"]))
        if binary is None or answer["key"] != key:
            raise RuntimeError(
                f"a new process makes something else of {name}: minigen or Triton has changed on disk since this one "
                f"began. Start it anew, or set {SETTING}=1"
            )
        return binary

    def kill(self) -> None:
        """End it at once: nothing is lost."""
        self.process.kill()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self.process.communicate()


def described(build: TritonBuild) -> dict[str, Any]:
    """A build of a kernel that was written for jobs, as JSON takes it."""
    name, text, functions = dispatch.WRITTEN[build.function.fn]
    jobs = [(function.fn.__module__, function.fn.__name__) for function in functions]
    return {"name": name, "text": text, "jobs": jobs, **{fact: getattr(build, fact) for fact in FACTS}}


def build_from(description: Mapping[str, Any]) -> TritonBuild:
    """What :func:`described` was given."""
    functions = tuple(getattr(importlib.import_module(module), name) for module, name in description["jobs"])
    function = dispatch.compile_text(description["name"], description["text"], functions)
    return TritonBuild(function, **{fact: description[fact] for fact in FACTS})


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits: it ends this one
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a compiler prints is no answer
    for line in sys.stdin:
        try:
            build = build_from(json.loads(line))
            entry = cache.encode(compiler.binary_of(compiler.translate(build)))
            answers.write(json.dumps({"key": build.key, "bytes": len(entry)}).encode() + b"\n" + entry)
        except Exception:
            answers.write(json.dumps({"error": traceback.format_exc()}).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()

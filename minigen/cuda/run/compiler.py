"""The kernels of several launches: from memory, else from the cache on disk, else compiled, side by side in processes.

A kernel takes the compiler one to several seconds on one core, and threads do not help: Triton parses kernels with
``ast``, and CPython 3.11's counts the recursion of all threads together ("AST constructor recursion depth mismatch").

The processes are ordinary ones that run this module, not ``multiprocessing``'s: these would import the program's main
module again, which a notebook, ``python -c`` and a script without ``if __name__ == "__main__"`` do not survive, and a
daemonic process may not have them. A request is a line of JSON on the standard input; the answer, on the standard
output, is a line of JSON, and where the compilation succeeded an entry as :func:`minigen.cuda.run.cache.encode` gives
it.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any

from minigen.cuda.plan import codegen
from minigen.cuda.plan.launch import Executor, Launch
from minigen.cuda.run import cache
from minigen.cuda.run.build import OLDEST_ARCHITECTURE, TritonBuild, binary_of, build_of, translate
from minigen.cuda.run.cache import Binary
from minigen.errors import DeviceError

SETTING = "MINIGEN_COMPILE_PROCESSES"
FACTS = ("signature", "constexprs", "aligned", "num_warps", "num_stages", "architecture")  # of a build, as JSON

_lock = threading.Lock()
_binaries: dict[str, Binary] = {}  # of this process, by key


def compile_launches(launches: Sequence[Launch], executor: Executor) -> list[tuple[Launch, Binary]]:
    """The Triton kernels of ``launches``, each in at most ``executor.shared_limit`` bytes of shared memory.

    Where a binary takes more, the launch is compiled with fewer stages, then with a smaller tile, until it fits
    (:func:`minigen.cuda.plan.codegen.with_less_memory`): each launch is returned as it fits, and it depends on nothing
    but the kernel, the compiler and the card which tile that is. Raises DeviceError where none fits, and as
    :func:`compile_builds`.
    """
    fitting = list(launches)
    while True:
        binaries = compile_builds([build_of(launch, executor) for launch in fitting])
        too_large = [i for i, binary in enumerate(binaries) if binary.shared > executor.shared_limit]
        if not too_large:
            return list(zip(fitting, binaries, strict=True))
        for i in too_large:
            smaller = codegen.with_less_memory(fitting[i])
            if smaller is None:
                raise DeviceError(
                    f"kernel {binaries[i].entry} wants {binaries[i].shared} bytes of shared memory a block, also with "
                    f"the smallest tile, and this sm_{executor.architecture} has {executor.shared_limit}"
                )
            fitting[i] = smaller


def compile_builds(builds: Sequence[TritonBuild]) -> list[Binary]:
    """The binaries of ``builds``, each from memory, else from disk, else compiled, several at once where that pays.

    Raises DeviceError for an architecture older than sm_80 or a Triton that cannot compile here.
    """
    for build in builds:
        _check(build)
    keys = [build.key for build in builds]
    missing = {key: build for key, build in zip(keys, builds, strict=True) if not find(key)}
    if missing:
        with _lock, tempfile.TemporaryDirectory(prefix="minigen-triton-") as scratch:
            _compile_missing(missing, scratch)
    return [_binaries[key] for key in keys]


def _check(build: TritonBuild) -> None:
    if build.architecture < OLDEST_ARCHITECTURE:
        oldest = f"sm_{OLDEST_ARCHITECTURE} (Ampere)"
        raise DeviceError(f"minigen's kernels need {oldest} or newer, not sm_{build.architecture}")
    if not hasattr(build.function, "cache_key"):
        raise DeviceError("Triton's kernels cannot be compiled while TRITON_INTERPRET is set: unset it")


def find(key: str) -> Binary | None:
    """The binary of this key from memory or from disk."""
    if key not in _binaries:
        binary = cache.load(key)
        if binary:
            _binaries[key] = binary
    return _binaries.get(key)


def keep(key: str, binary: Binary) -> None:
    """In memory and on disk, for :func:`find`."""
    _binaries[key] = binary
    cache.store(key, binary)


def _compile_missing(missing: Mapping[str, TritonBuild], scratch: str) -> None:
    """Triton's own cache does not notice a damaged entry: it gets the empty folder, and ours keeps the results.

    Only generated kernels can be sent to another process; others are compiled in this one.
    """
    from triton import knobs

    sent = {key: build for key, build in missing.items() if build.function.fn in codegen.GENERATED}
    count = process_count(len(sent))
    here = {key: build for key, build in missing.items() if not count or key not in sent}
    if count:
        compile_in_processes(sent, count, scratch)
    with knobs.cache.scope():
        knobs.cache.dir = scratch
        for key, build in here.items():
            keep(key, binary_of(translate(build)))


# --- processes ------------------------------------------------------------------------------------------


def process_count(builds: int) -> int:
    """How many processes compile ``kernels`` kernels: one for each of this process's cores, at most one a kernel.

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


def compile_in_processes(builds: Mapping[str, TritonBuild], count: int, scratch: str) -> None:
    """Compile and keep ``builds``, by key, in ``count`` processes; all are of generated kernels.

    ``scratch`` is an empty folder, to be removed afterwards. Raises RuntimeError, with the compiler's report, for a
    kernel that does not compile.
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
            self.process.stdin.write(json.dumps(to_json(build)).encode() + b"\n")
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
                f"began. Restart it, or set {SETTING}=1"
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


def to_json(build: TritonBuild) -> dict[str, Any]:
    """A build of a generated kernel, as JSON takes it."""
    generated = codegen.GENERATED[build.function.fn]
    kernel = {"name": generated.name, "text": generated.text, "globals": generated.references()}
    return kernel | {fact: getattr(build, fact) for fact in FACTS}


def from_json(request: Mapping[str, Any]) -> TritonBuild:
    """What :func:`to_json` was given."""
    used = {name: getattr(importlib.import_module(place[0]), place[1]) for name, place in request["globals"].items()}
    function = codegen.jit_function(request["name"], request["text"], tuple(used.items()))
    return TritonBuild(function, **{fact: request[fact] for fact in FACTS})


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits: it ends this one
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a compiler prints is no answer
    for line in sys.stdin:
        try:
            build = from_json(json.loads(line))
            entry = cache.encode(binary_of(translate(build)))
            answers.write(json.dumps({"key": build.key, "bytes": len(entry)}).encode() + b"\n" + entry)
        except Exception:  # of whatever kind: the process that waits for the answer raises it
            answers.write(json.dumps({"error": traceback.format_exc()}).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()

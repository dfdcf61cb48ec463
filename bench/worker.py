"""A contender in a process of its own: one JSON command a line comes in, one JSON answer a line goes out.

``python -m bench.worker JOB`` where the folder ``JOB`` holds ``job.json``, ``data.npy`` and ``weights.npz``. Commands:
``first`` (the first step), ``check``, ``check_timed``, ``run`` (timed), ``weights``, ``memory``, ``quit``. The parent
stops the whole process with SIGSTOP while others are measured, so that nobody's waiting threads take a core from
anybody.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def limit_threads(threads: int) -> None:
    """Give this process ``threads`` cores, before any framework looks how many there are."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def end_with_parent() -> None:
    """On Linux: be killed when the parent dies. A stopped process would otherwise stay for ever."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def peak_bytes() -> int | None:
    """Peak resident memory of this process (VmHWM), None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else None


class Worker:
    def __init__(self, job: Path) -> None:
        settings = json.loads((job / "job.json").read_text())
        if settings["spec"]["device"] == "cpu":
            limit_threads(settings["spec"]["threads"])
            # Frameworks built for a GPU stay on the CPU.
            os.environ |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}

        import numpy as np

        from bench.peers import contender_class
        from bench.spec import Spec

        self.np = np
        self.weights = [array for _, array in sorted(np.load(job / "weights.npz").items())]
        spec = Spec.from_json(settings["spec"])
        self.contender = contender_class(settings["module"])(spec, np.load(job / "data.npy"), self.weights)
        self.unit = spec.steps_per_call

    def first(self) -> dict[str, Any]:
        self.contender.run(self.unit)
        return {"versions": self.contender.versions(), "algorithm": self.contender.algorithm}

    def check(self, inputs: str, out: str) -> dict[str, Any]:
        """Train on given inputs from the initial weights, write losses and weights, and start afresh."""
        given = self.np.load(inputs)
        self.contender.reset(self.weights)
        losses = self.contender.check(given["indices"], given["noise"])
        self.save(out, losses=losses)
        self.contender.reset(self.weights)
        return {}

    def check_timed(self, steps: int, attempt: int, out: str) -> dict[str, Any]:
        """The same of the timed step itself, where the contender can tell what it draws; start afresh."""
        if not hasattr(self.contender, "draws"):
            return {"drawn": False}
        if attempt:
            self.contender.reseed(attempt)
        self.contender.reset(self.weights)
        indices, noise = self.contender.draws(steps)
        self.contender.run(steps)
        self.save(out, indices=indices, noise=noise)
        if attempt:
            self.contender.reseed(0)
        self.contender.reset(self.weights)
        return {"drawn": True}

    def run(self, warmup: int, steps: int) -> dict[str, Any]:
        if warmup:
            self.contender.run(warmup)
        start = time.perf_counter()
        seconds = self.contender.run(steps)
        return {"seconds": time.perf_counter() - start if seconds is None else seconds}

    def save(self, out: str, **arrays: Any) -> dict[str, Any]:
        numbered = {f"w{k:03}": w for k, w in enumerate(self.contender.weights())}
        self.np.savez(out, **numbered, **arrays)
        return {}

    def memory(self) -> dict[str, Any]:
        return {"peak_bytes": peak_bytes(), "device_peak_bytes": self.contender.device_peak_bytes()}

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        name = command.pop("command")
        methods: dict[str, Callable[..., dict[str, Any]]] = {
            "first": self.first,
            "check": self.check,
            "check_timed": self.check_timed,
            "run": self.run,
            "weights": self.save,
            "memory": self.memory,
        }
        return methods[name](**command)


def main() -> None:
    end_with_parent()
    # Frameworks may print: what they print goes to stderr, and the answers keep a channel of their own.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def reply(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")

    try:
        worker = Worker(Path(sys.argv[1]))
        reply({"ready": True})
        for line in sys.stdin:
            command = json.loads(line)
            if command["command"] == "quit":
                return
            reply(worker.answer(command))
    except Exception as error:
        traceback.print_exc()
        reply({"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]})
        sys.exit(1)


if __name__ == "__main__":
    main()

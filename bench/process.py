"""The parent's side of `bench.worker`: start contenders, ask them, and stop them while others are measured."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from bench.spec import Spec

ROOT = Path(__file__).resolve().parent.parent


class ContenderError(Exception):
    """A contender ended, was silent for too long, or said why it could not go on."""


class Process:
    """One contender. It runs only inside `ask`; at all other times it is stopped (SIGSTOP) and costs no core."""

    def __init__(self, python: str, job: Path, patience: float, compiled: Path | None = None) -> None:
        """``compiled`` is a folder for what PyTorch compiles; by default one of this process alone, so empty."""
        self.patience = patience
        self.log = job / "stderr.txt"
        self.started = time.perf_counter()
        with self.log.open("w") as stderr:
            self.process = subprocess.Popen(
                [python, "-W", "ignore", "-m", "bench.worker", str(job)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(compiled or job / "inductor")},
                start_new_session=True,
            )
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()
        self._answer()

    def _read(self, stdout: IO[str]) -> None:
        for line in stdout:
            self.lines.put(line)
        self.lines.put("")

    def _answer(self) -> dict[str, Any]:
        try:
            line = self.lines.get(timeout=self.patience)
        except queue.Empty:
            raise ContenderError(f"no answer within {self.patience:.0f} s") from None
        if not line:
            last = self.log.read_text().strip().splitlines()[-1:] or ["it printed nothing"]
            raise ContenderError(f"ended with code {self.process.wait()}: {last[0][:300]}")
        answer = json.loads(line)
        if "error" in answer:
            raise ContenderError(answer["error"])
        return answer

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Let it run, ask, and stop it again."""
        self._signal(signal.SIGCONT)
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise ContenderError(f"ended with code {self.process.wait()}") from None
        answer = self._answer()
        self._signal(signal.SIGSTOP)
        return answer

    def _signal(self, number: int) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def close(self) -> None:
        """End it and whatever it started (a compiler's helpers)."""
        self._signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()


def write_job(folder: Path, module: str, spec: Spec, data: np.ndarray, weights: list[np.ndarray]) -> Path:
    """The folder that a worker starts from."""
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({"module": module, "spec": spec.to_json()}))
    np.save(folder / "data.npy", data)
    np.savez(folder / "weights.npz", **numbered(weights))
    return folder


def numbered(weights: list[np.ndarray]) -> dict[str, Any]:
    return {f"w{k:03}": w for k, w in enumerate(weights)}


def read_weights(path: Path) -> list[np.ndarray]:
    with np.load(path) as file:
        return [file[name] for name in sorted(file) if name.startswith("w")]

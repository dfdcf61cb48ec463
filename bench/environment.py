"""What a result file says about where it comes from: machine, versions, commit. No host name, no user, no paths."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(device: str = "cpu") -> dict[str, Any]:
    facts: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": cores(),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    if device == "cuda":
        facts["gpu"], facts["driver"] = _gpu()
    return facts


def _gpu() -> tuple[str, str]:
    """Name and driver of the first GPU, as far as ``nvidia-smi`` is there to tell."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        name, driver = subprocess.check_output(query, text=True, timeout=30).splitlines()[0].split(", ")
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return "unknown", "unknown"
    return name, driver


def _cpu_model() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except FileNotFoundError:
        found = None
    return found[1] if found else platform.processor() or "unknown"


def openblas_core(told: str | None = None) -> str | None:
    """The processor that NumPy's OpenBLAS computes for, by itself or ``told``; None where NumPy has another library."""
    folder = Path(np.__file__).parent
    question = (
        "import ctypes, sys; import numpy; f = ctypes.CDLL(sys.argv[1]).scipy_openblas_get_corename64_; "
        "f.restype = ctypes.c_char_p; print(f().decode())"
    )
    for library in [*folder.parent.glob("numpy.libs/*openblas*"), *folder.glob(".dylibs/*openblas*")]:
        command = [sys.executable, "-c", question, str(library)]
        environment = os.environ | ({"OPENBLAS_CORETYPE": told} if told else {})
        asked = subprocess.run(command, env=environment, capture_output=True, text=True)
        if asked.returncode == 0:
            return asked.stdout.strip()
    return None


def provenance() -> dict[str, Any]:
    """The commit, whether the tree differs from it outside `bench/results`, and when."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        dirty = bool(git("status", "--porcelain", "--", ".", ":!bench/results"))
        return {"commit": git("rev-parse", "HEAD"), "dirty": dirty, "created": now}
    except (FileNotFoundError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None, "created": now}  # not a git checkout


def write_json(path: Path, result: dict[str, Any]) -> None:
    """The whole file or none of it; a list of numbers on one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    text = re.sub(r"\[[-+.\deE,\s]+\]", lambda found: " ".join(found[0].split()), json.dumps(result, indent=1))
    temporary.write_text(text + "\n")
    temporary.replace(path)

"""What a result file says about where it comes from: machine, versions, commit. No host name, no user, no paths.

``python -m bench.environment`` prints the name that result files of this machine get.
"""

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
CPUINFO = Path("/proc/cpuinfo")


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
    if family := _cpu_fact("cpu family"):
        facts["family, model"] = f"{family}, {_cpu_fact('model')}"
    if device == "cuda":
        facts["gpu"], facts["driver"] = _gpu()
    return facts


MICROARCHITECTURES: dict[str, list[tuple[int, range, str]]] = {
    "AuthenticAMD": [
        (0x17, range(0x00, 0x30), "zen1"),
        (0x17, range(0x30, 0x100), "zen2"),
        (0x19, range(0x00, 0x10), "zen3"),
        (0x19, range(0x20, 0x60), "zen3"),
        (0x19, range(0x10, 0x20), "zen4"),
        (0x19, range(0x60, 0x80), "zen4"),
        (0x19, range(0xA0, 0xB0), "zen4"),
        (0x1A, range(0x00, 0x100), "zen5"),
    ],
    "GenuineIntel": [
        (6, range(0x3F, 0x40), "hsw"),
        (6, range(0x4F, 0x50), "bdw"),
        (6, range(0x55, 0x56), "skx"),
        (6, range(0x6A, 0x6D), "icx"),
        (6, range(0x8F, 0x90), "spr"),
        (6, range(0xCF, 0xD0), "emr"),
        (6, range(0xAD, 0xAF), "gnr"),
    ],
}
"""Of servers' processors: family, models, and the short name. Clouds hide the model's name, and these tell more."""


def complete(model: Any) -> Any:
    """``model``, trained to its end. Raises KeyboardInterrupt where a signal has ended the training: no figure of it
    may be kept."""
    if model.history_.stop_signal:
        raise KeyboardInterrupt
    return model


def machine_name(device: str = "cpu") -> str:
    """What result files of this machine are named after: ``zen3-avx2``, ``spr-amx``, or a GPU's own name."""
    if device == "cuda":
        return slug(_gpu()[0])
    from minigen import _native

    isa = "amx" if "amx" in _native.supported_bf16() else _native.supported_isas()[-1]
    return f"{_microarchitecture()}-{isa}"


def slug(text: str) -> str:
    """``text`` as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _microarchitecture() -> str:
    vendor, family, model = _cpu_fact("vendor_id"), int(_cpu_fact("cpu family", "0")), int(_cpu_fact("model", "0"))
    for known_family, models, name in MICROARCHITECTURES.get(vendor, []):
        if family == known_family and model in models:
            return name
    return slug(_cpu_model())


def _cpu_fact(name: str, otherwise: str = "") -> str:
    """A line of /proc/cpuinfo; ``otherwise`` where there is none."""
    try:
        found = re.search(rf"^{name}\s*:\s*(.+)$", CPUINFO.read_text(), re.MULTILINE)
    except FileNotFoundError:
        found = None
    return found[1] if found else otherwise


def _gpu() -> tuple[str, str]:
    """Name and driver of the first GPU, as far as ``nvidia-smi`` is there to tell."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        name, driver = subprocess.check_output(query, text=True, timeout=30).splitlines()[0].split(", ")
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return "unknown", "unknown"
    return name, driver


def _cpu_model() -> str:
    return _cpu_fact("model name") or platform.processor() or "unknown"


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


def with_earlier(path: Path, runs: list[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """``runs``, and before them those in the result file ``path`` that differ from all of them in ``keys``."""

    def key(run: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(run[name] for name in keys)

    earlier = json.loads(path.read_text())["runs"] if path.exists() else []
    measured = set(map(key, runs))
    return [run for run in earlier if key(run) not in measured] + runs


def write_json(path: Path, result: dict[str, Any]) -> None:
    """The whole file or none of it; a list of numbers on one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    text = re.sub(r"\[[-+.\deE,\s]+\]", lambda found: " ".join(found[0].split()), json.dumps(result, indent=1))
    temporary.write_text(text + "\n")
    temporary.replace(path)


if __name__ == "__main__":
    print(machine_name())

"""The card, its driver, and the versions of everything that computes on it."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from typing import Any

from bench.gpu_result import save

PACKAGES = ("minigen", "numpy", "cupy-cuda12x", "cupy-cuda13x", "triton", "torch", "jax", "jaxlib", "jax-cuda13-plugin")
FIELDS = "name,driver_version,memory.total,clocks.max.sm,clocks.max.memory,clocks.sm,power.limit,ecc.mode.current"


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def tool(*command: str) -> str | None:
    """What a command prints, or None where it is not there."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except FileNotFoundError:
        return None


def main() -> None:
    from minigen import cuda

    usable, detail = cuda.probe()
    facts: dict[str, Any] = {
        "usable": usable, "detail": detail, "python": platform.python_version(), "versions": versions(),
        "gpus": tool("nvidia-smi", f"--query-gpu={FIELDS}", "--format=csv"), "nvcc": tool("nvcc", "--version"),
    }  # fmt: skip
    if usable:
        from minigen.cuda import card

        facts["card"] = vars(card.present())
    save(facts)
    print(detail)


if __name__ == "__main__":
    main()

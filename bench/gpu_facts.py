"""The card, its driver, and the versions of everything that computes on it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from typing import Any

from bench.gpu_result import card_here, save

PACKAGES = (
    "numpy",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "triton",
    "torch",
    "jax",
    "jaxlib",
    "jax-cuda13-plugin",
    "cuda-bindings",
    "nvidia-cuda-nvrtc",
    "nvidia-cublas",
)
FIELDS = "name,driver_version,memory.total,clocks.max.sm,clocks.max.memory,clocks.sm,power.limit,ecc.mode.current"
TOOLS = {
    "gpus": ("nvidia-smi", f"--query-gpu={FIELDS}", "--format=csv"),
    "nvcc": ("nvcc", "--version"),
    "ncu": ("ncu", "--version"),
    "compute-sanitizer": ("compute-sanitizer", "--version"),
}


def versions() -> dict[str, str]:
    import minigen

    found = {"minigen": minigen.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def tool(*command: str) -> str:
    """What a command prints, or why it prints nothing."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        return f"not usable: {error}"
    return (done.stdout or done.stderr).decode(errors="replace").strip()


def main() -> int:
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "versions": versions(),
    }
    facts |= {name: tool(*command) for name, command in TOOLS.items()}
    save(facts)  # before anything asks the driver: it may hang
    print(facts["gpus"], flush=True)
    from minigen import cuda
    from minigen.cuda.plan import tiles

    facts["usable"], facts["detail"] = cuda.probe()
    save(facts)
    print(facts["detail"], flush=True)
    if not facts["usable"]:
        return 1
    found, facts["card_from"] = card_here()
    facts["card"] = vars(found)
    # Of an earlier `minigen tune`: they would be used.
    facts["tuned_tiles"] = len(tiles.load_measured(found.architecture))
    save(facts)
    print(facts["card"], facts["card_from"], flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Make the peers' virtual environments from their pinned requirements.

    python -m bench.setup_peers               # all
    python -m bench.setup_peers tensorflow    # one

They lie in ``$MINIGEN_BENCH_ENVS``, by default ``~/.cache/minigen-bench``, one folder each. A peer without one runs in
this interpreter if its package is installed here, or where ``bench.compare --python torch=PATH`` says. On a GPU, where
the frameworks' builds depend on the driver, that is the way.
"""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
import venv
from pathlib import Path

from bench.peers import environments_folder

REQUIREMENTS = Path(__file__).resolve().parent / "peers"
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
"""PyTorch without CUDA: a small part of the build that the usual index has for Linux."""


def extra_index(name: str) -> list[str]:
    """pip's options for the index of the CPU builds; none where it cannot be reached, so that pip waits for nothing."""
    if name not in ("torch", "tables"):
        return []
    try:
        urllib.request.urlopen(f"{CPU_BUILDS}/torch/", timeout=10).close()
    except (urllib.error.URLError, TimeoutError):
        print(f"{CPU_BUILDS} cannot be reached: PyTorch comes from pip's own indices", flush=True)
        return []
    return ["--extra-index-url", CPU_BUILDS]


def setup(names: list[str]) -> None:
    """Make or update the environments ``names``; all when the list is empty. Raises where pip fails."""
    known = sorted(path.stem.removeprefix("requirements-") for path in REQUIREMENTS.glob("requirements-*.txt"))
    for name in names or known:
        if name not in known:
            raise SystemExit(f"no environment {name!r}; known: {', '.join(known)}")
        folder = environments_folder() / name
        print(f"{name}: {folder}", flush=True)
        if not (folder / "bin" / "python").exists():
            venv.create(folder, with_pip=True)
        requirements = REQUIREMENTS / f"requirements-{name}.txt"
        install = [folder / "bin" / "python", "-m", "pip", "install", "-q", *extra_index(name), "-r", requirements]
        subprocess.run(install, check=True)


if __name__ == "__main__":
    setup(sys.argv[1:])

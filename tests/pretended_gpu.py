"""A pretended GPU for processes that the tests start: a folder with a CuPy, a driver and its tools.

The stages of ``bench/gpu.sh`` are tried out on it with their own commands. It ``records`` (any kernel's binary is
empty, and computes nothing), ``loads`` (as a GPU's, and computes nothing) or ``computes`` (binaries are PTX, which
ptx/ runs). In the mode ``driver`` it computes below the real CuPy and cuda-bindings (pretended_driver.py), which must
be installed. ``PRETENDED_FAULT`` names a file with
the word ``crash``, ``hang`` or ``lost`` and a number, such as ``crash 3``: so it goes with that launch, once. After
``lost`` nothing works any more in that process, as after an illegal address.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import pretended_driver

TESTS = Path(__file__).resolve().parent

CUPY = """
import sys
sys.path.append("{tests}")
import pretended_gpu
sys.modules["cupy"] = pretended_gpu.cupy("{mode}")
"""
REAL_CUPY = """
import sys
from pathlib import Path
sys.path.remove(str(Path(__file__).parent.parent))
sys.path.append("{tests}")
del sys.modules["cupy"]
import pretended_gpu
pretended_gpu.real_cupy()
"""
NVIDIA_SMI = """#!/bin/sh
case "$*" in
*driver_version*) echo "Pretended GPU, 580.1" ;;
*) echo "Pretended GPU" ;;
esac
"""
NCU = """#!/bin/sh
# Runs the program and leaves a report; reads it back as three lines of CSV.
while [ $# -gt 0 ]; do
    case "$1" in
    --import)
        printf '"ID","Kernel Name","gpu__time_duration.sum"\\n"","","nsecond"\\n"0","dense_forward","2,500"\\n'
        exit
        ;;
    --export) report="$2"; shift 2 ;;
    --set | --clock-control | --cache-control | --profile-from-start) shift 2 ;;
    --force-overwrite) shift ;;
    *) break ;;
    esac
done
"$@" && echo report >"$report"
"""
SANITIZER = """#!/bin/sh
while [ $# -gt 0 ]; do
    case "$1" in
    --tool | --report-api-errors | --error-exitcode) shift 2 ;;
    *) break ;;
    esac
done
"$@"
code=$?
echo "========= ERROR SUMMARY: 0 errors"
exit $code
"""


def make(folder: Path, mode: str = "records", tools: bool = True) -> dict[str, str]:
    """The environment of processes that find a pretended GPU. Without ``tools``: only CuPy and the driver's library."""
    (folder / "cupy").mkdir(parents=True)
    (folder / "cupy" / "__init__.py").write_text((REAL_CUPY if mode == "driver" else CUPY).format(tests=TESTS, mode=mode))
    pretended_driver.library(folder)
    (folder / "bin").mkdir()
    for name, text in {"nvidia-smi": NVIDIA_SMI, "ncu": NCU, "compute-sanitizer": SANITIZER}.items():
        if tools:
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name not in ("TRITON_INTERPRET", "OUT")}
    for name, value in {"PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(folder), "PATH": str(folder / "bin")}.items():
        environment[name] = os.pathsep.join(filter(None, [value, os.environ.get(name, "")]))
    # Kernels are compiled in the process itself, which is where CuPy changes what comes out.
    settings = {"MINIGEN_GPU_REHEARSAL": "1", "MINIGEN_CACHE": str(folder / "cache"), "MINIGEN_COMPILE_PROCESSES": "1"}
    return environment | settings


def cupy(mode: str) -> Any:
    """The module, in a process that imports it, and cuda-bindings beside it.

    Triton's binaries are replaced by what the pretended GPU takes.
    """
    from fake_cupy import FakeCupy, bindings

    from minigen.cuda.run import compiler
    from minigen.cuda.run.cache import Binary

    class Pretended(FakeCupy):
        launched = 0
        lost = False

        def idle(self, what: str) -> None:
            super().idle(what)
            if self.lost:
                raise self.cuda.runtime.CUDARuntimeError(700)

        def perform(self, name: str, grid: Any, block: Any, args: Any, shared: int, code: bytes = b"") -> None:
            self.idle("a launch in a graph")
            self.launched += 1
            if _fault(self.launched):
                self.lost = True
                return
            if mode == "computes":
                _compute(code, grid, block, args, shared)

    if mode == "records":
        compiler.compile_builds = lambda builds: [Binary(b.function.__name__, b"nothing") for b in builds]
    elif mode == "computes":
        _keep_ptx()
    fake = Pretended()
    sys.modules.update(bindings(fake))
    return fake


def real_cupy() -> Any:
    """The installed one, on the pretended driver."""
    _keep_ptx()
    return pretended_driver.install()


def _keep_ptx() -> None:
    """Binaries are PTX from now on."""
    from minigen.cuda.run import compiler

    original = compiler.binary_of
    compiler.binary_of = lambda record: replace(original(record), code=record.asm["ptx"].encode())


def _fault(launched: int) -> bool:
    """Do what the file asks for with this launch; whether the GPU is lost."""
    path = Path(os.environ.get("PRETENDED_FAULT", "nowhere"))
    word, _, number = path.read_text().partition(" ") if path.exists() else ("", "", "")
    if not word or launched < int(number):
        return False
    path.unlink()
    if word == "crash":
        os._exit(139)
    if word == "hang":
        time.sleep(1000)
    return True


_codes: dict[bytes, Any] = {}


def _compute(code: bytes, grid: Any, block: Any, args: Any, shared: int) -> None:
    from ptx.code import Code
    from ptx.machine import run

    if code not in _codes:
        _codes[code] = Code(code.decode())
    plain = [argument if isinstance(argument, np.ndarray) else argument.item() for argument in args]
    run(_codes[code], np.random.default_rng().permutation(grid[0] * grid[1]), plain, block[0], shared, grid)


if __name__ == "__main__":
    # python tests/pretended_gpu.py FOLDER [records|loads|computes|driver]: what a shell needs to use it
    for name, value in make(Path(sys.argv[1]), *sys.argv[2:]).items():
        if name in ("PYTHONPATH", "LD_LIBRARY_PATH", "PATH") or name.startswith("MINIGEN_"):
            print(f"export {name}='{value}'")

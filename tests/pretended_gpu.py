"""A pretended GPU for processes that the tests start: a folder with a CuPy, a driver and its tools.

The stages of ``bench/gpu.sh`` are tried out on it with their own commands. On a stand-in for CuPy it ``records`` (any
kernel's binary is empty, and computes nothing) or ``loads`` (as a GPU's, and computes nothing). Where it ``computes``,
CuPy and cuda-bindings are those that are installed, the driver below them is pretended (pretended_driver.py), and
binaries are PTX, which ptx/ runs. ``PRETENDED_FAULT`` names a file with the word ``crash``, ``hang`` or ``lost`` and a
number, such as ``crash 3``: so it goes with that launch, once. After ``lost`` nothing works any more in that process,
as after an illegal address.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

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
pretended_gpu.install()
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
    text = (REAL_CUPY if mode == "computes" else CUPY).format(tests=TESTS, mode=mode)
    (folder / "cupy").mkdir(parents=True)
    (folder / "cupy" / "__init__.py").write_text(text)
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
    """The stand-in, in a process that imports it, and cuda-bindings beside it."""
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

        def perform(self, *launch: Any) -> None:
            self.idle("a launch in a graph")
            self.launched += 1
            self.lost = pretended_driver.fault(self.launched)

    if mode == "records":
        compiler.compile_builds = lambda builds: [Binary(b.function.__name__, b"nothing") for b in builds]
    fake = Pretended()
    sys.modules.update(bindings(fake))
    return fake


def install() -> None:
    """The installed CuPy, on the pretended driver, with PTX in place of binaries."""
    from minigen.cuda.run import compiler

    original = compiler.binary_of
    compiler.binary_of = lambda record: replace(original(record), code=record.asm["ptx"].encode())
    pretended_driver.install()


if __name__ == "__main__":
    # python tests/pretended_gpu.py FOLDER [records|loads|computes]: what a shell needs to use it
    for name, value in make(Path(sys.argv[1]), *sys.argv[2:]).items():
        if name in ("PYTHONPATH", "LD_LIBRARY_PATH", "PATH") or name.startswith("MINIGEN_"):
            print(f"export {name}='{value}'")

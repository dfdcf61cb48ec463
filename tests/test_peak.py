"""The arithmetic peaks that ``bench`` divides by: every chain of the loops is there in the machine code.

Chains that the compiler knows to be equal it may merge into one, and the peak is then several times too high. What is
counted is the compiler's output, so that a processor without these instructions finds out too.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KERNEL_FLAGS = "-std=c++20 -O3 -fPIC -fopenmp-simd -fno-math-errno -fno-trapping-math -ffp-contract=fast -w".split()
FLAGS = {"avx2": ["-mavx2", "-mfma"]}
FLAGS["avx512"] = [*FLAGS["avx2"], *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl"))]
FLAGS["avx512bf16"] = [*FLAGS["avx512"], "-mavx512bf16"]


def tool(variable: str, *names: str) -> str:
    found = next(filter(None, map(shutil.which, (os.environ.get(variable, ""), *names))), None)
    if found is None:
        pytest.skip(f"none of {', '.join(names)} here")
    return found


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86-64 only")
@pytest.mark.parametrize(
    ("isa", "source", "instruction", "chains"),
    [
        ("avx2", "peak", r"vfn?madd\d+ps", 12),
        ("avx512", "peak", r"vfn?madd\d+ps", 24),
        ("avx512bf16", "peak_bf16", "vdpbf16ps", 24),
    ],
)
def test_no_two_chains_have_become_one(tmp_path, isa, source, instruction, chains):
    compiler, objdump = tool("CXX", "g++", "clang++"), tool("OBJDUMP", "objdump", "llvm-objdump")
    file, built = ROOT / "csrc/cpu" / f"{source}.cpp", tmp_path / "peak.o"
    command = [compiler, *KERNEL_FLAGS, *FLAGS[isa], f"-DMINIGEN_ISA={isa}", "-c", str(file), "-o", str(built)]
    result = subprocess.run(command, capture_output=True, text=True)
    if "unrecognized command" in result.stderr or "unknown argument" in result.stderr:
        pytest.skip(f"{compiler} does not know {isa}")
    assert result.returncode == 0, result.stderr
    code = subprocess.run([objdump, "-d", "--no-show-raw-insn", built], capture_output=True, text=True, check=True)
    assert loop_counts(code.stdout, instruction) == {chains}


def loop_counts(assembly: str, instruction: str) -> set[int]:
    """How often ``instruction`` stands in the innermost loops that have it: from a jump back to what it jumps to."""
    lines = re.findall(r"^\s*([0-9a-f]+):\s+(\S+)\s*(\S*)", assembly, re.MULTILINE)
    counts = []
    for address, name, target in lines:
        start = target.split(" ")[0]
        if name.startswith("j") and re.fullmatch(r"[0-9a-f]+", start) and int(start, 16) < int(address, 16):
            inside = [n for at, n, _ in lines if int(start, 16) <= int(at, 16) < int(address, 16)]
            if not any(n.startswith("j") for n in inside):  # no loop within this loop
                counts.append(sum(re.fullmatch(instruction, n) is not None for n in inside))
    return set(counts) - {0}

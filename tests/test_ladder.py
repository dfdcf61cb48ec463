"""The ladder of dense kernels: each rung is right, what would make it wrong is noticed, and its table is made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import report
from bench.ladder import rungs
from bench.ladder.__main__ import samples

needs_compiler = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")


def rung_of(call: rungs.Dense) -> rungs.Rung:
    return rungs.Rung("NumPy", "a test's", "", call, "here", timed=False)


@pytest.mark.slow
@needs_compiler
def test_cpp(tmp_path: Path, seed: int) -> None:
    for rung in rungs.cpp(tmp_path):
        assert 0 < rungs.check(rung, seed) < rungs.TOLERANCE


def without_bias(x: np.ndarray, W: np.ndarray, b: np.ndarray, y: np.ndarray) -> None:
    y[...] = x @ W


def without_the_last_column(x: np.ndarray, W: np.ndarray, b: np.ndarray, y: np.ndarray) -> None:
    y[:, :-1] = x @ W[:, :-1] + b[:-1]


def beyond_the_end(x: np.ndarray, W: np.ndarray, b: np.ndarray, y: np.ndarray) -> None:
    y[...] = x @ W + b
    y.base[-rungs.GUARD] = 0


@pytest.mark.parametrize("wrong", [without_bias, without_the_last_column, beyond_the_end])
def test_the_check_finds(wrong: Callable[..., None]) -> None:
    with pytest.raises(AssertionError, match="is wrong by|wrote outside"):
        rungs.check(rung_of(wrong))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", list(rungs.CUDA))
def test_cuda_on_the_host_needs_every_barrier(name: str, tmp_path: Path, seed: int) -> None:
    source, *shape = rungs.CUDA[name]
    text = (rungs.FOLDER / source).read_text()
    parts = text.split("__syncthreads();")
    for missing in range(-1, len(parts) - 1):
        kept = "".join(
            part + ("" if i in (missing, len(parts) - 1) else "__syncthreads();") for i, part in enumerate(parts)
        )
        assert (kept == text) == (missing == -1)
        kernel = tmp_path / f"kernel-{missing}.cu"
        kernel.write_text(kept)
        rung = rungs.cuda_rung_on_host(tmp_path, name, kernel, *shape)
        if missing == -1:
            assert 0 < rungs.check(rung, seed) < rungs.TOLERANCE
        else:
            with pytest.raises(AssertionError, match="is wrong by"):
                rungs.check(rung, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(rungs.CUDA))
def test_nvcc_compiles_the_cuda_rungs_without_spills(name: str, tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc")
    source = str(rungs.FOLDER / rungs.CUDA[name][0])
    options = ["-std=c++17", "-cubin", "-arch=sm_90", "-Werror=all-warnings", "-Xptxas=-v", "-o", str(tmp_path / "a")]
    built = subprocess.run([nvcc, *options, source], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in built.stderr


def test_triton_without_a_gpu_has_to_be_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET=1"):
        next(rungs.triton("cpu"))


def test_a_compiler_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match="install g"):
        rungs.compiler()


def test_samples_are_seconds_a_call() -> None:
    calls = []
    taken = samples(lambda: calls.append(1), lambda: None, 0, 3)
    assert len(taken) == 3 and len(calls) > 1000 and all(0 < value < 1e-3 for value in taken)


@needs_compiler
@pytest.mark.slow
def test_the_whole_ladder_in_small(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("triton")
    out = tmp_path / "ladder.json"
    command = [sys.executable, "-m", "bench.ladder", "--quick", "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(report.ROOT)}
    subprocess.run(command, cwd=report.ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    result = json.loads(out.read_text())
    names = [(row["language"], row["name"]) for row in result["rows"]]
    assert names[:5] == [("C++", name) for name in rungs.CPP] and result["skipped"] == {}
    assert len(names) == 5 + 3 + 3 + 2 and all(row["error"] < rungs.TOLERANCE for row in result["rows"])
    timed = {row["language"] for row in result["rows"] if row["samples"]}
    assert timed == {"C++", "library"}
    text = report.all_tables({"ladder-here": result})["ladder"]
    assert text.count("\n| C++, ") == 5 and "| floor" not in text


def made_up(limits: dict[str, Any] | None) -> dict[str, Any]:
    row = {
        "language": "C++",
        "name": "naive",
        "source": rungs.CPP["naive"],
        "where": "one core",
        "error": 2e-7,
        "samples": [[2e-3, 1e-3]],
    }
    checked = row | {
        "language": "Triton",
        "source": "triton_rungs.py",
        "where": "Triton's interpreter",
        "samples": None,
    }
    return {
        "schema": 1,
        "kind": "ladder",
        "quick": False,
        "commit": None,
        "created": "2026-01-01",
        "machine": {"cpu": "a test"},
        "compiler": "g++",
        "limits": limits,
        "shapes": [[100, 200, 500]],
        "skipped": {"CUDA C++": "a reason"},
        "rows": [row, checked],
    }


def test_the_table_has_the_floor_beside_each_figure() -> None:
    limits = {"peak_gflops": 100.0, "peak_method": "a test"}
    text = report.all_tables({"ladder-made-up": made_up(limits)})["ladder"]
    cpp, triton = (rungs.lines_of_code(*of) for of in ((rungs.CPP["naive"], "naive"), ("triton_rungs.py", "naive")))
    assert f"| C++, naive | {cpp} | 1500 (7.50) | 2.0e-07 | one core |" in text  # 20 MFLOP are 200 µs
    assert f"| Triton, naive | {triton} | – |" in text and "| floor: FLOPs over peak |  | 200 |" in text
    assert "CUDA C++ was left out: a reason." in text


def test_lines_are_those_of_the_rung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a Python file its function and what that calls; each rung has fewer than the file, and another number."""
    monkeypatch.setattr(rungs, "FOLDER", tmp_path)
    code = (
        '@jit\ndef k(\n    x,\n):\n    """Not\n    code."""\n    # nor\n    return x\n\n\ndef a_b(x):\n    k(x)  # b\n'
    )
    (tmp_path / "r.py").write_text(code + "\n\ndef c(x):\n    return x\n")
    (tmp_path / "r.cpp").write_text("#include <a>\n// a\nint f() {\n\n}\n")
    found = [rungs.lines_of_code("r.py", "a b"), rungs.lines_of_code("r.py", "c"), rungs.lines_of_code("r.cpp", "c")]
    assert found == [7, 2, 2] and rungs.lines_of_code("", "c") is None


def test_without_a_result_the_readme_says_so() -> None:
    assert report.all_tables({})["ladder"] == report.NO_LADDER

"""The stages of ``bench/gpu.sh``: each in a process of its own with a time limit, its outcome on disk before the next.

A stage that fails, hangs or crashes the driver leaves the others alone. What a stage measured it writes as JSON to the
file named by ``$STAGE_RESULT``. Needs the standard library only.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUDGET = 570  # seconds for everything
TAIL = 6000  # characters of a stage's output that the result keeps


@dataclass(frozen=True)
class Stage:
    """``command`` runs in the work folder and may last ``limit`` seconds. A word STAGE_RESULT is the result's file."""

    name: str
    limit: int
    command: list[str]


def stages(site: Path) -> list[Stage]:
    python = sys.executable
    install = [python, "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "--no-index", "--target"]
    return [
        Stage("install", 120, [*install, str(site), str(ROOT)]),
        Stage("facts", 30, [python, "-m", "bench.gpu_facts"]),
        Stage("tests", 180, [python, "-m", "bench.gpu_tests"]),
        Stage("steps", 75, [python, "-m", "bench.gpu_steps"]),
        Stage("compare", 180, compare("ieee")),
        Stage("training", 90, [python, "-m", "bench.gpu_training"]),
        Stage("sanitizer", 75, [python, "-m", "bench.gpu_sanitizer"]),
        Stage("kernels", 100, [python, "-m", "bench.gpu_kernels"]),
        Stage("compare-tf32", 120, compare("tf32")),  # the last: what a slow machine does not come to
    ]


def compare(precision: str) -> list[str]:
    """minigen's step beside PyTorch's and JAX's best modes; beside ieee also its default, which is as accurate."""
    own = ["minigen", "minigen-tf32x3"] if precision == "ieee" else ["minigen"]
    peers = [*own, "torch", "torch-compile", "torch-graph", "jax", "jax-scan"]
    settings = {"--device": "cuda", "--precision": precision, "--batch": "128", "--width": "article", "--rounds": "5",
                "--chunk": "0.2", "--starts": "1", "--patience": "60"}  # fmt: skip
    options = [word for pair in settings.items() for word in pair]
    return [sys.executable, "-m", "bench.compare", *options, "--peers", *peers, "--out", "STAGE_RESULT"]


def run(stage: Stage, work: Path, environment: dict[str, str], limit: float) -> dict[str, Any]:
    """Run one stage: its status (ok, failed, timeout), exit code, seconds, output's end, and what it measured."""
    result = work / f"{stage.name}.json"
    log = work / f"{stage.name}.log"
    environment = environment | {"STAGE_RESULT": str(result)}
    command = [str(result) if word == "STAGE_RESULT" else word for word in stage.command]
    begin = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=work, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    status = "timeout" if code is None else "ok" if code == 0 else "failed"
    record: dict[str, Any] = {"status": status, "exit_code": code, "seconds": round(time.monotonic() - begin, 2)}
    record["output"] = log.read_text(errors="replace")[-TAIL:]
    if result.exists():
        try:
            record["result"] = json.loads(result.read_text())
        except ValueError as error:
            record["result_error"] = f"not JSON: {error}"
    return record


def _end(process: subprocess.Popen[bytes]) -> None:
    """The stage and whatever it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # all have ended by themselves
    process.wait()


def prepare(work: Path) -> dict[str, str]:
    """Copy what the stages run, but not the package: they must import the installed one. The environment for them."""
    for folder in ("bench", "tests"):
        shutil.copytree(ROOT / folder, work / folder, ignore=shutil.ignore_patterns("__pycache__", "results"))
    shutil.copy(ROOT / "pyproject.toml", work)
    path = os.pathsep.join(filter(None, [str(work / "site"), os.environ.get("PYTHONPATH")]))
    settings = {"MINIGEN_CACHE": str(work / "cache"), "MINIGEN_NEEDS_GPU": "1", "PYTHONUNBUFFERED": "1"}
    return dict(os.environ) | settings | {"PYTHONPATH": path}


def commit() -> dict[str, Any]:
    """Which sources were measured. A copy of the tree without .git has none."""
    try:
        def git(*arguments: str) -> str:
            answer = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
            return answer.stdout.strip()

        changes = git("status", "--porcelain", "--", ".", ":!bench/results")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changes)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def card() -> str:
    """Name of the GPU for the result's file name."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "no-gpu"
    return re.sub(r"[^a-z0-9]+", "-", answer.lower()).strip("-")


def write(path: Path, result: dict[str, Any]) -> None:
    """The whole file or none of it."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(path)


def main(wanted: list[str]) -> int:
    out = Path(os.environ.get("OUT") or ROOT / "bench" / "results")
    out.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    path = out / f"gpu-{card()}-{now:%Y%m%d-%H%M%S}.json"
    work = Path(tempfile.mkdtemp(prefix="minigen-gpu-"))
    everything = stages(work / "site")
    unknown = set(wanted) - {stage.name for stage in everything}
    if unknown:
        print(f"unknown stage {', '.join(sorted(unknown))}; there are {', '.join(s.name for s in everything)}")
        return 2
    begin = time.monotonic()
    environment = prepare(work)
    result: dict[str, Any] = {"schema": 1, "created": now.isoformat(timespec="seconds"), **commit(), "stages": {}}
    try:
        for stage in everything:
            if wanted and stage.name not in wanted and stage.name != "install":
                continue
            left = BUDGET - (time.monotonic() - begin)
            if left < 5:
                result["stages"][stage.name] = {"status": "skipped", "reason": "the time was used up"}
            else:
                result["stages"][stage.name] = run(stage, work, environment, min(stage.limit, left))
            write(path, result)
            report(stage.name, result["stages"][stage.name])
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(path)
    return 0 if all(record["status"] == "ok" for record in result["stages"].values()) else 1


def report(name: str, record: dict[str, Any]) -> None:
    print(f"{name:10} {record['status']:8} {record.get('seconds', 0):7.1f} s")
    if record["status"] != "ok":
        print("\n".join("    " + line for line in record.get("output", "").splitlines()[-15:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

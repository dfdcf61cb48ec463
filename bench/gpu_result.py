"""What the stages of ``bench/gpu.sh`` share: where they leave what they measured, and what they were measured on.

Needs the standard library only.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PREPARED = Path(os.environ.get("MINIGEN_GPU_PREPARED") or ROOT / "bench" / "prepared")
"""What :mod:`bench.gpu_prepare` makes beforehand: compiled kernels, expected outputs, a program. Git ignores it."""
SOURCES = ("minigen/**/*.py", "csrc/**/*", "bench/*.cu")
REHEARSAL = "MINIGEN_GPU_REHEARSAL"
"""The environment variable that makes all stages small, to try them out. Such figures mean nothing."""


def rehearsing() -> bool:
    return bool(os.environ.get(REHEARSAL))


def save(result: dict[str, Any]) -> None:
    """Write ``result`` to ``$STAGE_RESULT``, or print it. Called after every part: whoever is killed loses little."""
    target = os.environ.get("STAGE_RESULT")
    if target is None:
        print(json.dumps(result, indent=1, default=float), flush=True)
        return
    write(Path(target), result)


def write(path: Path, result: dict[str, Any]) -> None:
    """The whole file or none of it."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(result, indent=1, default=float) + "\n")
    temporary.replace(path)


def read(path: Path) -> dict[str, Any] | None:
    """A JSON file, None where there is none or not a whole one."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


@functools.cache
def digest(root: Path = ROOT) -> str:
    """SHA-256 of the sources that the figures depend on: where there is no git it says what was measured."""
    found = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in root.glob(pattern) if path.is_file()):
        found.update(f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def keep_busy(executor: Any, work: Callable[[], None], seconds: float = 1.0) -> None:
    """Repeat ``work()`` on the GPU: an idle one is slow until its clock has gone up."""
    end = time.perf_counter() + (0.01 if rehearsing() else seconds)
    while time.perf_counter() < end:
        work()
        executor.synchronize()


def card_here(index: int = 0) -> tuple[Any, str]:
    """The GPU as :mod:`minigen.cuda.tools.measure` describes it, and where its figures come from.

    Where the driver does not tell all of them, the lower bounds are those of an H100's datasheet.
    """
    from minigen.cuda.tools import measure

    try:
        found = measure.present(index)
    except Exception as error:  # whatever a new driver or CuPy does: a lower bound is no reason to lose a measurement
        return measure.H100, f"datasheet: the driver does not tell ({type(error).__name__}: {error})"
    if min(found.multiprocessors, found.clock, found.bandwidth) <= 0:
        return measure.H100, "datasheet: the driver tells zeros"
    return found, "the driver"

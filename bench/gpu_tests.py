"""The tests that a GPU is for, side by side: most of their time is the compiler's, which has one core a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

PRECISIONS = ("ieee", "tf32x3", "bf16x6", "bf16x3", "tf32", "bf16")
OPERATIONS = (
    "layer_operations",
    "activations",
    "gan_loss",
    "penalty",
    "vae_loss",
    "likelihood_losses",
    "latent",
    "gumbel_softmax",
    "optimizer",
    "schedule",
    "averaging",
    "random",
    "batch",
    "condition",
)
MODELS = (
    "backends",
    "ops",
    "gradcheck",
    "whole_steps",
    "training",
    "training_parts",
    "checkpoint",
    "gan",
    "games",
    "pack",
    "conditional",
    "vae",
    "vae_steps",
    "layer_kinds",
    "scaling",
    "digits",
)
TAIL = 4000  # characters of the output of what failed


@dataclass(frozen=True)
class Part:
    """A file of tests: on which ``backends`` (tests/conftest.py), and pytest's ``-k``."""

    file: str
    backends: str = "cuda"
    selected: str = "cuda"


def parts() -> list[Part]:
    """Every operation's tests, products in every precision; the models'; the CUDA backend's own. The longest first."""
    others = " and ".join(f"not {word}" for word in ("ieee", "tf32", "bf16", "memory"))
    words = [f"{word} and not {word}x" if word in ("tf32", "bf16") else word for word in PRECISIONS]
    device = [Part("cuda_device", selected=word) for word in (*words, others)]
    dense = [Part("dense", f"cuda-{precision}") for precision in PRECISIONS]
    return [*device, *dense, *(Part(name) for name in (*MODELS, *OPERATIONS))]


ALONE = Part("cuda_device", selected="memory")
"""It takes all of the GPU's memory, and counts what is free: nobody else may be there."""


def run(part: Part) -> dict[str, Any]:
    """A part's outcome. No test, or one that was skipped, is a failure: the GPU is there."""
    command = [sys.executable, "-m", "pytest", "-m", "", "-q", "-rs", "-p", "no:cacheprovider", "-k", part.selected]
    begin = time.perf_counter()
    done = subprocess.run(
        [*command, f"tests/test_{part.file}.py"],
        env=os.environ | {"MINIGEN_TEST_BACKENDS": part.backends},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    summary = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "no output"
    passed = done.returncode == 0 and " passed" in summary and " skipped" not in summary
    record = {
        "file": part.file,
        "backends": part.backends,
        "selected": part.selected,
        "passed": passed,
        "summary": summary,
        "seconds": time.perf_counter() - begin,
    }
    print(f"{'ok' if passed else 'FAILED':6} {part.file} on {part.backends}, {part.selected}: {summary}", flush=True)
    if not passed:
        print(done.stdout[-TAIL:], flush=True)
    return record


def main() -> int:
    from bench.gpu_result import save

    todo = parts()
    records: list[dict[str, Any]] = []
    save({"of": len(todo) + 1, "parts": records})
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 2)) as pool:
        for done in as_completed([pool.submit(run, part) for part in todo]):
            records.append(done.result())
            save({"of": len(todo) + 1, "parts": records})
    records.append(run(ALONE))
    save({"of": len(todo) + 1, "parts": records})
    return 0 if all(record["passed"] for record in records) else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""The CUDA backend's Triton kernels and fused launches on a machine with no GPU, through Triton's interpreter.

Triton decides when it is imported whether it compiles or interprets, so these tests run in processes of their own with
TRITON_INTERPRET=1: the tests of every operation with the backend ``interpreter``, and the files ``interpreted_*.py``.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from interpreter import find_mismatch

HERE = Path(__file__).parent
TOO_SLOW = (
    "large_layer",
    "follow_the_same_path",
    "repeats_the_step",
    "of_every_step",
    "distributions",
    "an_epoch_visits",
    "follows_the_float64_reference",
)

PARTS = {  # the longest first
    "steps": ["interpreted_steps.py"],
    "fusions": ["interpreted_fusions.py", "interpreted_checks.py"],
    "many": ["interpreted_many.py"],
    "dense": ["test_dense.py"],
    "operations": [
        f"test_{name}.py"
        for name in (
            "activations",
            "gan_loss",
            "penalty",
            "games",
            "vae_loss",
            "latent",
            "optimizer",
            "averaging",
            "schedule",
            "random",
            "batch",
            "backends",
            "condition",
            "layer_operations",
            "likelihood_losses",
            "gumbel_softmax",
        )
    ],
}


def problem() -> str | None:
    try:
        return find_mismatch(importlib.metadata.version("triton"), np.__version__)
    except importlib.metadata.PackageNotFoundError:
        return "Triton is not installed"


def interpret(part):
    left_out = " or ".join(TOO_SLOW)
    selected = f"not ({left_out})" if part in ("fusions", "steps", "many") else f"interpreter and not ({left_out})"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        "-k",
        selected,
        *PARTS[part],
    ]
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "MINIGEN_TEST_BACKENDS": "interpreter",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True)


@pytest.mark.background(run=interpret)
@pytest.mark.skipif(problem() is not None, reason=str(problem()))
@pytest.mark.parametrize("part", PARTS)
def test_interpreted(part, result):
    print(result.stdout[-20000:], result.stderr[-2000:])
    assert result.returncode == 0
    assert " passed" in result.stdout and "skipped" not in result.stdout

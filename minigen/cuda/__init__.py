"""The CUDA backend. Importing this imports neither CuPy nor Triton, and touches no device.

:func:`probe` says whether it can be used here; ``CudaBackend(index)`` is the backend on one GPU.
"""

from __future__ import annotations

from typing import Any


def probe() -> tuple[bool, str]:
    """Whether ``device="cuda"`` works here, and on what, or why not and what to install."""
    from minigen.cuda.run.driver import describe, find_problem

    problem = find_problem()
    return (False, problem) if problem else (True, describe())


def __getattr__(name: str) -> Any:
    if name == "CudaBackend":
        from minigen.cuda.backend import CudaBackend

        return CudaBackend
    raise AttributeError(f"module 'minigen.cuda' has no attribute {name!r}")

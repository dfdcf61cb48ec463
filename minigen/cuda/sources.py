"""The CUDA C++ kernels: where their sources are, and what their functions take."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np

PACKAGE = Path(__file__).resolve().parent.parent
SCALARS = {"int32_t": np.int32, "uint32_t": np.uint32, "int64_t": np.int64, "float": np.float32, "double": np.float64}
"""Types of the parameters that are passed by value."""


def folder() -> Path:
    """``csrc`` as installed beside the Python modules, else the one of the source tree.

    Raises FileNotFoundError where neither is there.
    """
    for found in (PACKAGE / "csrc", PACKAGE.parent / "csrc"):
        if (found / "cuda").is_dir():
            return found
    raise FileNotFoundError(f"the CUDA sources are missing from {PACKAGE / 'csrc'}: install minigen again")


@functools.cache
def expanded(file: str) -> str:
    """``csrc/cuda/file`` with its own headers in their places, each once: all that NVRTC and a cache key need."""
    seen: set[Path] = set()
    return _expand((folder() / "cuda" / file).resolve(), seen)


def _expand(path: Path, seen: set[Path]) -> str:
    if path in seen:
        return ""
    seen.add(path)

    def include(match: re.Match[str]) -> str:
        return _expand((path.parent / match[1]).resolve(), seen)

    text = path.read_text().replace("#pragma once\n", "")
    return re.sub(r'^#include "([^"]+)"\n', include, text, flags=re.MULTILINE)


@functools.cache
def parameters(file: str, function: str) -> tuple[type | None, ...]:
    """NumPy type of each of the function's parameters, None for a pointer.

    Raises ValueError where the file has no such function or it takes a type that is not in :data:`SCALARS`.
    """
    text = (folder() / "cuda" / file).read_text()
    found = re.search(rf'extern "C" __global__ void[^;{{]*?\b{function}\(([^)]*)\)\s*{{', text)
    if not found:
        raise ValueError(f"{file} has no kernel {function}")
    return tuple(_type(parameter) for parameter in found[1].split(","))


def _type(parameter: str) -> type | None:
    if "*" in parameter:
        return None
    name = parameter.split()[0]
    if name not in SCALARS:
        allowed = ", ".join(SCALARS)
        raise ValueError(f"a kernel's parameter may be a pointer or one of {allowed}, not {parameter.strip()!r}")
    return SCALARS[name]

"""Reading an array whose size a header states, without allocating more than the file turns out to hold."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

MAX_BYTES = 2**32
MAX_DIMENSIONS = 64  # NumPy's own limit
CHUNK = 1 << 20


class Readable(Protocol):
    """A binary file, or a decompressor of one."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, none only at the end."""


def read_up_to(stream: Readable, limit: int) -> bytearray:
    """``limit`` bytes, or all that are left; memory grows only with what is there."""
    data = bytearray()
    while len(data) < limit:
        chunk = stream.read(min(CHUNK, limit - len(data)))
        if not chunk:
            break
        data += chunk
    return data


def declared_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Size of such an array; ``ValueError`` if NumPy could not have one."""
    # NumPy multiplies even an empty array's other dimensions, and the product must fit its index type.
    largest = math.prod(max(size, 1) for size in shape) * dtype.itemsize
    if len(shape) > MAX_DIMENSIONS or largest > np.iinfo(np.intp).max:
        raise ValueError(f"shape {shape} is beyond any array")
    return math.prod(shape) * dtype.itemsize


def largest_read() -> int:
    """Bytes of a file that are read into memory as a whole: half of the memory that is free, at most ``MAX_BYTES``."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:  # not Linux
        return MAX_BYTES
    found = re.search(r"MemAvailable:\s*(\d+) kB", text)
    return min(MAX_BYTES, int(found[1]) * 1024 // 2) if found else MAX_BYTES


def read_values(
    stream: Readable, shape: tuple[int, ...], dtype: np.dtype[Any], max_bytes: int, order: Literal["C", "F"] = "C"
) -> np.ndarray:
    """The array that takes up the rest of ``stream``.

    Never reads more than the declared bytes and one more, which must not exist. Raises ``ValueError`` when more
    than ``max_bytes`` are declared, or when there are more or fewer.
    """
    declared = declared_bytes(shape, dtype)
    if declared > max_bytes:
        raise ValueError(f"the header declares {declared} bytes, more than max_bytes = {max_bytes}")
    data = read_up_to(stream, declared + 1)
    if len(data) != declared:
        problem = "truncated" if len(data) < declared else "trailing bytes"
        raise ValueError(f"{problem}: the header declares {declared} bytes of shape {shape}")
    return np.ndarray(shape, dtype, buffer=data, order=order)

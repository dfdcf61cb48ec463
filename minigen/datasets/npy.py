"""Arrays in NumPy's files, .npy and .npz, read without pickle; a header is checked against what the file holds.

Format: numpy.lib.format, versions 1 and 2 (version 3 is only for structured arrays, which are of no use here).
"""

from __future__ import annotations

import ast
import gzip
import os
import zipfile
import zlib
from typing import Any, Literal

import numpy as np

from minigen.datasets.stream import MAX_BYTES, Readable, declared_bytes, largest_read, read_up_to, read_values
from minigen.paths import user_path

MAGIC = b"\x93NUMPY"
LENGTH_SIZES = {b"\1\0": 2, b"\2\0": 4}  # version: bytes that hold the header's length
MAX_HEADER = 10_000
NUMBERS = "biufc"  # kinds of dtype

Header = tuple[tuple[int, ...], np.dtype[Any], Literal["C", "F"]]


def read_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in a .npy file, read-only: read into memory or, if it would take too much of that, memory-mapped.

    An array in memory does not depend on the file any more; reading a mapped one where its file has been truncated
    meanwhile ends the process (SIGBUS). Raises ``ValueError`` naming the file when it is damaged, truncated
    meanwhile, or holds no numbers, and ``OSError`` where it cannot be read.
    """
    path = user_path(path)
    with open(path, "rb") as file:
        try:
            shape, dtype, order = _read_header(file)
            declared, there = declared_bytes(shape, dtype), os.fstat(file.fileno()).st_size - file.tell()
            if declared != there:
                raise ValueError(f"the header declares {declared} bytes of shape {shape}, but {there} are there")
            if declared > largest_read():
                return np.memmap(file, dtype, "r", file.tell(), shape, order)
            values = np.empty(declared, np.uint8)
            if file.readinto(values.data) != declared:
                raise ValueError(f"truncated while it was read: {declared} bytes were there, of shape {shape}")
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: not a usable .npy file: {error}") from error
    values.flags.writeable = False
    return np.ndarray(shape, dtype, values.data, order=order)


def read_gzipped_npy(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The array in a .npy.gz file, in memory.

    Raises as :func:`read_npy` does, and ``ValueError`` for more than ``max_bytes``.
    """
    with gzip.open(path) as file:
        try:
            shape, dtype, order = _read_header(file)
            return read_values(file, shape, dtype, max_bytes, order)
        except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{os.fspath(path)}: not a usable .npy.gz file: {error}") from error


def read_npz(path: str | os.PathLike[str], key: str | None = None, *, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The array ``key`` of an .npz file, or its only array.

    Raises ``ValueError`` naming the file when it is damaged, holds no such array, several arrays and no ``key`` was
    given, no numbers, or more than ``max_bytes`` of them; ``OSError`` where it cannot be read.
    """
    path = user_path(path)
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive, archive.open(_member(archive, key)) as member:
                shape, dtype, order = _read_header(member)
                return read_values(member, shape, dtype, max_bytes, order)
        except Exception as error:  # zipfile answers damage with a dozen kinds of exception
            raise ValueError(f"{os.fspath(path)}: not a usable .npz file: {error}") from error


def _member(archive: zipfile.ZipFile, key: str | None) -> str:
    keys = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    if key is None and len(keys) != 1:
        raise ValueError(f"{len(keys)} arrays inside; name one of {', '.join(keys)}" if keys else "no array inside")
    if key is not None and key not in keys:
        raise ValueError(f"no array {key!r} inside, only {', '.join(keys)}")
    return f"{keys[0] if key is None else key}.npy"


def _read_header(stream: Readable) -> Header:
    magic = bytes(read_up_to(stream, 8))
    length_size = LENGTH_SIZES.get(magic[6:])
    if magic[:6] != MAGIC or length_size is None:
        raise ValueError(f"it begins with {magic!r}, not with {MAGIC!r} and version 1.0 or 2.0")
    length = int.from_bytes(read_up_to(stream, length_size), "little")
    if length > MAX_HEADER:
        raise ValueError(f"a header of {length} bytes; at most {MAX_HEADER} are allowed")
    text = read_up_to(stream, length).decode("latin1")
    try:
        header = ast.literal_eval(text)
        shape, dtype = tuple(header["shape"]), np.dtype(header["descr"])
        order: Literal["C", "F"] = "F" if header["fortran_order"] else "C"
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, LookupError) as error:
        raise ValueError(f"damaged header: {error}") from error
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"damaged header: shape {shape}")
    if dtype.kind not in NUMBERS:
        raise ValueError(f"it holds {dtype}, not numbers; Python objects are never loaded")
    return shape, dtype, order

"""IDX files, the format of MNIST (LeCun, Cortes, Burges: "The MNIST database of handwritten digits").

Two zero bytes, one byte for the type, one for the number of dimensions, each dimension as a big-endian uint32, then
the values, big-endian, in C order, and nothing after them. An array has exactly one such file, so the SHA-256 of a
raw file is known from the array alone, however the file was compressed (:func:`idx_sha256`).
"""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import zlib
from typing import Any

import numpy as np

from minigen.datasets.stream import MAX_BYTES, MAX_DIMENSIONS, Readable, read_up_to, read_values
from minigen.files import replacing
from minigen.paths import user_path

StrPath = str | os.PathLike[str]

TYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
CODES = {dtype.newbyteorder("="): code for code, dtype in TYPES.items()}
TYPE_NAMES = ", ".join(str(dtype) for dtype in CODES)

GZIP_MAGIC = b"\x1f\x8b"


class IdxError(ValueError):
    """A file is not IDX, is damaged, or an array cannot be stored as IDX."""


def read_idx(path: StrPath, *, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The array in an IDX file, plain or gzip (told apart by content, not by name), in native byte order.

    The header is believed no further than the file bears it out: memory grows with the values that were really read,
    and at most ``max_bytes`` of them (and one byte more) are ever decompressed. Raises :class:`IdxError` on anything
    but one complete IDX file and ``OSError`` where it cannot be read.
    """
    path = user_path(path)
    if not stat.S_ISREG(path.stat().st_mode):
        raise IdxError(f"{path}: not a regular file")
    with open(path, "rb") as file:
        packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        try:
            return _decode(gzip.GzipFile(fileobj=file) if packed else file, max_bytes)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise IdxError(f"{path}: damaged gzip file: {error}") from error
        except ValueError as error:
            raise IdxError(f"{path}: {error}") from error


def _decode(stream: Readable, max_bytes: int) -> np.ndarray:
    magic = read_up_to(stream, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise ValueError(f"not IDX: it begins with {bytes(magic)!r}, not with two zero bytes, type, dimensions")
    code, ndim = magic[2], magic[3]
    if code not in TYPES:
        raise ValueError(f"not IDX: type 0x{code:02x} is none of {', '.join(f'0x{known:02x}' for known in TYPES)}")
    if not 1 <= ndim <= MAX_DIMENSIONS:
        raise ValueError(f"{ndim} dimensions; 1 to {MAX_DIMENSIONS} are allowed")
    sizes = read_up_to(stream, 4 * ndim)
    if len(sizes) < 4 * ndim:
        raise ValueError("truncated inside the header")
    shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, 4 * ndim, 4))
    values = read_values(stream, shape, TYPES[code], max_bytes)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def write_idx(path: StrPath, array: Any) -> None:
    """Store ``array`` (any shape of 1 dimension or more, dtype uint8, int8, int16, int32, float32 or float64) as IDX.

    A name that ends in ``.gz`` is compressed, always to the same bytes (no time stamp, no name inside). The file is
    written under a temporary name and renamed, so an old file survives whatever goes wrong. Raises :class:`IdxError`
    on another dtype or shape, before anything is written.
    """
    path, array = user_path(path), np.asarray(array)
    header, values = _encode(array)
    with replacing(path) as file:
        if path.suffix.lower() == ".gz":
            with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
                packed.write(header)
                packed.write(values)
        else:
            file.write(header)
            file.write(values)


def idx_sha256(array: np.ndarray) -> str:
    """SHA-256, in hex, of the raw IDX file that holds ``array``."""
    header, values = _encode(array)
    digest = hashlib.sha256(header)
    digest.update(values)
    return digest.hexdigest()


def _encode(array: np.ndarray) -> tuple[bytes, memoryview]:
    """Header and values, as they lie in the file."""
    code = CODES.get(array.dtype.newbyteorder("="))
    if code is None:
        raise IdxError(f"array: dtype {array.dtype} cannot be stored as IDX; allowed are {TYPE_NAMES}")
    if not 1 <= array.ndim <= MAX_DIMENSIONS or max(array.shape) >= 2**32:
        raise IdxError(
            f"array: shape {array.shape} cannot be stored as IDX; allowed are 1 to {MAX_DIMENSIONS} "
            "dimensions below 2**32"
        )
    header = bytes([0, 0, code, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header, np.ascontiguousarray(array, TYPES[code]).reshape(-1).view(np.uint8).data

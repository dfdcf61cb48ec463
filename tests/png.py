"""A PNG decoder that shares nothing with the encoder under test but the standard: 8-bit grey or RGB, no row filters."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def decode(content: bytes) -> np.ndarray:
    """The picture in a PNG file's bytes, ``uint8[H, W]`` or ``uint8[H, W, 3]``; lengths and checksums are checked."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", content, at + 8 + length) == (zlib.crc32(kind + data),)
        chunks.append((kind, data))
        at += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *methods = struct.unpack(">IIBBBBB", chunks[0][1])
    assert depth == 8 and colour in (0, 2) and methods == [0, 0, 0]
    channels = 3 if colour == 2 else 1
    lines = np.frombuffer(zlib.decompress(chunks[1][1]), np.uint8).reshape(height, 1 + width * channels)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape((height, width, 3) if channels == 3 else (height, width))

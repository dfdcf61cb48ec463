"""Compiled kernels on disk: one file an entry, whole or not at all, checked when read."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minigen.files import write_atomically
from minigen.paths import cache_folder

MAGIC = b"minigen kernel 1\n"


@dataclass(frozen=True)
class Binary:
    """A compiled kernel and what a launch must know of it."""

    entry: str
    """Name of the function in ``code``."""
    code: bytes
    """A cubin, or PTX where the compiler did not know the architecture."""
    threads: int = 0
    """Of a block; 0 where the launch decides."""
    shared: int = 0
    """Dynamic shared memory of a block, in bytes."""
    scratch: int = 0
    """Global memory that a block wants for itself, in bytes."""


def folder() -> Path:
    """Of the entries: see :func:`minigen.paths.cache_folder`."""
    return cache_folder() / "kernels"


def key_of(**facts: Any) -> str:
    """A file name for everything that a compilation depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def load(key: str) -> Binary | None:
    """The entry, or None where there is none or it is damaged (which a warning tells)."""
    path = folder() / key
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        warnings.warn(f"cannot read the kernel cache {path}: {error.strerror or error}", stacklevel=2)
        return None
    binary = decode(content)
    if binary is None:
        warnings.warn(f"{path} is damaged; the kernel is compiled again", stacklevel=2)
    return binary


def store(key: str, binary: Binary) -> None:
    """Keep the entry; where the folder cannot be written a warning tells so and the next process compiles again."""
    path = folder() / key
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, encode(binary))
    except OSError as error:
        warnings.warn(
            f"cannot write the kernel cache {path.parent}: {error.strerror or error}; set MINIGEN_CACHE to a folder "
            "that can be written, or kernels are compiled in every process",
            stacklevel=2,
        )


def encode(binary: Binary) -> bytes:
    """A magic line, the SHA-256 of what follows, a line of JSON, the code."""
    facts = {name: value for name, value in asdict(binary).items() if name != "code"}
    body = json.dumps(facts).encode() + b"\n" + binary.code
    return MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def decode(content: bytes) -> Binary | None:
    """What :func:`encode` was given, or None if a bit has changed or anything is missing."""
    magic, digest, body = content[: len(MAGIC)], content[len(MAGIC) : len(MAGIC) + 64], content[len(MAGIC) + 65 :]
    if magic != MAGIC or digest != hashlib.sha256(body).hexdigest().encode():
        return None
    facts, _, code = body.partition(b"\n")
    return Binary(code=code, **json.loads(facts))

"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

TEMPORARY = ".minigen-{}.tmp"
"""Names of files that are being written: short, so that the name that they will get may be as long as names can be."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` as :func:`replacing` does."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write: it has a temporary name, and takes the place of ``path`` once it is complete and on the disk.

    Whatever fails on the way (no permission, a full disk), an old file at ``path`` survives and nothing half-written
    is left. The new file has the mode of the old one. A symbolic link stays one, and the file that it leads to is
    replaced; a device, a FIFO or a socket is no file to replace, and is written to. Raises ``OSError``, which names
    ``path`` and not the temporary file.
    """
    try:
        target = Path(os.path.realpath(path))
        mode = _mode(target)
        if mode is not None and not stat.S_ISREG(mode):
            with open(target, "wb") as file:  # a folder raises IsADirectoryError
                yield file
        else:
            with _temporary(target, mode) as file:
                yield file
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _mode(path: Path) -> int | None:
    """Kind and permissions of what is at ``path``, None where there is nothing."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(mode):  # os.path.realpath follows all links but those that lead in a circle
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return mode


@contextmanager
def _temporary(path: Path, mode: int | None) -> Iterator[IO[bytes]]:
    temporary = path.with_name(TEMPORARY.format(secrets.token_hex(8)))
    # The system takes the umask off a new file's mode. To ask for the umask would be to set it, for all threads.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            with suppress(OSError):  # a file system without locks: remove_temporaries may take it for a leftover
                lock(handle)
            if mode is not None:
                os.chmod(temporary, stat.S_IMODE(mode))
            yield file
            file.flush()
            os.fsync(handle)
            if sys.platform != "win32":  # an open file cannot be renamed there
                os.replace(temporary, path)
        if sys.platform == "win32":
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left in ``folder``; not what is being written."""
    for path in folder.glob(TEMPORARY.format("*")):
        try:
            handle = os.open(path, os.O_RDWR)
        except OSError:  # gone already, or another user's
            continue
        try:
            lock(handle)
        except OSError:  # somebody is writing
            continue
        finally:
            os.close(handle)
        path.unlink(missing_ok=True)


def lock(handle: int) -> None:
    """Lock an open file until it is closed or the process ends. ``OSError`` where another has locked it, with errno
    EWOULDBLOCK or EACCES, or where files cannot be locked."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

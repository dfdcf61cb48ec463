"""Standard output and error that may be missing, closed or unread: no reason for a training to end."""

from __future__ import annotations

import os
import sys
from typing import Any


def is_terminal(stream: Any) -> bool:
    """Whether somebody watches: False also for None, a closed stream, and what does not know (a logger's stream)."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


class Tolerant:
    """A text stream of which it does not matter whether anybody reads it.

    What cannot be written (a closed pipe, a terminal that is gone, a full disk) is dropped, and all that comes after.
    Everything but writing is the stream's own.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._gone = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._attempt("write", text)
        return len(text)

    def flush(self) -> None:
        self._attempt("flush")

    def _attempt(self, method: str, *arguments: Any) -> None:
        if self._gone or not hasattr(self._stream, method):
            return
        try:
            getattr(self._stream, method)(*arguments)
        except OSError:
            self._gone = True
            if self._stream in (sys.__stdout__, sys.__stderr__):
                # What is still in its buffer goes nowhere, or the interpreter would complain at its end.
                _open_nowhere(self._stream.fileno())


def use_tolerant_streams() -> None:
    """Make this process's standard streams such, and let them write what their encoding lacks as an escape.

    A stream that was closed before the process began leads nowhere then. Its number, too: or the next file that is
    opened would get it, and with it whatever a library writes to standard error.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            _open_nowhere(number)
            stream = open(number, "r" if number == 0 else "w", closefd=False)  # noqa: SIM115 (for good)
        if number:
            if stream.errors == "strict":
                stream.reconfigure(errors="backslashreplace")
            stream = stream if isinstance(stream, Tolerant) else Tolerant(stream)
        setattr(sys, name, stream)


def _open_nowhere(number: int) -> None:
    handle = os.open(os.devnull, os.O_RDWR)
    if handle != number:
        os.dup2(handle, number)
        os.close(handle)

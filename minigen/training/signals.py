"""Signals that ask a training to end: Ctrl-C, a system that shuts down, a terminal that closes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class StopRequest:
    """Whether the training has been asked to end, and by which signal, ``number``."""

    number: int | None = None
    cancelled = False
    """Whether it was asked by something else, the failure of a training beside it."""

    def is_set(self) -> bool:
        return self.cancelled or self.number is not None


shared_request: ContextVar[StopRequest | None] = ContextVar("shared_request", default=None)
"""What :func:`stop_request` gives in this context: trainings at once end together."""


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """What a signal sets while the context lasts, so that a step is never cut in two.

    The first signal also puts back what was done before, so that a second Ctrl-C raises ``KeyboardInterrupt``. Taken
    are SIGINT where Python handles it, SIGTERM and SIGHUP where they would end the process at once, and what
    :func:`raise_interrupt` handles: never a signal that is ignored (``nohup``), or that others than Python handle.
    Only the main thread can do this; elsewhere nothing is taken. Where there is a :data:`shared_request`, that one is
    given.
    """
    shared = shared_request.get()
    request = shared or StopRequest()
    if shared or threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    taken = {number: handler for number, handler in before.items() if _may_be_taken(number, handler)}

    def restore() -> None:
        for number, handler in taken.items():
            signal.signal(number, handler)

    def handle(number: int, frame: Any) -> None:
        request.number = number
        restore()

    for number in taken:
        signal.signal(number, handle)
    try:
        yield request
    finally:
        restore()


def _may_be_taken(number: int, handler: Any) -> bool:
    if number == signal.SIGINT:
        return callable(handler)  # None: not from Python. SIG_DFL, SIG_IGN: somebody chose that, it is not Python's own
    return handler in (signal.SIG_DFL, raise_interrupt)


_last = StopRequest()


def raise_interrupt(number: int, frame: Any) -> None:
    """A handler for which each of these signals is what Ctrl-C is."""
    _last.number = number
    raise KeyboardInterrupt


@contextmanager
def as_interrupts() -> Iterator[StopRequest]:
    """Let SIGTERM and SIGHUP raise ``KeyboardInterrupt``, as Ctrl-C does, where they would end the process at once.

    Yields a request whose ``number`` is that of the signal, once one of the three has come.
    """
    _last.number = None
    before = {number: signal.getsignal(number) for number in STOPPING}
    usual = (signal.SIG_DFL, signal.default_int_handler)
    taken = {number: handler for number, handler in before.items() if handler in usual}
    try:
        for number in taken:
            signal.signal(number, raise_interrupt)
        yield _last
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)

"""How the command ends: exit codes, and an error told in one line."""

from __future__ import annotations

import os
import sys
import traceback

FAILED, BAD_USE = 1, 2
"""Exit codes: the machine would not (device, file system, divergence), bad usage or input."""


def code_of_signal(number: int) -> int:
    """As shells have it: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + number


def report(message: str, code: int) -> int:
    """Tell an error on stderr and return ``code``; called while the error is being handled."""
    if "--traceback" in sys.argv or os.environ.get("MINIGEN_TRACEBACK", "0") not in ("", "0"):
        traceback.print_exc()
    print(f"minigen: error: {' '.join(message.split())}", file=sys.stderr)
    return code

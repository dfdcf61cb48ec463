"""The command ``minigen``, ``python -m minigen``: what surrounds :mod:`minigen.cli`, which takes its time to load."""

from __future__ import annotations

import signal
import sys

from minigen.streams import use_tolerant_streams
from minigen.training.signals import as_interrupts


def main() -> None:
    """Entry point: run the command line and exit with its code."""
    use_tolerant_streams()
    with as_interrupts() as stop:
        try:
            from minigen import cli

            code = cli.run(sys.argv[1:])
        except KeyboardInterrupt:
            code = 128 + signal.SIGINT
    if stop.number is not None:
        print("minigen: error: interrupted", file=sys.stderr)
        code = 128 + stop.number
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left that a traceback could tell of
    sys.exit(code)


if __name__ == "__main__":
    main()

"""The command ``minigen``. Each command imports what it computes with, so that ``--help`` answers quickly.

:mod:`.application` is what the commands belong to; :mod:`.train`, :mod:`.use`, :mod:`.trace`, :mod:`.evaluate`,
:mod:`.scoring`, :mod:`.tables` and :mod:`.tools` hold them; :mod:`.options` has the options that several share, and
:mod:`.settings` makes options of hyper-parameters.
"""

from __future__ import annotations

import signal

import typer

from minigen.cli import evaluate, scoring, tables, tools, trace, train, use  # noqa: F401 (they register their commands)
from minigen.cli.application import app
from minigen.cli.exits import BAD_USE, FAILED, code_of_signal, report

__all__ = ["app", "run"]

UsageError = typer.BadParameter.__base__  # known under another name in each version of typer


def run(arguments: list[str]) -> int:
    """Run the command line, report errors in one line; the exit code."""
    if arguments in ([], ["train"], ["trace"]):
        arguments = [*arguments, "--help"]
    try:
        return app(args=arguments, prog_name="minigen", standalone_mode=False) or 0
    except typer.Abort:  # what typer makes of KeyboardInterrupt, if not an exit code
        return code_of_signal(signal.SIGINT)
    except UsageError as error:  # type: ignore[misc]
        return report(error.format_message(), BAD_USE)
    except (ValueError, TypeError) as error:
        return report(str(error), BAD_USE)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        return report(reason, FAILED)
    except (RuntimeError, ArithmeticError, MemoryError, ImportError) as error:  # device, download, divergence
        return report(str(error) or type(error).__name__, FAILED)

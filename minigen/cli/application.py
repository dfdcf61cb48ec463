"""The application that the commands belong to, and what makes a function one of its commands."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from minigen import __version__
from minigen.errors import ArgumentError, ArgumentTypeError


class Command(TyperCommand):
    """A command whose errors name its options, not the arguments of the Python API behind them."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ArgumentError, ArgumentTypeError) as error:
            option = self._option(error.argument)
            if option is not None:
                error.args = (option + str(error).removeprefix(error.argument),)
            raise

    def _option(self, argument: str) -> str | None:
        """How an argument is spelled here, such as ``--batch-size``; None if there is no such option."""
        name = "data" if argument == "X" else argument
        options = (parameter for parameter in self.params if isinstance(parameter, TyperOption))
        return next((option.opts[0] for option in options if option.name == name), None)


class _InOrderOfUse(TyperGroup):
    """Lists first the commands that come first in use."""

    def list_commands(self, ctx: Any) -> list[str]:
        first = ["train", "sample", "reconstruct", "evaluate", "info"]
        return first + [name for name in super().list_commands(ctx) if name not in first]


app = typer.Typer(cls=_InOrderOfUse, add_completion=False, pretty_exceptions_enable=False)
train_group = typer.Typer(help="Train a model, on digits or on your own data.")
app.add_typer(train_group, name="train")
trace_group = typer.Typer(help="Watch a training step: every operation, its formula and its numbers.")
app.add_typer(trace_group, name="trace")


Function = TypeVar("Function", bound=Callable[..., Any])


def command(group: typer.Typer, cls: type[Command] = Command) -> Callable[[Function], Function]:
    """Make a function a command of ``group``; its docstring is the help, each paragraph to be wrapped as a whole."""

    def register(function: Function) -> Function:
        help = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(function) or "")
        return group.command(help=help, cls=cls)(function)

    return register


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"minigen {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    show_traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error comes from; so does MINIGEN_TRACEBACK=1.")
    ] = False,
) -> None:
    """Train a GAN or a VAE with gradients derived by hand, and draw with it.

    Two commands to begin with, without any data or network:

      minigen train gan --preset quality

      minigen sample runs/gan --out grid.png
    """

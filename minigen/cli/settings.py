"""Options of ``minigen train`` for a model's hyper-parameters, made from its class.

Name, type and default come from the constructor's signature, the help from the docstring: the first sentence of the
parameter's paragraph. An argument that is added to the constructor thus becomes an option.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection
from typing import Annotated, Any

import typer

import minigen
from minigen.cli.options import MODEL, OPTIMIZER, RUN, number_or_word, option, words
from minigen.models.optimizer import OptimizerSettings

ABOUT_THE_RUN = ("batch_size", "epochs", "seed", "device", "precision")
OF_THE_OPTIMIZER = tuple(field.name for field in dataclasses.fields(OptimizerSettings))
METAVARS = {int: "INT", float: "FLOAT", str: "NAME", tuple[int, ...]: "SIZES"}
NOTATION = {"SIZES": " For example 256,512; none: no hidden layer.", "blocks": " For example 1,1,3."}
"""By what stands for the value in the help, or by name."""


def parameters(family: type) -> list[inspect.Parameter]:
    """The hyper-parameters of ``family`` as typer takes options; ``None`` stands for one that was not given."""
    given = inspect.signature(family).parameters
    hints = typing.get_type_hints(family.__init__)  # type: ignore[misc]
    paragraphs = documented(family)
    if missing := [name for name in given if name not in paragraphs]:
        raise TypeError(f"the docstring of {family.__name__} has no paragraph for {', '.join(missing)}")
    found = []
    for name, parameter in given.items():
        annotation = _option(name, hints[name], parameter.default, _help(paragraphs[name], given))
        found.append(inspect.Parameter(name, parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    return found


def parameters_of_all(families: dict[str, type]) -> list[inspect.Parameter]:
    """The hyper-parameters of several families, each once; where their defaults differ the help names each family's."""
    found: dict[str, inspect.Parameter] = {}
    given = {word: inspect.signature(family).parameters for word, family in families.items()}
    for word, family in families.items():
        for parameter in parameters(family):
            name = parameter.name
            defaults = {word: names[name].default for word, names in given.items() if name in names}
            if name in found:
                continue
            known = found[name] = parameter
            option = known.annotation.__metadata__[0]
            if len(defaults) < len(families):
                option.help += f" Of --model {word}."
            elif len({repr(value) for value in defaults.values()}) > 1:
                each = ", ".join(f"{_written(value)} ({one})" for one, value in defaults.items())
                option.help = f"{option.help.partition(' Default: ')[0]} Default: {each}."
    return list(found.values())


def documented(family: type) -> dict[str, str]:
    """What the docstrings of ``family`` and of its bases say of each parameter, as one line in their markup."""
    found: dict[str, str] = {}
    for cls in reversed(family.__mro__):
        _, *sections = re.split(r"^(\w+)\n-+\n", inspect.cleandoc(cls.__doc__ or ""), flags=re.M)
        section = dict(zip(sections[::2], sections[1::2], strict=True)).get("Parameters", "")
        for names, text in re.findall(r"^(\w+(?:, \w+)*) : (.*(?:\n +.*)*)", section, re.M):
            found.update(dict.fromkeys(names.split(", "), " ".join(text.split())))
    return found


def _option(name: str, hint: Any, default: Any, help: str) -> Any:
    metavar, parser = _reading(name, hint, default)
    if parser is not None and "yes" in metavar:
        help = help.replace("True", "yes").replace("False", "no")
    help += NOTATION.get(name, NOTATION.get(metavar, ""))
    if default is not None:
        help += f" Default: {_written(default)}."
    elif help != (without := re.sub(r",? or None\b", "", help)):
        help = f"{without} Default: none."
    return Annotated[Any, option(_panel(name), metavar, help, parser=parser)]


def _panel(name: str) -> str:
    if name in ABOUT_THE_RUN:
        return RUN
    return OPTIMIZER if name in OF_THE_OPTIMIZER else MODEL


def _reading(name: str, hint: Any, default: Any) -> tuple[str, Callable[[str], Any] | None]:
    """What stands for the value in the help, and what reads it, if not the parser that goes with this word."""
    kinds = set(typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else [hint])
    kinds -= {types.NoneType}
    if kinds in ({bool}, {str, bool}):
        values = {**({default: default} if isinstance(default, str) else {}), "yes": True, "no": False}
        return "|".join(values), words(values)
    if kinds == {float, str}:
        return "FLOAT|NAME", number_or_word
    if kinds == {float, tuple[float, float]}:
        return "FLOAT|FLOAT,FLOAT", None
    if len(kinds) == 1 and (metavar := METAVARS.get(*kinds)):
        return metavar, str if metavar == "NAME" else None
    raise TypeError(f"no option can be made of the hyper-parameter {name}: {hint}")


def _written(value: Any) -> str:
    """A value as it is given on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, float):
        return re.sub(r"\.0$|(?<=e-)0", "", repr(value))
    return str(value)


def _help(paragraph: str, parameters: Collection[str]) -> str:
    """The first sentence of a paragraph without its markup; parameters become options, ``minigen.X`` its values."""

    def plain(match: re.Match[str]) -> str:
        word = match[1].removeprefix("~")
        if word == "y":
            return "--labels"
        if word in parameters:
            return "--" + word.replace("_", "-")
        if word.startswith("("):
            return word[1:-1].replace(", ", ",")
        values = getattr(minigen, word.removeprefix("minigen."), None)
        return ", ".join(values) if isinstance(values, tuple) else word.strip('"')

    sentence = re.split(r"(?<!et al)\.\s", paragraph)[0].removesuffix(".")
    text = re.sub(r"(?::\w+:)?`+([^`]+)`+", plain, sentence)
    return (text if sentence.startswith("`") else text[0].upper() + text[1:]) + "."


def command_of(family: type, options: type, act: Callable[[type, Any, dict[str, Any]], None]) -> Any:
    """A command with an option for each field of the dataclass ``options`` and each hyper-parameter of ``family``.

    It calls ``act(family, options(...), settings)``, where ``settings`` are the hyper-parameters that were given.
    """
    hints = typing.get_type_hints(options, include_extras=True)
    own = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in dataclasses.fields(options)
    ]
    every = own + parameters(family)

    def run(**values: Any) -> None:
        chosen = options(**{parameter.name: values.pop(parameter.name) for parameter in own})
        act(family, chosen, {name: value for name, value in values.items() if value is not None})

    run.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
    vars(run)["__signature__"] = inspect.Signature(every)
    alone = typer.Typer(add_completion=False)
    alone.command()(run)
    return typer.main.get_command(alone)

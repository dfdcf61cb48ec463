"""The options of ``minigen train`` that are made from the estimators' signatures and docstrings."""

from __future__ import annotations

import inspect
import re
import typing

import pytest
import typer

import minigen
from minigen import cli
from minigen.cli import settings, training
from minigen.cli.train import training_of

FAMILIES = (minigen.GAN, minigen.VAE)


class Model:
    """A model.

    It has settings (Someone et al. 2014). These are some:

    Parameters
    ----------
    rows_a_step : how many rows, one of ``minigen.ACTIVATIONS`` or ``"none"`` (Someone et al. 2014). More of it:
        not in the help.
    dropout, rate : share of the outputs that are dropped, over
        two lines; ``rows_a_step`` has no influence
    sizes : ``"few"`` or :func:`minigen.many`
    blocks : widths of them, or ``None``
    learning_rate : of it, such as ``(1, 2)``
    epochs : of it
    deep : whether ``y`` is: True where it is, False elsewhere

    Notes
    -----
    epsilon : no parameter
    """

    def __init__(
        self,
        *,
        rows_a_step: int = 3,
        dropout: float | None = None,
        rate: float = 1e-05,
        sizes: tuple[int, ...] = (),
        blocks: tuple[int, ...] | None = None,
        learning_rate: float = 2.0,
        epochs: typing.Optional[str] = "many",  # noqa: UP007, UP045 (an older spelling of the same)
        deep: bool = False,
    ) -> None: ...


def given(command: typing.Any, *arguments: str) -> dict[str, typing.Any]:
    """The values of all options when ``arguments`` are given; nothing is run."""
    return command.make_context("minigen", list(arguments)).params


def options(command: typing.Any) -> dict[str, typing.Any]:
    return {option.name: option for option in command.get_params(command.make_context("minigen", []))}


def trains(kind: str) -> typing.Any:
    return typer.main.get_command(cli.app).commands["train"].commands[kind]


def test_a_constructors_arguments_are_options():
    made = options(training_of(Model))
    activations = ", ".join(minigen.ACTIVATIONS)
    assert {name: (made[name].metavar, made[name].help) for name in inspect.signature(Model).parameters} == {
        "rows_a_step": ("INT", f"How many rows, one of {activations} or none (Someone et al. 2014). Default: 3."),
        "dropout": ("FLOAT", "Share of the outputs that are dropped, over two lines; --rows-a-step has no influence."),
        "rate": (
            "FLOAT",
            "Share of the outputs that are dropped, over two lines; --rows-a-step has no influence. Default: 1e-5.",
        ),
        "sizes": ("SIZES", "few or minigen.many. For example 256,512; none: no hidden layer. Default: none."),
        "blocks": ("SIZES", "Widths of them. For example 1,1,3. Default: none."),
        "learning_rate": ("FLOAT", "Of it, such as 1,2. Default: 2."),
        "epochs": ("NAME", "Of it. Default: many."),
        "deep": ("yes|no", "Whether --labels is: yes where it is, no elsewhere. Default: no."),
    }
    panels = {name: made[name].rich_help_panel for name in ("epochs", "learning_rate", "deep")}
    assert panels == {"epochs": "Run", "learning_rate": "Optimizer", "deep": "Model"}


def test_options_are_read_by_the_type_of_the_argument():
    words = "--rows-a-step 4 --dropout 0.5 --sizes 3,2 --epochs 7 --deep yes --learning-rate 1e-3 --out there".split()
    values = given(training_of(Model), *words)
    expected = {"rows_a_step": 4, "dropout": 0.5, "sizes": (3, 2), "epochs": "7", "deep": True, "learning_rate": 1e-3}
    assert {name: values[name] for name in expected} == expected
    assert type(values["rows_a_step"]) is int
    assert values["rate"] is None, "not given"


def test_an_argument_added_to_a_model_reaches_it(monkeypatch):
    class Wider(minigen.GAN):
        """Parameters
        ----------
        extra : something new
        """

        def __init__(self, *, extra: float = 0.5, hidden: tuple[int, ...] = (3,)) -> None:
            super().__init__(hidden=hidden)
            self.extra = extra

    made = []
    monkeypatch.setattr(minigen, "GAN", Wider)
    monkeypatch.setattr(training, "train", lambda family, options, settings: made.append(family(**settings)))
    assert cli.run(["train", "gan", "--extra", "0.25"]) == 0
    assert [(type(model), model.get_params()) for model in made] == [(Wider, {"extra": 0.25, "hidden": (3,)})]


def test_a_type_without_a_spelling_is_named():
    class Odd:
        """Parameters
        ----------
        layers : of it
        """

        def __init__(self, layers: dict[str, int]) -> None: ...

    with pytest.raises(TypeError, match=r"of the hyper-parameter layers: dict\[str, int\]"):
        settings.parameters(Odd)


def test_an_argument_without_a_paragraph_is_named():
    class Silent(Model):
        def __init__(self, rate: float = 0.5, depth: int = 1) -> None: ...

    with pytest.raises(TypeError, match="the docstring of Silent has no paragraph for depth$"):
        settings.parameters(Silent)


def test_paragraphs_come_from_base_classes_too():
    class Derived(Model):
        """Parameters
        ----------
        deep : in its own words
        """

    told = settings.documented(Derived)
    assert told["deep"] == "in its own words" and told["epochs"] == "of it"
    assert "epsilon" not in settings.documented(Model)


@pytest.mark.parametrize("family", FAMILIES)
def test_help_tells_the_true_defaults(family):
    defaults = family.preset("article").get_params()
    command = trains(family.kind)
    made = options(command)
    assert set(defaults) <= set(made), "every hyper-parameter has its option"
    for name in (name for name, default in defaults.items() if default is not None):
        told = re.search(r" Default: (\S+)\.$", made[name].help)[1]
        assert given(command, made[name].opts[0], told)[name] == defaults[name], name


@pytest.mark.parametrize("family", FAMILIES)
def test_help_tells_the_allowed_values(family):
    """Those that the error for another one lists."""
    made = options(trains(family.kind))
    names = [name for name, value in family().get_params().items() if isinstance(value, str)]
    assert len(names) >= 6
    for name in names:
        with pytest.raises(ValueError, match=f"^{name} must be one of ") as caught:
            family(**{"device": "numpy", name: "else"}).fit([[0.5, 1], [0, 1]])
        allowed = re.findall(r"'(\w+)'", re.split(" on device | not ", str(caught.value))[0])
        assert "auto" in allowed or len(allowed) >= 2
        assert [word for word in allowed if not re.search(rf"\b{word}\b", made[name].help)] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_help_has_no_markup(family):
    made = options(trains(family.kind))
    helps = [made[name].help for name in family().get_params()]
    assert [help for help in helps if re.search(r"[`\"]|:\w+:|  |\.\.", help)] == []


@pytest.mark.parametrize("kind", ["gan", "vae"])
def test_standardize_is_an_option(kind):
    command = trains(kind)
    assert [given(command, "--standardize", word)["standardize"] for word in ("auto", "yes", "no")] == [
        "auto",
        True,
        False,
    ]
    with pytest.raises(typer.BadParameter, match="'maybe' is none of auto, yes and no"):
        given(command, "--standardize", "maybe")

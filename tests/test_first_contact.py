"""What a newcomer meets first: the examples of help, README and docstrings, and the hint at what draws well."""

from __future__ import annotations

import inspect
import io
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

import minigen
from minigen import cli
from minigen.cli import application, tools, train, use
from minigen.training import progress
from models import blobs

README = Path(minigen.__file__).parents[1] / "README.md"
GOOD = "minigen train gan --preset quality"
COMMANDS = (application, train, use, tools)


def examples() -> list[str]:
    """Every command line that the help of a command or the README shows."""
    functions = [value for module in COMMANDS for value in vars(module).values() if inspect.isfunction(value)]
    text = "\n".join(inspect.getdoc(function) or "" for function in functions)
    if README.exists():
        text += "\n" + "\n".join(re.findall(r"`(minigen [^`]+)`", README.read_text()))
    return sorted(set(re.findall(r"^ *(minigen .+)$", text, re.M)))


@pytest.mark.parametrize("line", examples())
def test_examples_are_commands_with_options_that_exist(line):
    command = typer.main.get_command(cli.app)
    arguments = shlex.split(line)[1:]
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    command.make_context("minigen", arguments)  # parses, and runs nothing


def test_what_draws_readable_digits_comes_first():
    for function, command in [(application.root, GOOD), (train.gan, GOOD), (train.vae, GOOD.replace("gan", "vae"))]:
        first = re.search(r"^ *(minigen .+)$", inspect.getdoc(function), re.M)
        assert first[1] == command, function
    for documented in (minigen, minigen.GAN, minigen.train_gan, minigen.VAE, minigen.train_vae):
        assert re.search(r"^ *>>> model = .*quality", documented.__doc__, re.M), documented
    if README.exists():
        assert re.search(r"^pip install .* && (.*)$", README.read_text(), re.M)[1] == GOOD


# --- the hint -------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def trained_on_a_terminal(monkeypatch, times: int, data: np.ndarray, **settings) -> str:
    """What is written to the terminal while models are trained."""
    monkeypatch.setattr(progress, "_hinted", set())
    monkeypatch.setattr(sys, "stderr", Terminal())
    for _ in range(times):
        minigen.train_gan(data, epochs=1, batch_size=32, latent_dim=2, **settings)
    return sys.stderr.getvalue()


PICTURES = blobs(64, 36).reshape(-1, 6, 6)


def test_python_hints_once_where_a_bar_is_shown(monkeypatch):
    written = trained_on_a_terminal(monkeypatch, 2, PICTURES)
    assert "epoch 1/1: 100%" in written and written.count("hint: GAN.preset('quality') draws clearer pictures") == 1


@pytest.mark.parametrize(
    "data, settings",
    [
        (PICTURES, {"progress": False}),
        (PICTURES, {"hidden": (8,)}),
        (PICTURES, {"preset": "quality", "hidden": (8, 8)}),
        (PICTURES.reshape(64, 36), {}),
    ],
)
def test_no_hint_where_it_would_not_help(monkeypatch, data, settings):
    assert "hint" not in trained_on_a_terminal(monkeypatch, 1, data, **settings)


def test_no_hint_where_nobody_looks(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_hinted", set())
    minigen.train_gan(PICTURES, epochs=1, batch_size=32, latent_dim=2)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "options, hinted",
    [([], True), (["--preset", "article"], False), (["--hidden", "12"], False), (["--data", "table.npy"], False)],
)
def test_the_command_hints_at_the_preset(tmp_path, monkeypatch, capsys, options, hinted):
    monkeypatch.chdir(tmp_path)
    np.save("pictures.npy", PICTURES)
    np.save("table.npy", np.random.default_rng(0).normal(size=(64, 5)))
    arguments = ["train", "gan", "--data", "pictures.npy", "--batch-size", "32", "--epochs", "0", *options]
    cli.app(args=arguments, prog_name="minigen", standalone_mode=False)
    assert ("hint: --preset quality draws clearer pictures" in capsys.readouterr().out) == hinted

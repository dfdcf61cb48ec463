"""The exercises: what is not written yet is said, usual mistakes are recognised, and the solutions pass."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER, SOLUTIONS = ROOT / "examples" / "exercises", Path(__file__).with_name("solutions")


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_of_exercises", FOLDER / "check.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PLAIN = ["wgrad", "tanh", "discriminator", "saturation", "through", "kl", "dlogvar"]


def test_every_exercise_has_its_files(check: ModuleType) -> None:
    assert list(check.EXERCISES) == [*PLAIN, "dense_triton"]
    for folder in (FOLDER, SOLUTIONS):
        assert {path.stem for path in folder.glob("*.py")} - {"check"} == set(check.EXERCISES)
    text = (FOLDER / "README.md").read_text()
    assert all(f"[`{name}.py`]({name}.py)" in text for name in check.EXERCISES)


@pytest.mark.parametrize("name", PLAIN)
def test_a_stub_says_what_to_do_and_a_solution_passes(check: ModuleType, name: str, seed: int) -> None:
    state, words = check.verdict(FOLDER, name, seed)
    assert state == "to do" and f"{name}.py" in words
    assert check.verdict(SOLUTIONS, name, seed)[0] == "right"


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def naive_loss(real: np.ndarray, fake: np.ndarray) -> Any:
    loss = -np.log(sigmoid(real)).mean() - np.log(1 - sigmoid(fake)).mean()
    return loss, (sigmoid(real) - 1) / len(real), sigmoid(fake) / len(fake)


def with_swapped_halves(real: np.ndarray, fake: np.ndarray) -> Any:
    return np.logaddexp(0, real).mean() + np.logaddexp(0, -fake).mean(), real, fake


def kl_of_the_article(mu: np.ndarray, logvar: np.ndarray) -> Any:
    return 0.5 * (1 + logvar - mu**2 - np.exp(logvar)).sum(axis=1)


def without_the_relu(g: np.ndarray, V1: np.ndarray, c1: np.ndarray, V2: np.ndarray, c2: np.ndarray) -> Any:
    s = np.maximum(g @ V1 + c1, 0) @ V2 + c2
    return -sigmoid(-s) / len(g) @ V2.T @ V1.T * (1 - g**2)


def mean_of_rows(dz: np.ndarray, eps: np.ndarray, mu: np.ndarray, logvar: np.ndarray) -> Any:
    return dz + mu / len(mu), dz * eps * np.exp(logvar / 2) + (np.exp(logvar) - 1) / 2 / len(mu)


MISTAKES: list[tuple[str, str, Callable[..., Any], str]] = [
    ("wgrad", "wgrad", lambda x, dz: (x.T @ dz / len(x), dz.mean(axis=0)), "divided by the number of rows"),
    ("wgrad", "wgrad", lambda x, dz: (dz.T @ x, dz.sum(axis=0)), "its transpose"),
    ("wgrad", "wgrad", lambda x, dz: x.T @ dz, "must return two arrays"),
    ("tanh", "tanh_backward", lambda dy, y: dy * (1 - np.tanh(y) ** 2), "takes y for z"),
    ("tanh", "tanh_backward", lambda dy, y: None, "does the function return it"),
    ("tanh", "tanh_backward", lambda dy, y: dy * np.inf, "inf in it"),
    ("tanh", "tanh_backward", lambda dy, y: dy @ y, "ends in ValueError"),
    ("discriminator", "discriminator_loss", naive_loss, "logits of any size"),
    ("discriminator", "discriminator_loss", with_swapped_halves, "swapped"),
    ("saturation", "generator_gradients", lambda s: ((sigmoid(s) - 1) / len(s), sigmoid(s)), "swapped"),
    ("through", "gradient_through_discriminator", without_the_relu, "relu is missing"),
    ("kl", "kl", kl_of_the_article, "no divergence is below 0"),
    ("dlogvar", "latent_gradients", mean_of_rows, "dsigma/dlogvar is sigma / 2"),
    ("dlogvar", "latent_gradients", lambda dz, eps, mu, logvar: (dz, mu), "has one too"),
]


@pytest.mark.parametrize(("name", "function", "answer", "hint"), MISTAKES, ids=[f"{m[0]}-{m[3]}" for m in MISTAKES])
def test_a_mistake_is_recognised(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str, function: str, answer: Any, hint: str, seed: int
) -> None:
    monkeypatch.setattr(check, "load", lambda folder, name: SimpleNamespace(**{function: answer}))
    state, words = check.verdict(FOLDER, name, seed)
    assert state == "wrong" and hint in words


def asked(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, str(FOLDER / "check.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_the_command_names_what_there_is() -> None:
    done = asked("kl", "nothing")
    assert done.returncode == 2 and "there is no exercise 'nothing'" in done.stderr


@pytest.mark.slow
def test_the_commands_verdict() -> None:
    pytest.importorskip("triton")
    pytest.importorskip("torch")
    todo, done = asked(), asked("--folder", str(SOLUTIONS))
    assert todo.returncode == 1 and todo.stdout.count(" to do ") == 8 and "0 of 8 are right" in todo.stdout
    assert done.returncode == 0 and "8 of 8 are right" in done.stdout, done.stdout

"""What ends a training: signals, each as Ctrl-C does, and only where the process has not decided otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_cli import TRAIN_GAN, digits

import minigen
from minigen.run_folder import MODEL
from minigen.training import signals
from models import blobs

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
SMALL = {"hidden": (8,), "latent_dim": 3, "batch_size": 32, "progress": False}


@pytest.fixture(autouse=True)
def usual_handlers():
    """Python's own, whatever the tests' process was started with (a shell's background job ignores SIGINT)."""
    before = {number: signal.getsignal(number) for number in signals.STOPPING}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def trained(number: int, epochs: int = 6) -> minigen.GAN:
    """A GAN whose training gets a signal at the end of the second."""

    def send(end):
        if end.epoch == 2:
            signal.raise_signal(number)

    return minigen.train_gan(blobs(), epochs=epochs, callbacks=[send], **SMALL)


@pytest.mark.parametrize("number", signals.STOPPING, ids=lambda number: number.name)
def test_each_ends_a_training_after_the_step(number):
    before = {each: signal.getsignal(each) for each in signals.STOPPING}
    model = trained(number)
    assert (model.history_.stop_reason, model.history_.stop_signal) == ("interrupted", number)
    assert model.history_.epochs == 2 and model.sample(1).shape == (1, 12)
    assert {each: signal.getsignal(each) for each in signals.STOPPING} == before
    model.partial_fit(blobs(), epochs=1)
    assert (model.history_.stop_reason, model.history_.stop_signal) == ("finished", None)


def test_what_is_ignored_stays_ignored():
    for number in signals.STOPPING:
        signal.signal(number, signal.SIG_IGN)
        assert trained(number).history_.epochs == 6


def test_a_handler_of_the_users_for_sigterm_stays():
    heard = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    assert trained(signal.SIGTERM).history_.epochs == 6 and heard == [signal.SIGTERM]


def test_a_handler_that_python_did_not_set_stays(monkeypatch):
    """Of an embedding program: Python knows only that there is one, and could not put it back."""
    known = signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGINT else known(number))
    put = []
    monkeypatch.setattr(signal, "signal", lambda number, handler, put_=signal.signal: put.append(number))
    with signals.stop_request(), signals.as_interrupts():
        pass
    assert signal.SIGINT not in put and signal.SIGTERM in put


def test_handlers_come_back_after_an_error():
    def fail(end):
        raise ZeroDivisionError

    before = {each: signal.getsignal(each) for each in signals.STOPPING}
    with pytest.raises(ZeroDivisionError):
        minigen.train_gan(blobs(), epochs=1, callbacks=[fail], **SMALL)
    assert {each: signal.getsignal(each) for each in signals.STOPPING} == before


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path):
    np.save(tmp_path / "digits.npy", digits())
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_the_command_saves_everything_and_exits_with_the_signals_code(here, number):
    command = [sys.executable, "-m", "minigen", *TRAIN_GAN, "--epochs", "1000000", "--sample-every", "5"]
    with subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 10/"):
                break
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err
    epochs = minigen.load(here / "runs" / "gan" / MODEL).history_.epochs
    assert epochs >= 10 and err.startswith(f"minigen: interrupted: {epochs} of 1000000 epochs are done and saved;")
    assert {"samples.png", "history.csv"} <= set(os.listdir(here / "runs" / "gan"))


def interrupting(folder: Path, module: str, number: int) -> dict[str, str]:
    """An environment in which the import of ``module`` is when a signal comes."""
    (folder / "first").mkdir()
    (folder / "first" / f"{module}.py").write_text(
        f"import signal\nsignal.raise_signal({int(number)})\nraise ImportError('not here')\n"
    )
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "first"), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize("module", ["typer", "safetensors"])  # while the command is loaded; before the training
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_before_the_training_a_signal_is_one_line(here, module, number):
    command = [sys.executable, "-m", "minigen", *TRAIN_GAN, "--out", "o"]
    (here / "o").mkdir()
    (here / "o" / MODEL).write_bytes(b"has to be looked at")
    done = subprocess.run(command, cwd=here, env=interrupting(here, module, number), capture_output=True, text=True)
    assert done.returncode == 128 + number
    assert done.stderr.strip() == "minigen: error: interrupted"


def test_after_the_training_everything_is_saved_first(here):
    command = [sys.executable, "-m", "minigen", *TRAIN_GAN, "--epochs", "1", "--out", "o", "--device", "numpy"]
    env = interrupting(here, "matplotlib", signal.SIGTERM)
    done = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True)
    assert done.returncode == 143 and "Traceback" not in done.stderr
    assert done.stderr.startswith("minigen: interrupted: 1 of 1 epochs are done and saved;")
    assert {"samples.png", "history.csv", MODEL} <= set(os.listdir(here / "o"))

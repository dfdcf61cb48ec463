"""Nobody has to watch a training: without a terminal, with closed streams and pipes it goes on and saves its model."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from test_cli import TRAIN_GAN, digits

import minigen
from minigen.run_folder import MODEL
from minigen.streams import Tolerant, is_terminal
from models import blobs

SMALL = {"hidden": (8,), "latent_dim": 3, "batch_size": 32, "epochs": 2}


class Logger:
    """What replaces sys.stderr in some services: it can be written to, and no more."""

    def write(self, text):
        pass


CLOSED = io.StringIO()
CLOSED.close()


@pytest.mark.parametrize("progress", [None, True])
@pytest.mark.parametrize("stream", [None, Logger(), CLOSED], ids=["none", "without isatty", "closed"])
def test_training_without_a_standard_error(stream, progress, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    if progress and stream is CLOSED:
        pytest.skip("to ask for a bar in a closed stream is an error like any other")
    assert minigen.train_gan(blobs(), progress=progress, **SMALL).history_.epochs == 2


def test_who_is_a_terminal(monkeypatch):
    assert not any(map(is_terminal, (None, Logger(), CLOSED, io.StringIO())))
    watched = io.StringIO()
    watched.isatty = lambda: True  # type: ignore[method-assign]
    assert is_terminal(watched) and is_terminal(Tolerant(watched))


def test_a_stream_that_breaks_is_given_up():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as file:
        stream = Tolerant(file)
        for _ in range(3):
            stream.write("nobody reads this\n" * 10_000)
            stream.flush()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell's redirections")
@pytest.mark.parametrize(
    "redirection", ["2>&-", ">&-", "<&- >&- 2>&-", "| head -1", "2>&1 | head -1", "> /dev/full 2>&1"]
)
def test_the_command_goes_on(tmp_path, redirection):
    np.save(tmp_path / "digits.npy", digits())
    arguments = [*TRAIN_GAN, "--epochs", "3", "--device", "numpy", "--out", "o"]
    script = f"{sys.executable} -m minigen {' '.join(arguments)} {redirection}"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done
    assert minigen.load(tmp_path / "o" / MODEL).history_.epochs == 3
    if "head" in redirection:
        assert done.stdout == "digits.npy: 64 x 8 x 8, uint8\n"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a POSIX locale")
@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}],
    ids=["ascii names", "ascii output"],
)
def test_names_that_the_locale_cannot_write(tmp_path, environment):
    np.save(tmp_path / "dätä.npy", digits())
    arguments = ["train", "gan", "--data", "dätä.npy", *TRAIN_GAN[4:], "--epochs", "1", "--device", "numpy"]
    command = [sys.executable, "-m", "minigen", *arguments, "--out", "rüns"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **environment}, capture_output=True)
    assert done.returncode == 0 and done.stderr == b"", done
    assert minigen.load(tmp_path / "rüns" / MODEL).history_.epochs == 1

"""The folder of a training: one training has it at a time, and no file of the user's is lost in it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from test_cli import TRAIN_GAN, TRAIN_VAE, digits, snapshot

import minigen
from minigen import cli
from minigen.run_folder import LOCK, MODEL

ENDLESS = [sys.executable, "-m", "minigen", *TRAIN_GAN, "--epochs", "1000000", "--sample-every", "1000000"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    np.save(tmp_path / "digits.npy", digits())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def succeeds(here):
    def run(*arguments: str) -> None:
        assert cli.run([*arguments, "--quiet"]) == 0

    return run


@pytest.fixture
def fails(here, capsys):
    """The error of a command that must change nothing."""

    def run(*arguments: str) -> str:
        before = snapshot(here)
        assert cli.run(list(arguments)) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("minigen: error: ") and snapshot(here) == before
        return str(err)

    return run


@pytest.fixture
def start(here):
    """A function that starts a training, which goes on until it is killed, at the latest after the test."""
    processes = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen([*arguments], cwd=here, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield run
    for process in processes:
        kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def wait_for_its_folder(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("digits.npy: "), line


@pytest.mark.slow
def test_two_trainings_at_once_get_two_folders(here, start):
    for process in [start(*ENDLESS), start(*ENDLESS)]:
        wait_for_its_folder(process)
    assert sorted(path.name for path in (here / "runs").iterdir()) == ["gan", "gan-2"]


@pytest.mark.slow
def test_a_folder_named_twice_is_an_error_for_the_second(here, start, succeeds, fails):
    first = start(*ENDLESS, "--out", "o")
    wait_for_its_folder(first)
    for force in ([], ["--force"]):
        assert "another training is writing into o" in fails(*TRAIN_GAN, "--out", "o", *force)
    kill(first)
    assert os.listdir(here / "o") == [LOCK]  # the folder is free again, without a word
    (here / "o" / ".minigen-0123456789abcdef.tmp").write_bytes(b"left by a kill while it was writing")
    succeeds(*TRAIN_GAN, "--epochs", "1", "--out", "o")
    assert {MODEL, "history.csv"} <= set(os.listdir(here / "o"))
    assert not [name for name in os.listdir(here / "o") if name.startswith(".")]


@pytest.mark.slow
def test_a_training_that_goes_on_has_its_folder_alone(start, succeeds, fails):
    succeeds(*TRAIN_GAN, "--epochs", "1", "--out", "o")
    first = start(*ENDLESS[:5], "--resume", "o", "--epochs", "1000000", "--sample-every", "0")
    wait_for_its_folder(first)
    again = ["train", "gan", "--resume", "o", "--epochs", "1"]
    assert "another training is writing into o" in fails(*again)
    kill(first)
    succeeds(*again)


def test_force_replaces_only_a_folder_with_a_model_of_ours(here, succeeds, fails):
    (here / "mine").mkdir()
    for name, content in [("samples.npy", b"my data"), (MODEL, b"my model"), ("history.csv", b"mine")]:
        (here / "mine" / name).write_bytes(content)
        for force in ([], ["--force"]):
            message = fails(*TRAIN_GAN, "--epochs", "1", "--out", "mine", *force)
            assert "would be replaced" in message and "mine" in message
        (here / "mine" / name).unlink()
    (here / "mine" / "notes.txt").write_text("mine")
    succeeds(*TRAIN_GAN, "--epochs", "1", "--out", "mine")
    succeeds(*TRAIN_GAN, "--epochs", "1", "--out", "mine", "--force")
    assert (here / "mine" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("how", ["in the folder", "through a link", "in an archive"])
@pytest.mark.parametrize("force", [False, True])
def test_the_data_are_never_removed_or_replaced(here, succeeds, fails, how, force):
    succeeds(*TRAIN_GAN, "--epochs", "1", "--out", "o")
    data = {"in the folder": "o/samples.npy", "through a link": "digits.npy", "in an archive": "o/samples.npz:x"}[how]
    if how == "in an archive":
        np.savez(here / "o" / "samples.npz", x=digits())
    elif how == "in the folder":
        np.save(here / "o" / "samples.npy", digits())
    else:
        (here / "o" / "samples.npy").symlink_to("../digits.npy")
    way = ["--out", "o", "--force"] if force else ["--resume", "o"]
    settings = TRAIN_GAN[4:] if force else []
    message = fails("train", "gan", "--data", data, *settings, "--epochs", "1", *way)
    assert "would replace the data" in message


def test_the_current_folder_may_hold_the_data(here, succeeds, fails):
    succeeds(*TRAIN_GAN, "--epochs", "1", "--out", ".")
    succeeds(*TRAIN_GAN, "--epochs", "1", "--out", ".", "--force")
    np.testing.assert_array_equal(np.load(here / "digits.npy"), digits())
    # samples.npy, as in the report of this fault: named as a training's own file, and the data.
    os.replace(here / "digits.npy", here / "samples.npy")
    before = snapshot(here)
    message = fails("train", "gan", "--data", "samples.npy", *TRAIN_GAN[4:], "--out", ".", "--force")
    assert "would replace the data" in message and snapshot(here) == before


def test_reconstructions_do_not_replace_the_data(here, succeeds, fails):
    succeeds(*TRAIN_VAE, "--epochs", "1", "--out", "v")
    assert "would replace the data" in fails("reconstruct", "v", "--out", "digits.npy")
    np.testing.assert_array_equal(np.load(here / "digits.npy"), digits())


def test_a_data_set_may_be_called_as_its_folder(here, succeeds):
    (here / "mnist-sample").mkdir()
    succeeds("train", "vae", "--data", "mnist-sample", "--out", "mnist-sample", "--epochs", "0")
    assert minigen.load(here / "mnist-sample" / MODEL).source_ == "mnist-sample"

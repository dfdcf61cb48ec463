"""Writing files: whole or not at all, with the mode, through the links and into the devices that are there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

import minigen
from minigen import files, plotting
from models import blobs

posix = pytest.mark.skipif(os.name != "posix", reason="modes, links and FIFOs as POSIX has them")


@pytest.fixture(scope="module")
def model():
    return minigen.train_vae(blobs(64), hidden=(4,), latent_dim=2, batch_size=32, epochs=1, progress=False)


@pytest.fixture(params=["bytes", "model", "history", "png", "idx"])
def write(request, model):
    """Everything that writes a file for a user, one at a time."""
    picture = np.zeros((4, 4), np.uint8)
    return {
        "bytes": lambda path: files.write_atomically(path, b"content"),
        "model": model.save,
        "history": model.history_.to_csv,
        "png": lambda path: plotting.save_png(picture, path),
        "idx": lambda path: minigen.datasets.write_idx(path, picture),
    }[request.param]


@posix
def test_a_new_file_has_the_mode_that_the_umask_leaves(write, tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


@posix
def test_the_umask_is_never_touched(write, tmp_path, monkeypatch):
    """It is the whole process's: another thread could make a file for everybody meanwhile."""
    monkeypatch.setattr(os, "umask", None)
    write(tmp_path / "new")


@posix
def test_an_existing_file_keeps_its_mode(write, tmp_path):
    path = tmp_path / "old"
    path.write_bytes(b"old")
    path.chmod(0o604)
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604 and path.read_bytes() != b"old"


@posix
def test_links_are_followed(write, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "target").write_bytes(b"old")
    (tmp_path / "second").symlink_to("store/target")
    (tmp_path / "first").symlink_to("second")
    write(tmp_path / "first")
    assert (tmp_path / "first").is_symlink() and (tmp_path / "second").is_symlink()
    assert (tmp_path / "store" / "target").read_bytes() != b"old"
    (tmp_path / "dangling").symlink_to("store/new")
    write(tmp_path / "dangling")
    assert (tmp_path / "dangling").is_symlink() and (tmp_path / "store" / "new").is_file()
    assert len(list((tmp_path / "store").iterdir())) == 2  # no temporary file


@posix
def test_links_in_a_circle_are_an_error(write, tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError) as caught:
        write(tmp_path / "a")
    assert caught.value.filename == str(tmp_path / "a") and (tmp_path / "a").is_symlink()


@posix
def test_a_fifo_and_a_device_are_written_to_and_not_replaced(write, tmp_path):
    write(tmp_path / "plain")
    os.mkfifo(tmp_path / "fifo")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "fifo").read_bytes()))
    reader.start()
    write(tmp_path / "fifo")
    reader.join(timeout=30)
    assert len(read[0]) == (tmp_path / "plain").stat().st_size and stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    (tmp_path / "null").symlink_to(os.devnull)
    write(tmp_path / "null")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_names_may_be_as_long_as_the_system_allows(write, tmp_path):
    write(tmp_path / ("n" * 255))
    assert [path.name for path in tmp_path.iterdir()] == ["n" * 255]
    with pytest.raises(OSError) as caught:
        write(tmp_path / ("n" * 256))
    assert caught.value.filename == str(tmp_path / ("n" * 256))


def test_what_fails_on_the_way_leaves_the_old_file_alone(tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    with pytest.raises(RuntimeError), files.replacing(tmp_path / "old") as file:
        file.write(b"half")
        raise RuntimeError
    assert (tmp_path / "old").read_bytes() == b"old" and os.listdir(tmp_path) == ["old"]


KILLED = """
import os, signal, sys
from pathlib import Path
from minigen import files

with files.replacing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_is_removed_and_nothing_that_is_being_written(tmp_path):
    (tmp_path / ".minigen-mine.txt").write_text("no temporary file")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "model")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"writing\n"
        files.remove_temporaries(tmp_path)
        assert len(os.listdir(tmp_path)) == 2, "the file that is being written is gone"
        process.kill()
    assert len(os.listdir(tmp_path)) == 2  # the kill left it
    files.remove_temporaries(tmp_path)
    assert os.listdir(tmp_path) == [".minigen-mine.txt"]

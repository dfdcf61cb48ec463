"""The data sets: the sample in the package, the places that are looked at, and downloads, from a server on loopback."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from minigen import datasets
from minigen.datasets import catalogue, fetch
from minigen.datasets.idx import idx_sha256, write_idx

FILES = list(fetch.KERAS_KEYS)
REAL = os.environ.get("MINIGEN_DATA")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty machine: no home, no data folder, nothing where other tools leave files, no proxy."""
    for name in ("MINIGEN_DATA", "MINIGEN_CACHE", "KERAS_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(fetch, "DEBIAN", tmp_path / "debian")
    (tmp_path / "work" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work" / "here")
    return tmp_path


@pytest.fixture
def arrays(rng):
    """A small stand-in for MNIST's four files."""
    shapes = [(7, 28, 28), (7,), (4, 28, 28), (4,)]
    return {name: rng.integers(0, 10, shape, np.uint8) for name, shape in zip(FILES, shapes, strict=True)}


@pytest.fixture
def tiny(arrays, monkeypatch):
    """MNIST and Fashion-MNIST with the checksums of ``arrays``; nobody listens at the mirrors."""
    known = {"sha256": {name: idx_sha256(array) for name, array in arrays.items()}, "mirrors": ("http://127.0.0.1:9/",)}
    for source in ("MNIST", "FASHION_MNIST"):
        monkeypatch.setattr(catalogue, source, dataclasses.replace(getattr(catalogue, source), **known))
    return arrays


def fill(folder: Path, arrays: dict[str, np.ndarray], suffix: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        write_idx(folder / f"{name}{suffix}", array)
    return folder


def assert_is(dataset, arrays, prefix="train"):
    np.testing.assert_array_equal(dataset.images, arrays[f"{prefix}-images-idx3-ubyte"])
    np.testing.assert_array_equal(dataset.labels, arrays[f"{prefix}-labels-idx1-ubyte"])


# --- the sample and the Dataset -----------------------------------------------------------------


def test_sample():
    sample = datasets.mnist_sample()
    assert sample.shape == sample.images.shape == (5000, 28, 28) and len(sample) == 5000
    assert sample.images.dtype == sample.labels.dtype == np.uint8
    assert sample.images.max() == 255 and 25 < sample.images.mean() < 40
    assert np.bincount(sample.labels).tolist() == [500] * 10
    assert np.bincount(sample.labels[:500], minlength=10).min() > 25  # classes are mixed
    assert "5000 x 28 x 28 uint8" in repr(sample) and "mnist-sample" in repr(sample)
    assert (catalogue.SAMPLE / "ORIGIN.md").is_file()


def test_dataset_is_an_array():
    sample = datasets.mnist_sample()
    assert np.asarray(sample) is sample.images
    np.testing.assert_array_equal(sample[:3], sample.images[:3])
    np.testing.assert_array_equal(sample[sample.labels == 7][5], sample.images[sample.labels == 7][5])
    copy = np.array(sample)
    assert copy is not sample.images and copy.dtype == np.uint8
    assert np.asarray(sample, dtype=np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="copy"):
        np.asarray(sample, dtype=np.float32, copy=False)


def test_dataset_with_missing_labels():
    with pytest.raises(ValueError, match="mine: 3 images but 2 labels"):
        datasets.Dataset("mine", np.zeros((3, 2, 2), np.uint8), np.zeros(2, np.uint8), ("a",), "here")


@pytest.mark.parametrize("split", ["Train", "valid", None, 3])
def test_unknown_split(split):
    with pytest.raises(ValueError, match="split must be one of 'train', 'test'"):
        datasets.mnist(split)


# --- places on this machine ---------------------------------------------------------------------

PLACES = [
    "debian/mnist",
    ".cache/minigen/mnist",
    "work/here/data/MNIST/raw",
    "work/here/MNIST/raw",
    "work/data/MNIST/raw",
    "data/MNIST/raw",
    ".cache/torch/MNIST/raw",
    ".keras/datasets/mnist",
]


@pytest.mark.skipif(sys.platform != "linux", reason="the cache has another place on other systems")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_places(home, tiny, place, suffix):
    folder = fill(home / place, tiny, suffix)
    train = datasets.mnist()
    assert_is(train, tiny)
    assert Path(train.origin).resolve().parent == folder.resolve()
    assert_is(datasets.mnist("test"), tiny, "t10k")


@pytest.mark.parametrize("place", ["debian/fashion-mnist", "data/FashionMNIST/raw", ".keras/datasets/fashion-mnist"])
def test_places_of_fashion_mnist(home, tiny, place):
    fill(home / place, tiny, ".gz")
    clothes = datasets.fashion_mnist("test")
    assert_is(clothes, tiny, "t10k")
    assert clothes.name == "fashion-mnist test" and clothes.classes[9] == "Ankle boot"


def test_keras_npz(home, tiny):
    (home / ".keras/datasets").mkdir(parents=True)
    np.savez(home / ".keras/datasets/mnist.npz", **{fetch.KERAS_KEYS[name]: array for name, array in tiny.items()})
    assert_is(datasets.mnist(), tiny)
    assert_is(datasets.mnist("test"), tiny, "t10k")


def test_own_folder_comes_first_and_any_compression_will_do(home, tiny, monkeypatch):
    fill(home / "data/MNIST/raw", tiny)
    own = fill(home / "own/mnist", {})
    for name, array in tiny.items():
        (own / f"{name.replace('-idx', '.idx')}.gz").write_bytes(packed(array, level=1))
    monkeypatch.setenv("MINIGEN_DATA", str(home / "own"))
    assert_is(datasets.mnist(), tiny)
    assert datasets.mnist().origin.startswith(str(own))


def test_own_folder_without_this_set_is_passed(home, tiny, monkeypatch):
    fill(home / "own/mnist", tiny)
    fill(home / "debian/fashion-mnist", tiny)
    monkeypatch.setenv("MINIGEN_DATA", str(home / "own"))
    assert "debian" in datasets.fashion_mnist().origin


def test_cache_given_by_name(home, tiny, monkeypatch):
    fill(home / "one/mnist", tiny)
    fill(home / "two/mnist", tiny)
    monkeypatch.setenv("MINIGEN_CACHE", str(home / "one"))
    assert datasets.mnist().origin.startswith(str(home / "one"))
    assert datasets.mnist(cache=home / "two").origin.startswith(str(home / "two"))


def test_wrong_file_in_own_folder_is_an_error(home, tiny, monkeypatch):
    own = fill(home / "own/mnist", tiny)
    write_idx(own / FILES[0], tiny[FILES[0]] ^ 1)
    monkeypatch.setenv("MINIGEN_DATA", str(home / "own"))
    with pytest.raises(ValueError, match=f"own/mnist/{FILES[0]}: this is not mnist's"):
        datasets.mnist()


def test_own_folder_that_is_none(home, tiny, monkeypatch):
    monkeypatch.setenv("MINIGEN_DATA", str(home / "none"))
    with pytest.raises(ValueError, match="MINIGEN_DATA = .*none' is not a folder"):
        datasets.mnist()


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:-1] + b"\xff", lambda b: b"", lambda b: b"<html>"])
def test_wrong_files_elsewhere_are_passed_over_aloud(home, tiny, caplog, damage):
    bad = fill(home / "data/MNIST/raw", tiny) / FILES[0]
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.raises(datasets.DownloadError, match=str(bad)):
        datasets.mnist(download=False)
    assert "passed over" in caplog.text and str(bad) in caplog.text
    fill(home / ".keras/datasets/mnist", tiny)
    assert_is(datasets.mnist(download=False), tiny)


# --- downloads ----------------------------------------------------------------------------------


class Mirror:
    """A server on loopback; ``answers[name]`` is the body, with ``lie`` bytes more in its Content-Length."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.lie = 0
        self.asked: list[str] = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.strip("/")
                mirror.asked.append(name)
                body = mirror.answers.get(name)
                if body is None:
                    return self.send_error(404)
                self.send_response(200)
                self.send_header("Content-Length", str(len(body) + mirror.lie))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def mirrors(home, tiny, monkeypatch) -> Iterator[list[Mirror]]:
    """Two mirrors that hold the tiny set."""
    pytest.importorskip("pooch")
    pair = [Mirror(), Mirror()]
    for mirror in pair:
        mirror.answers = {f"{name}.gz": packed(array) for name, array in tiny.items()}
    source = dataclasses.replace(catalogue.MNIST, mirrors=tuple(mirror.url for mirror in pair))
    monkeypatch.setattr(catalogue, "MNIST", source)
    yield pair
    for mirror in pair:
        mirror.server.shutdown()
        mirror.server.server_close()


def packed(array: np.ndarray, level: int = 9) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.tobytes(), level)


def test_download_once(home, mirrors, tiny):
    first, second = mirrors
    train = datasets.mnist(cache=home / "cache")
    assert_is(train, tiny)
    assert train.origin == f"{first.url}{FILES[0]}.gz"
    assert_is(datasets.mnist("test", cache=home / "cache"), tiny, "t10k")
    assert first.asked == [f"{name}.gz" for name in FILES] and not second.asked
    assert sorted(os.listdir(home / "cache/mnist")) == sorted(f"{name}.gz" for name in FILES)
    first.asked.clear()
    assert datasets.mnist(cache=home / "cache").origin == str(home / f"cache/mnist/{FILES[0]}.gz")
    assert not first.asked


@pytest.mark.parametrize("trouble", ["down", "missing", "truncated", "wrong", "not gzip", "endless"])
def test_second_mirror_helps(home, mirrors, tiny, monkeypatch, trouble):
    first, second = mirrors
    if trouble == "down":
        first.server.shutdown()
        first.server.server_close()
    elif trouble == "missing":
        first.answers = {}
    elif trouble == "truncated":
        first.lie = 10
    elif trouble == "wrong":
        first.answers = {name: packed(np.zeros(5, np.uint8)) for name in first.answers}
    elif trouble == "not gzip":
        first.answers = dict.fromkeys(first.answers, b"<html>Please log in to this network</html>")
    else:
        monkeypatch.setattr(fetch, "SIZE_LIMIT", 10_000)
        first.answers = dict.fromkeys(first.answers, bytes(20_000))
    assert_is(datasets.mnist(cache=home / "cache"), tiny)
    assert second.asked == [f"{name}.gz" for name in FILES[:2]]
    assert sorted(os.listdir(home / "cache/mnist")) == sorted(f"{name}.gz" for name in FILES[:2])


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_bar_only_on_a_terminal(home, mirrors, monkeypatch, capsys, terminal):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    datasets.mnist(cache=home / "cache")
    assert ("100%" in capsys.readouterr().err) == terminal


def test_damaged_cache_is_replaced(home, mirrors, tiny, caplog):
    cache = fill(home / "cache/mnist", tiny, ".gz")
    (cache / f"{FILES[0]}.gz").write_bytes(b"torn")
    assert_is(datasets.mnist(cache=home / "cache"), tiny)
    assert mirrors[0].asked == [f"{FILES[0]}.gz"] and "passed over" in caplog.text
    mirrors[0].asked.clear()
    assert_is(datasets.mnist(cache=home / "cache"), tiny)
    assert not mirrors[0].asked


def test_no_network_lists_every_way_out(home, mirrors):
    for mirror in mirrors:
        mirror.answers = {}
    with pytest.raises(datasets.DownloadError) as caught:
        datasets.mnist(cache=home / "cache")
    text = str(caught.value)
    for part in (
        mirrors[0].url,
        mirrors[1].url,
        "404",
        "MINIGEN_DATA",
        str(home / "cache/mnist"),
        "HTTPS_PROXY",
        "mnist_sample()",
        *FILES,
    ):
        assert part in text
    assert os.listdir(home / "cache/mnist") == []


def test_download_forbidden(home, mirrors):
    with pytest.raises(datasets.DownloadError, match="MINIGEN_DATA"):
        datasets.mnist(cache=home / "cache", download=False)
    assert not mirrors[0].asked and not (home / "cache").exists()


def test_cache_that_cannot_be_written(home, mirrors):
    (home / "cache").write_text("a file, not a folder")
    with pytest.raises(datasets.DownloadError, match=f"the cache: cannot write in {home}/cache/mnist") as caught:
        datasets.mnist(cache=home / "cache")
    assert "MINIGEN_CACHE" in str(caught.value) and "was not downloaded" not in str(caught.value)
    assert not mirrors[0].asked, "it downloaded what it could not keep"


def test_a_full_disk_is_no_failed_download(home, mirrors, monkeypatch):
    def full(*names):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch.os, "replace", full)
    with pytest.raises(datasets.DownloadError, match="no room for it in") as caught:
        datasets.mnist(cache=home / "cache")
    assert "MINIGEN_CACHE" in str(caught.value) and len(mirrors[0].asked) == 1 and not mirrors[1].asked
    assert os.listdir(home / "cache/mnist") == []


def test_the_home_folder_by_its_sign(home, mirrors, tiny, monkeypatch):
    monkeypatch.setenv("MINIGEN_CACHE", "~/kept")
    assert_is(datasets.mnist(), tiny)
    assert (home / "kept/mnist").is_dir() and not Path("~").exists()
    assert_is(datasets.mnist("test", cache="~/kept"), tiny, "t10k")
    monkeypatch.setenv("MINIGEN_DATA", "~/own")
    fill(home / "own/mnist", tiny)
    assert datasets.mnist().origin.startswith(str(home / "own/mnist"))
    np.save(home / "rows.npy", np.ones((4, 3)))
    for path in ("~/rows.npy", Path("~/rows.npy")):
        assert datasets.load_file(path).shape == datasets.resolve(path).shape == (4, 3)
    write_idx("~/rows.IDX.GZ", np.ones((4, 3), np.uint8))
    assert datasets.resolve("~/rows.IDX.GZ").shape == (4, 3)
    assert (home / "rows.IDX.GZ").read_bytes()[:2] == b"\x1f\x8b"
    Path("~nobody-of-that-name").mkdir()
    assert fetch.cache_folder("~nobody-of-that-name") == Path("~nobody-of-that-name")


@pytest.mark.parametrize("name", ["rows.NPY", "rows.Npz", "rows.NPZ:group/one.two", "rows.npz:group/other"])
def test_endings_in_capitals_and_names_of_arrays_with_slashes(tmp_path, name):
    one, other = np.arange(6.0).reshape(2, 3), np.zeros((2, 3))
    file, _, key = name.partition(":")
    with open(tmp_path / file, "wb") as stream:
        if file.endswith("NPY"):
            np.save(stream, one)
        else:
            np.savez(stream, **({"group/one.two": one, "group/other": other} if key else {"a/b": one}))
    np.testing.assert_array_equal(datasets.resolve(str(tmp_path / name)), other if "other" in name else one)


def test_without_pooch(home, tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(datasets.DownloadError, match="pip install pooch"):
        datasets.mnist()
    with pytest.raises(datasets.DownloadError, match="pooch"):
        datasets.mnist(cache=home / "cache")
    fill(home / "own/mnist", tiny)
    monkeypatch.setenv("MINIGEN_DATA", str(home / "own"))
    assert_is(datasets.mnist(), tiny)


def test_debian_package_is_named(home, tiny):
    with pytest.raises(datasets.DownloadError, match="apt install dataset-fashion-mnist"):
        datasets.fashion_mnist(download=False)


# --- the real files -----------------------------------------------------------------------------


def real(name: str) -> None:
    if not REAL or not (Path(REAL) / name).is_dir():
        pytest.skip(f"needs the real files: set MINIGEN_DATA to a folder that holds {name}/")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_files(name):
    real(name)
    load = {"mnist": datasets.mnist, "fashion-mnist": datasets.fashion_mnist}[name]
    train, test = (load(split) for split in ("train", "test"))
    assert train.shape == (60000, 28, 28) and test.shape == (10000, 28, 28)
    assert len(np.unique(train.labels)) == 10 and len(test.labels) == 10000


def test_sample_is_of_the_training_set():
    real("mnist")
    train, test, sample = datasets.mnist(), datasets.mnist("test"), datasets.mnist_sample()
    known = {digest(image): label for image, label in zip(train.images, train.labels, strict=True)}
    assert all(known[digest(image)] == label for image, label in zip(sample.images, sample.labels, strict=True))
    assert not {digest(image) for image in sample.images} & {digest(image) for image in test.images}


def digest(image: np.ndarray) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()

"""Paths that begin with ~, in Python, where no shell replaces it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import minigen
from minigen import plotting
from minigen.cuda.run import cache
from minigen.paths import user_path
from models import blobs


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "home"
    assert list((tmp_path / "here").iterdir()) == [], "something was written beside the home folder"


def test_models_and_pictures(home):
    model = minigen.VAE(epochs=1, hidden=4, latent_dim=2, batch_size=16).fit(blobs(32))
    model.save("~/model")
    np.testing.assert_array_equal(minigen.load(Path("~/model")).sample(2, seed=1), model.sample(2, seed=1))
    model.history_.to_csv("~/history.csv")
    plotting.save_png(np.zeros((2, 2), np.uint8), "~/picture.png")
    assert {path.name for path in home.iterdir()} == {"model", "history.csv", "picture.png"}


def test_figures(home):
    class Figure:
        def savefig(self, file, **settings):
            file.write(b"drawn")

    plotting.save_figure(Figure(), "~/losses.PNG")
    assert (home / "losses.PNG").read_bytes() == b"drawn"


@pytest.mark.parametrize("variable", ["MINIGEN_CACHE", "XDG_CACHE_HOME"])
def test_compiled_kernels(home, monkeypatch, variable):
    monkeypatch.delenv("MINIGEN_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.folder() == home / ".cache" / "minigen" / "kernels"
    monkeypatch.setenv(variable, "~/kept")
    assert cache.folder().is_relative_to(home / "kept") and cache.folder().name == "kernels"


def test_a_name_that_is_no_users_stays(home):
    for name in ("~nobody-of-that-name/x", "a/~/x", ""):
        assert user_path(name) == Path(name)

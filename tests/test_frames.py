"""DataFrames: their columns are remembered, and samples come back as DataFrames."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save

import minigen
from minigen.datasets import Table, as_rows, frames
from minigen.training import checkpoint

pandas = pytest.importorskip("pandas")
NAMES = ["height", "weight", "age"]


def make(library: str, columns: dict[str, object]) -> object:
    return pytest.importorskip(library).DataFrame(columns)


@pytest.fixture(params=frames.LIBRARIES)
def library(request):
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture
def X(library, rng):
    return make(library, {name: rng.normal(size=90) for name in NAMES})


def vae(**settings):
    return minigen.VAE(likelihood="gaussian", hidden=(8,), latent_dim=2, batch_size=32, epochs=1, **settings)


def assert_frame(frame, library, rows):
    assert frames.library_of(frame) == library
    assert list(frame.columns) == NAMES and frame.shape == (rows, 3)


def test_samples_come_back_as_the_data_came(X, library, tmp_path):
    model = vae().fit(X)
    arrays = vae().fit(np.asarray(X))
    assert list(model.feature_names_in_) == NAMES and not hasattr(arrays, "feature_names_in_")
    model.save(tmp_path / "m.safetensors")
    for trained in (model, minigen.load(tmp_path / "m.safetensors"), pickle.loads(pickle.dumps(model))):
        for frame, array in [
            (trained.sample(5, seed=1), arrays.sample(5, seed=1)),
            (trained.decode(np.ones((4, 2))), arrays.decode(np.ones((4, 2)))),
            (trained.reconstruct(X), arrays.reconstruct(np.asarray(X))),
        ]:
            assert_frame(frame, library, len(array))
            np.testing.assert_array_equal(np.asarray(frame), array)
        np.testing.assert_array_equal(trained.encode(X), arrays.encode(np.asarray(X)))
    model.frame_ = None
    assert isinstance(model.sample(2), np.ndarray)
    assert "height, weight, age" in model._repr_html_()
    gan = minigen.GAN(hidden=(8,), latent_dim=2, batch_size=32, epochs=1).fit(X)
    assert_frame(gan.sample(5), library, 5)
    assert_frame(gan.interpolate(1, 2, steps=4), library, 4)
    gan.fit(np.asarray(X))  # another training, without names
    assert isinstance(gan.sample(2), np.ndarray) and not hasattr(gan, "feature_names_in_")


@pytest.mark.parametrize(
    "names, message",
    [
        (["weight", "height", "age"], "Feature names must be in the same order as they were in fit"),
        (["height", "weight"], "yet now missing:\n- age"),
        (["height", "weight", "size"], "unseen at fit time:\n- size\nFeature names seen at fit time, yet now missing"),
        (["height", "weight", "age", "size"], "unseen at fit time:\n- size"),
    ],
)
def test_other_columns_are_an_error_that_names_them(library, X, names, message, tmp_path):
    vae().fit(X).save(tmp_path / "m.safetensors")
    model = minigen.load(tmp_path / "m.safetensors")
    other = make(library, dict.fromkeys(names, np.ones(90)))
    for method in (model.encode, model.reconstruct, model.elbo, model.score_samples, model.score, model.partial_fit):
        with pytest.raises(ValueError) as caught:
            method(other)
        assert message in str(caught.value) and str(caught.value).startswith("X: ")
    model.elbo(np.asarray(X))  # arrays have no names and pass


def test_reconstructions_keep_the_index(rng):
    X = pandas.DataFrame(rng.normal(size=(90, 3)), columns=NAMES, index=[f"row {i}" for i in range(90)])
    model = vae().fit(X)
    assert list(model.reconstruct(X).index) == list(X.index)


def test_columns_of_several_types(library):
    X = make(library, {"a": np.array([1, 2], np.int64), "b": [0.5, 1], "c": [True, False], "d": np.array([1, 2], "u1")})
    rows, shape = as_rows(X)
    assert rows.dtype == np.float32 and shape == (4,)
    assert rows.tolist() == [[1, 0.5, 1, 1], [2, 1, 0, 2]]
    pixels = make(library, {str(i): np.array([i, 255], np.uint8) for i in range(4)})
    rows, _ = as_rows(pixels)
    assert rows.dtype == np.uint8 and rows.tolist() == [[0, 1, 2, 3], [255] * 4]


def test_pandas_own_types_and_names():
    X = pandas.DataFrame({"a": pandas.array([1, 2, 3], "Int64"), "b": pandas.array([1.5, 2, 3], "Float64")})
    assert as_rows(X)[0].tolist() == [[1, 1.5], [2, 2], [3, 3]]
    X["a"] = pandas.array([1, None, 3], "Int64")
    with pytest.raises(ValueError, match="column 'a' has 1 missing values .*row 1"):
        as_rows(X)
    unnamed = vae().fit(pandas.DataFrame(np.random.default_rng(0).normal(size=(90, 2)), columns=[5, 6]))
    assert not hasattr(unnamed, "feature_names_in_") and list(unnamed.sample(2).columns) == [0, 1]


@pytest.mark.parametrize(
    "column, error, message",
    [
        (["x", "Paris"], TypeError, "X: column 'city' holds 'x' in row 0, which is not a number"),
        ([1.0, None], ValueError, "X must be finite, but column 'city' has 1 missing values .NaN., the first in row 1"),
        ([1.0, float("nan")], ValueError, "column 'city' has 1 missing values"),
        (np.array(["2020-01-01", "2021-01-01"], "M8[ns]"), TypeError, "column 'city' is datetime64"),
    ],
)
def test_columns_that_are_no_numbers(library, column, error, message):
    X = make(library, {"a": [1.0, 2.0], "city": column})
    with pytest.raises(error, match=message):
        minigen.GAN(batch_size=2).fit(X)


def test_a_table_from_a_file_is_remembered_and_gives_arrays(rng, tmp_path):
    model = vae().fit(Table(rng.normal(size=(90, 3)), tuple(NAMES)))
    assert list(model.feature_names_in_) == NAMES and isinstance(model.sample(2), np.ndarray)
    with pytest.raises(ValueError, match="same order"):
        model.elbo(pandas.DataFrame(np.ones((5, 3)), columns=NAMES[::-1]))
    assert repr(Table(np.ones((2, 7)), tuple("abcdefg"))) == "Table(2 x 7 float64: a, b, c, d, e and 2 more)"


def test_without_the_library_samples_are_arrays(rng, tmp_path):
    vae().fit(pandas.DataFrame(rng.normal(size=(90, 3)), columns=NAMES)).save(tmp_path / "m.safetensors")
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "import minigen, numpy as np\n"
        "m = minigen.load(sys.argv[1]); s = m.sample(3)\n"
        "assert type(s) is np.ndarray and s.shape == (3, 3) and len(m.feature_names_in_) == 3"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "m.safetensors"], check=True, timeout=120)


def test_pandas_is_not_imported_for_arrays():
    code = (
        "import sys, minigen, numpy as np\n"
        "minigen.GAN(hidden=4, batch_size=8, epochs=1, device='numpy').fit(np.ones((8, 4), np.uint8)).sample(2)\n"
        "assert not {'pandas', 'polars', 'pyarrow', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def rewrite(path, change):
    """Change what the model file says of its data, and sign it again."""
    with safe_open(path, framework="numpy") as file:
        settings = json.loads(file.metadata()["settings"])
    change(settings["fitted"])
    text, tensors = json.dumps(settings), load_file(path)
    metadata = {"format": checkpoint.FORMAT, "settings": text, "sha256": checkpoint.digest(text, tensors)}
    path.write_bytes(save(tensors, metadata))


@pytest.mark.parametrize(
    "lie", [{"columns": ["a", "b"]}, {"columns": ["a", "b", 3]}, {"columns": 3}, {"frame_": "spark"}, {"frame_": ["a"]}]
)
def test_lies_about_columns_in_a_file_are_refused(rng, tmp_path, lie):
    path = tmp_path / "m.safetensors"
    vae().fit(rng.normal(size=(90, 3))).save(path)
    rewrite(path, lambda fitted: fitted.update(lie))
    with pytest.raises(minigen.ModelFileError, match="columns|frame_|not iterable"):
        minigen.load(path)


def test_files_from_before_columns_were_remembered(rng, tmp_path):
    path = tmp_path / "m.safetensors"
    vae().fit(rng.normal(size=(90, 3))).save(path)
    rewrite(path, lambda fitted: [fitted.pop(name) for name in ("columns", "frame_")])
    assert minigen.load(path).sample(2).shape == (2, 3)

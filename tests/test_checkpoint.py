"""Model files: round trips, damage, and a full disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minigen
from minigen.training import checkpoint
from minigen.training.checkpoint import read
from models import blobs

SMALL = {"hidden": (8,), "latent_dim": 3, "batch_size": 32, "epochs": 2, "progress": False}


@pytest.fixture(scope="module", params=["gan", "vae"])
def model(request):
    train = {"gan": minigen.train_gan, "vae": minigen.train_vae}[request.param]
    return train(blobs(100).reshape(100, 3, 4), **SMALL)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    model.save(path)
    return path


@pytest.mark.parametrize("device", [name for name, d in minigen.devices().items() if d.usable])
def test_a_model_comes_back_as_it_was(model, saved, device):
    loaded = minigen.load(saved, device=device)
    assert type(loaded) is type(model)
    assert {**loaded.get_params(), "device": 0} == {**model.get_params(), "device": 0}
    for net, other in zip(loaded.networks_, model.networks_, strict=True):
        for key, value in net.state().items():
            np.testing.assert_array_equal(value, other.state()[key])
    np.testing.assert_array_equal(loaded.history_.values, model.history_.values)
    assert loaded.history_.ends == model.history_.ends
    difference = loaded.sample(20, seed=1).astype(int) - model.sample(20, seed=1)
    assert np.abs(difference).max() <= (0 if loaded.device_ == model.device_ else 1)


def test_the_file_is_plain_safetensors(saved):
    from safetensors import safe_open

    with safe_open(saved, framework="numpy") as file:
        assert any(key.endswith(".0.W") for key in file.keys())  # noqa: SIM118
        assert json.loads(file.metadata()["settings"])["params"]["latent_dim"] == 3
    assert read(saved)[0]["params"]["hidden"] == [8]


def test_every_truncation_is_refused(saved, tmp_path):
    content = saved.read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1]:
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(minigen.ModelFileError, match="cut"):
            minigen.load(tmp_path / "cut", device="numpy")


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_any_altered_byte_is_refused(saved, tmp_path, where, flip):
    content = bytearray(saved.read_bytes())
    content[int(where * len(content))] ^= flip
    (tmp_path / "altered").write_bytes(content)
    try:
        loaded = minigen.load(tmp_path / "altered", device="numpy")
    except minigen.ModelFileError:
        return
    # A byte without meaning, such as a blank of the header's padding: then nothing may have changed.
    original = minigen.load(saved, device="numpy")
    np.testing.assert_array_equal(loaded.sample(3, seed=0), original.sample(3, seed=0))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04K\x01.", b"\xff" * 100, b"PK\x03\x04" + bytes(50)])
def test_foreign_files_are_refused(content, tmp_path):
    (tmp_path / "foreign").write_bytes(content)
    with pytest.raises(minigen.ModelFileError, match="foreign"):
        minigen.load(tmp_path / "foreign")


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(minigen.ModelFileError, match="not written by"):
        minigen.load(tmp_path / "other.safetensors")


def forged(path, settings, tensors):
    """Write a file that says ``settings``, with a digest that fits."""
    from safetensors.numpy import save

    text = json.dumps(settings)
    metadata = {"format": checkpoint.FORMAT, "settings": text, "sha256": checkpoint.digest(text, tensors)}
    path.write_bytes(save(tensors, metadata))


def places(value, path=()):
    """Every path into nested dictionaries, that to the whole included."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))


@pytest.mark.parametrize("wrong", [None, -1, "x", [], {}, [1.5], [[1]], 2**70, 10**12, 1e999])
def test_settings_that_make_no_sense_are_refused_before_memory_is_taken(saved, tmp_path, wrong):
    settings, tensors = checkpoint.read(saved)
    refused = 0
    for path in places(settings):
        changed = {"": json.loads(json.dumps(settings))}
        *way, last = ("", *path)
        inner = changed
        for key in way:
            inner = inner[key]
        inner[last] = wrong
        forged(tmp_path / "forged", changed[""], tensors)
        try:
            minigen.load(tmp_path / "forged", device="numpy")
        except minigen.ModelFileError:
            refused += 1
    assert refused > 10


LIES = [  # a field, and what it cannot be
    ("model", "rbm"),
    ("model", ["gan"]),
    ("params", []),
    ("fitted", 1),
    ("history", None),
    ("params.hidden", [[1]]),
    ("params.latent_dim", 2.5),
    ("fitted.item_shape_", "ab"),
    ("fitted.item_shape_", []),
    ("fitted.item_shape_", [True]),
    ("fitted.data_dtype_", "object"),
    ("fitted.data_dtype_", {"a": 1}),
    ("fitted.source_", 3),
    ("fitted.left_out_", "all"),
    ("fitted.scale_", "x"),
    ("fitted.scale_", 0),
    ("fitted.scale_", [1.0]),
    ("fitted.shift_", None),
    ("fitted.shift_", 1e300),
    ("fitted.output_", {"a": 1}),
    ("fitted.output_", "relu"),
    ("history.seconds", 1.0),
    ("history.seconds", ["a", "b"]),
    ("history.seconds", [-1.0, 1.0]),
    ("history.stop_reason", "tired"),
    ("history.stop_reason", {}),
]


@pytest.mark.parametrize(("field", "lie"), LIES)
def test_a_lie_in_the_settings_is_refused_by_the_name_of_its_field(saved, tmp_path, field, lie):
    settings, tensors = checkpoint.read(saved)
    group, _, name = field.rpartition(".")
    if name == "output_" and settings["model"] == "vae":
        pytest.skip("only a GAN has an output")
    for change in ("lie", "nothing"):
        changed = json.loads(json.dumps(settings))
        values = changed[group] if group else changed
        if change == "lie":
            values[name] = lie
        elif group == "params" or name in ("source_", "left_out_"):
            continue  # has a default
        else:
            del values[name]
        forged(tmp_path / "forged", changed, tensors)
        with pytest.raises(minigen.ModelFileError, match=rf"forged.*{name}"):
            minigen.load(tmp_path / "forged", device="numpy")


def test_an_output_that_is_not_the_settings_own_is_refused(saved, tmp_path):
    settings, tensors = checkpoint.read(saved)
    if settings["model"] == "gan":
        settings["params"]["output"], settings["fitted"]["output_"] = "tanh", "sigmoid"
        forged(tmp_path / "forged", settings, tensors)
        with pytest.raises(minigen.ModelFileError, match="output_ must be 'tanh'"):
            minigen.load(tmp_path / "forged", device="numpy")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "[" * 100_000, '{"model": NaN}', "{'model': 'gan'}"])
def test_settings_that_are_no_json_are_refused(saved, tmp_path, text):
    from safetensors.numpy import save

    tensors = checkpoint.read(saved)[1]
    metadata = {"format": checkpoint.FORMAT, "settings": text, "sha256": checkpoint.digest(text, tensors)}
    (tmp_path / "forged").write_bytes(save(tensors, metadata))
    with pytest.raises(minigen.ModelFileError, match="forged"):
        minigen.load(tmp_path / "forged", device="numpy")


@pytest.mark.parametrize("blocks", [1, [1, 10], [12, 1], 2_106_338_647])
def test_blocks_that_do_not_add_up_to_the_columns_are_refused(tmp_path, blocks):
    minigen.GAN(hidden=(3,), batch_size=4, epochs=1, seed=0).fit(np.eye(12, dtype=np.uint8), progress=False).save(
        tmp_path / "model"
    )
    settings, tensors = checkpoint.read(tmp_path / "model")
    settings["params"]["blocks"] = blocks
    forged(tmp_path / "forged", settings, tensors)
    with pytest.raises(minigen.ModelFileError, match="forged.*blocks"):
        minigen.load(tmp_path / "forged", device="numpy")


@pytest.mark.parametrize("ends", [[1, 1], [4, 3], [-(2**63), 2**63 - 1], [1, 2**40], [0, 3]])
def test_ends_of_epochs_that_are_none_are_refused(saved, tmp_path, ends):
    settings, tensors = checkpoint.read(saved)
    forged(tmp_path / "forged", settings, {**tensors, "history.ends": np.array(ends, np.int64)})
    with pytest.raises(minigen.ModelFileError, match="forged.*(ends|order)"):
        minigen.load(tmp_path / "forged", device="numpy")


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["gan", "vae", "tanh", "linear", "uint8", "float32", "sgd", "adam", 0.5, 1e-30, 2**63]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_loaded_can_be_used(saved, tmp_path, data):
    """Whatever a field says, with a digest that fits: the file is refused, or the model works."""
    settings, tensors = checkpoint.read(saved)
    *way, last = data.draw(st.sampled_from([place for place in places(settings) if place]))
    inner = settings
    for key in way:
        inner = inner[key]
    inner[last] = data.draw(ANYTHING)
    forged(tmp_path / "forged", settings, tensors)
    try:
        model = minigen.load(tmp_path / "forged", device="numpy")
    except minigen.ModelFileError:
        return
    assert len(model.sample(3, seed=0)) == 3 and repr(model)
    model.history_.to_csv(tmp_path / "history.csv")
    model.save(tmp_path / "again")
    minigen.load(tmp_path / "again", device="numpy")


@pytest.mark.parametrize(
    "change",
    [
        lambda a: None,
        lambda a: a[:0],
        lambda a: a.astype(np.float64),
        lambda a: np.zeros((3, 3, 3), a.dtype),
        lambda a: a * np.float32("nan") if a.dtype == np.float32 else np.flip(a) - 5,
    ],
)
def test_tensors_that_do_not_fit_the_settings_are_refused(saved, tmp_path, change):
    settings, tensors = checkpoint.read(saved)
    for key in tensors:
        if key in ("history.losses", "training.step"):  # any losses and any step are some training's
            continue
        if key == "history.rows":  # older files have none; see below
            continue
        changed = {**tensors, key: change(tensors[key])}
        forged(tmp_path / "forged", settings, {k: v for k, v in changed.items() if v is not None})
        with pytest.raises(minigen.ModelFileError, match="forged"):
            minigen.load(tmp_path / "forged", device="numpy")


@pytest.mark.parametrize("change", [lambda a: a[:-1], lambda a: 0 * a, lambda a: a * 1.0, lambda a: a[:, None]])
def test_rows_of_a_history_that_do_not_fit_it_are_refused(saved, tmp_path, change):
    settings, tensors = checkpoint.read(saved)
    forged(tmp_path / "forged", settings, {**tensors, "history.rows": change(tensors["history.rows"])})
    with pytest.raises(minigen.ModelFileError, match="forged"):
        minigen.load(tmp_path / "forged", device="numpy")


@pytest.fixture
def table_file(tmp_path):
    """A file of a model of standardised columns, and the model."""
    X = np.random.default_rng(0).normal(size=(100, 3)) * [1.0, 100.0, 1e-3] + [5.0, 1e4, 0.0]
    model = minigen.VAE(likelihood="gaussian", hidden=8, latent_dim=2, epochs=2, batch_size=32).fit(X)
    model.save(tmp_path / "table")
    return X, model, tmp_path / "table"


def test_the_units_of_columns_are_saved(table_file):
    X, model, path = table_file
    loaded = minigen.load(path, device=model.device_)
    np.testing.assert_array_equal(loaded.columns_.mean, model.columns_.mean)
    np.testing.assert_array_equal(loaded.sample(5, seed=1), model.sample(5, seed=1))
    np.testing.assert_array_equal(loaded.elbo(X), model.elbo(X))
    loaded.partial_fit(3 * X, epochs=1), model.partial_fit(3 * X, epochs=1)  # by the statistics of the first data
    np.testing.assert_allclose(loaded.columns_.std, X.astype(np.float32).std(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_array_equal(loaded.history_.values, model.history_.values)


@pytest.mark.parametrize("key", ["columns.mean", "columns.std"])
@pytest.mark.parametrize(
    "change",
    [lambda a: None, lambda a: a[:2], lambda a: a.astype(np.float32), lambda a: a * np.nan, lambda a: -1 - np.abs(a)],
)
def test_statistics_that_make_no_sense_are_refused(table_file, tmp_path, key, change):
    settings, tensors = checkpoint.read(table_file[2])
    changed = {**tensors, key: change(tensors[key])}
    if key == "columns.mean" and changed[key] is not None and (changed[key] < 0).all() and len(changed[key]) == 3:
        return  # any mean is some column's
    forged(tmp_path / "forged", settings, {k: v for k, v in changed.items() if v is not None})
    with pytest.raises(minigen.ModelFileError, match=key.replace(".", r"\.")):
        minigen.load(tmp_path / "forged", device="numpy")


def test_a_file_from_before_standardising_still_loads(tmp_path):
    X = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    settings = {**SMALL, "likelihood": "gaussian", "standardize": False}
    model = minigen.train_vae(X, **settings)
    model.save(tmp_path / "new")
    settings, tensors = checkpoint.read(tmp_path / "new")
    del settings["params"]["standardize"], tensors["history.rows"]
    forged(tmp_path / "old", settings, tensors)
    old = minigen.load(tmp_path / "old", device=model.device_)
    assert old.columns_ is None and old.standardize == "auto"
    np.testing.assert_array_equal(old.score_samples(X), model.score_samples(X))
    np.testing.assert_array_equal(old.sample(3, seed=0), model.sample(3, seed=0))
    old.partial_fit(X, epochs=1, progress=False), model.partial_fit(X, epochs=1, progress=False)
    np.testing.assert_array_equal(old.history_.values, model.history_.values)


def test_errors_name_the_file_and_not_a_temporary_one(model, tmp_path):
    for path in (tmp_path / "no" / "folder" / "m.safetensors", tmp_path):
        with pytest.raises(OSError) as caught:
            model.save(path)
        assert caught.value.filename == str(path)


def test_missing_file_and_folder(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.safetensors"):
        minigen.load(tmp_path / "nothing.safetensors")
    with pytest.raises(OSError):
        model.save(tmp_path / "no" / "folder" / "m.safetensors")


def test_a_full_disk_leaves_the_old_file(model, saved, tmp_path):
    """A limit on the size of files stands in for a full disk: the write fails half way, for real."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(saved.read_bytes())
    code = """
import resource, signal, sys, minigen
model = minigen.load(sys.argv[1], device="numpy")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    model.save(sys.argv[1])
except OSError as error:
    print("OSError", error)
"""
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert out.stdout.startswith("OSError") and str(path) in out.stdout
    assert os.listdir(tmp_path) == ["model.safetensors"]
    assert path.read_bytes() == saved.read_bytes()


def test_an_untrained_model_cannot_be_saved_or_used(tmp_path):
    for use in (lambda m: m.save(tmp_path / "m"), lambda m: m.sample(1)):
        for model in (minigen.GAN(), minigen.VAE()):
            with pytest.raises(minigen.NotFittedError, match="fit"):
                use(model)
    assert os.listdir(tmp_path) == []

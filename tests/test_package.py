"""The package itself: a light import, estimators in scikit-learn's manner, devices."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import minigen
from models import blobs

HEAVY = ("cupy", "triton", "matplotlib", "torch", "jax", "tensorflow", "safetensors", "typer", "pooch", "scipy", "PIL")


def modules_after(code: str) -> set[str]:
    program = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    return set(json.loads(out.splitlines()[-1]))


def test_the_import_brings_nothing_heavy():
    loaded = modules_after("import minigen")
    assert not loaded & set(HEAVY)
    assert "numpy" not in loaded, "not even NumPy is needed until something is used"


def test_training_on_the_cpu_touches_no_gpu_library_and_no_framework():
    code = (
        "import minigen, numpy as np\n"
        "minigen.train_gan(np.full((64, 4), 7, np.uint8), epochs=1, batch_size=32, device='numpy')"
    )
    assert not modules_after(code) & {"cupy", "triton", "torch", "jax", "tensorflow", "matplotlib"}


def test_the_compiled_backend_is_there():
    """An installed minigen has its native module; MINIGEN_TEST_WITHOUT_NATIVE=1 lets the reference be tested alone."""
    if os.environ.get("MINIGEN_TEST_WITHOUT_NATIVE") == "1":
        pytest.skip("asked to test without the compiled module")
    device = minigen.devices()["cpu"]
    assert device.usable, device.detail


def test_messages_name_the_distribution_and_not_another_project():
    """``minigen`` on the package index is not this package; extras that messages name must exist."""
    root = Path(minigen.__file__).parents[1]
    if not (root / "pyproject.toml").exists():
        pytest.skip("no source tree")
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["name"] == "minigen-engine"
    files = [root / "README.md", root / "bench" / "README.md", root / "pyproject.toml", *root.glob("minigen/**/*.py")]
    named = [(path, match) for path in files for match in re.finditer(r"minigen(-engine)?\[(\w+)\]", path.read_text())]
    assert {match[2] for _, match in named} >= {"plot", "cuda13"}  # the search finds what is there
    assert [(path, match[0]) for path, match in named if not match[1]] == []
    assert {match[2] for _, match in named} <= set(project["optional-dependencies"])
    foreign = re.compile(r"pip install [\"']?minigen(?!-engine)")
    assert [path for path in files if foreign.search(path.read_text())] == []


def test_the_version_has_one_source():
    try:
        installed = importlib.metadata.version("minigen-engine")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("used from the source tree, not installed")
    assert installed == minigen.__version__


def test_public_names():
    for name in minigen.__all__:
        assert getattr(minigen, name) is not None
    assert set(minigen.__all__) <= set(dir(minigen))


@pytest.mark.parametrize("kind", [minigen.GAN, minigen.VAE])
def test_estimators_are_like_scikit_learns(kind):
    model = kind(latent_dim=7, hidden=(5, 6))
    params = model.get_params()
    assert params["latent_dim"] == 7 and "latent_dim=7" in repr(model) and "hidden=(5, 6)" in repr(model)
    assert kind(**params).get_params() == params
    assert model.set_params(latent_dim=3) is model and model.latent_dim == 3
    assert eval(repr(model), {kind.__name__: kind}).get_params() == model.get_params()


@pytest.mark.parametrize("kind", [minigen.GAN, minigen.VAE])
@pytest.mark.parametrize("hidden", [(), (4,), (3, 5, 2), [6, 4], 8])
def test_any_number_and_width_of_hidden_layers(kind, hidden):
    model = kind(hidden=hidden, epochs=1, batch_size=20, latent_dim=2).fit(blobs(50))
    assert model.sample(3).shape == (3, 12)


@pytest.mark.parametrize("kind", [minigen.GAN, minigen.VAE])
@pytest.mark.parametrize("activation", minigen.ACTIVATIONS)
def test_every_activation_trains(kind, activation):
    model = kind(hidden=(6,), activation=activation, epochs=2, batch_size=20, latent_dim=2).fit(blobs(50))
    assert np.isfinite(model.history_.values).all()


def test_presets():
    for kind in (minigen.GAN, minigen.VAE):
        assert kind.preset("article").get_params() == kind().get_params()
        assert kind.preset("quality", seed=3).seed == 3
        assert kind.preset("quality").hidden != kind().hidden


def test_data_of_other_libraries():
    torch = pytest.importorskip("torch")
    X = blobs(64)
    ours = minigen.train_gan(X, epochs=1, batch_size=32, hidden=4)
    theirs = minigen.train_gan(torch.from_numpy(X), epochs=1, batch_size=32, hidden=4)
    np.testing.assert_array_equal(ours.history_.values, theirs.history_.values)


def test_auto_takes_the_best_device():
    best = "cpu" if minigen.devices()["cpu"].usable else "numpy"
    assert minigen.GAN(epochs=0, batch_size=32, hidden=4).fit(blobs(64)).device_ == best


def test_formatters_have_one_version_everywhere():
    """Those of pyproject.toml, which CI installs, and those of the hooks that run before a commit."""
    root = Path(__file__).parent.parent
    dev = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    hooks = (root / ".pre-commit-config.yaml").read_text()
    pinned = set(re.findall(r'additional_dependencies: \["(.+)"\]', hooks))
    assert pinned == {package for package in dev if package.startswith(("ruff", "clang-format"))}

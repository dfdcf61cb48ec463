"""Without the compiled module: what is said about it, and that it is said."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PACKAGE = Path(__file__).parents[1] / "minigen"
LIBRARIES = Path(np.__file__).parents[1]
TRAIN = """
import numpy as np, minigen
X = np.full((8, 4), 7, np.uint8)
for family in (minigen.GAN, minigen.VAE):
    print(family(epochs=1, batch_size=4, hidden=2).fit(X).device_)
"""


@pytest.fixture
def tree(tmp_path):
    """A source tree, not compiled."""
    root = tmp_path / "clone"
    shutil.copytree(PACKAGE, root / "minigen", ignore=shutil.ignore_patterns("_native*", "__pycache__", "sample"))
    (root / "csrc").mkdir()
    (tmp_path / "libraries").mkdir()  # what minigen needs, without a minigen that is installed beside it
    for path in LIBRARIES.iterdir():
        if path.name in ("numpy", "numpy.libs", "tqdm"):
            (tmp_path / "libraries" / path.name).symlink_to(path)
    return root


def python(code: str, folder: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in ``folder``, without the import hook of an editable install (-S)."""
    libraries = folder.parent / "libraries"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, libraries]))}
    command = [sys.executable, "-S", "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_source_tree_that_hides_an_installed_package_is_named(tree, tmp_path):
    site = tmp_path / "site"
    shutil.copytree(tree / "minigen", site / "minigen")
    (site / "minigen" / "_native.cpython-311.so").write_bytes(b"")
    error = python("import minigen.cpu", tree, site).stderr
    assert f"found the source tree {tree} before the minigen that is installed in {site}" in error
    assert "in another folder" in error and f"pip install -e {tree}" in error and "compiler" not in error


def test_a_source_tree_that_was_never_built(tree):
    error = python("import minigen.cpu", tree).stderr
    assert f"the source tree {tree} is not compiled" in error and f"pip install -e {tree}" in error
    assert "C++20 compiler" in error


def test_a_module_that_cannot_be_loaded(tree):
    (tree / "minigen" / "_native.so").write_bytes(b"no library")
    error = python("import minigen.cpu", tree).stderr
    assert "cannot be loaded (" in error and "_native.so" in error and "pip install ." in error


def test_auto_warns_once_that_it_takes_numpy_and_why(tree):
    done = python(TRAIN, tree)
    assert done.stdout.split() == ["numpy", "numpy"], done.stderr
    assert done.stderr.count("UserWarning") == 1
    assert "device='auto' takes 'numpy', which is slower, because 'cpu' cannot be used" in done.stderr
    assert f"the source tree {tree} is not compiled" in done.stderr


def test_a_named_device_brings_no_warning(tree):
    done = python(TRAIN.replace("hidden=2", "hidden=2, device='numpy'"), tree)
    assert done.stdout.split() == ["numpy", "numpy"] and "Warning" not in done.stderr, done.stderr

"""Each example runs, in its shortened form, and writes the picture that it promises."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minigen

FOLDER = Path(__file__).resolve().parent.parent / "examples"
STEPS = ["gan_step", "vae_step"]  # one training step by hand: they stop where a number differs
PICTURES = ["clothes", "digits", "interpolation", "recommendation"]
WITH_SKLEARN = ["anomalies", "conditional_digits", "medical", "spectra"]


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--quick"])
    try:
        runpy.run_path(str(FOLDER / f"{name}.py"))
    finally:
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PICTURES, *WITH_SKLEARN])
def test_it_makes_its_picture(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in WITH_SKLEARN:
        pytest.importorskip("sklearn")
    sample = minigen.datasets.mnist_sample()
    monkeypatch.setattr(minigen.datasets, "fashion_mnist", lambda split="train": sample)  # no download in a test
    run(name, tmp_path, monkeypatch)
    (path,) = (tmp_path / "runs" / "examples").iterdir()
    assert f"Writes runs/examples/{path.name}" in (FOLDER / f"{name}.py").read_text()
    with Image.open(path) as picture:
        assert np.ptp(np.asarray(picture.convert("L"))) > 20
        assert path.suffix == ".png" or picture.n_frames > 10


def test_the_page_has_a_line_for_each() -> None:
    text = (FOLDER / "README.md").read_text()
    scripts = sorted(path.stem for path in FOLDER.glob("*.py"))
    assert {*STEPS, *PICTURES, *WITH_SKLEARN} <= set(scripts)
    assert [name for name in scripts if f"[`{name}.py`]({name}.py)" not in text] == []
    pictures = re.findall(r"\]\((pictures/[\w.]+)\)", text)
    assert {Path(picture).stem for picture in pictures} == {*PICTURES, *WITH_SKLEARN}
    assert [picture for picture in pictures if not (FOLDER / picture).exists()] == []


@pytest.mark.parametrize("name", STEPS)
def test_a_step_by_hand_agrees_in_every_number(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(name, tmp_path, monkeypatch)


WRONG = {
    "a derivative before the activation": ("gan_step", "(1 - mine**2)", "(1 - mine)"),
    "a mean that is a sum": ("gan_step", "-1 / (1 + np.exp(s)) / B", "-1 / (1 + np.exp(s))"),
    "another beta": ("gan_step", "beta2=0.999", "beta2=0.99"),
    "a KL without its half": ("vae_step", "- 1 - logvar).sum(axis=1) / 2\nsame", "- 1 - logvar).sum(axis=1)\nsame"),
    "the KL's gradient forgotten": ("vae_step", "dz + mu / B", "dz"),
    "sigma for its half": ("vae_step", "dz * sigma * eps / 2", "dz * sigma * eps"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_line_stops_the_step(name: str, tmp_path: Path) -> None:
    script, right, wrong = WRONG[name]
    text = (FOLDER / f"{script}.py").read_text()
    assert right in text
    path = tmp_path / "wrong.py"
    path.write_text(text.replace(right, wrong))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        runpy.run_path(str(path))


@pytest.mark.slow  # a kernel takes seconds to start
@pytest.mark.parametrize("name", STEPS)
def test_a_step_by_hand_is_a_notebook(name: str, tmp_path: Path) -> None:
    """Its cells run in a kernel and print what the script prints; each stands under a text."""
    jupytext, nbclient = pytest.importorskip("jupytext"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = jupytext.read(FOLDER / f"{name}.py")
    assert [cell.cell_type for cell in notebook.cells] == ["markdown", "code"] * (len(notebook.cells) // 2)
    assert len(notebook.cells) >= 16 and notebook.cells[0].source.startswith("# One training step")
    for cell in notebook.cells[::2]:
        assert cell.source.count("$$") % 2 == 0 and re.sub(r"`[^`]*`", "", cell.source).count("$") % 2 == 0
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3", resources=resources).execute()
    printed = [output.text for cell in notebook.cells[1::2] for output in cell.outputs]
    script = subprocess.run([sys.executable, FOLDER / f"{name}.py"], capture_output=True, text=True, check=True)
    assert "".join(printed) == script.stdout != ""

"""Every block of code on the pages of documentation runs, and prints what the page shows."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from doc_pages import ROOT, Block, blocks, run, same_output
from minigen.reference import dense

DOCS = ROOT / "docs"
# A Chinese page has the code of its English one, which a test below compares.
PAGES = sorted(path for path in DOCS.glob("*[!h].md") if "```python" in path.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs_and_prints_what_it_shows(page: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    run(page, {"__name__": "__main__"})


def test_a_wrong_output_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for shown in ("```text\n2\n```\n", ""):
        page.write_text("```python\nprint(1)\n```\n" + shown)
        with pytest.raises(AssertionError, match="page.md, line 1 prints"):
            run(page, {})
    page.write_text("```python\nprint(1)\n```\n```text\n1\n```\n\n```python\nassert False\n```\n")
    with pytest.raises(AssertionError):
        run(page, {})


def test_the_loop_in_c_is_the_reference(tmp_path: Path) -> None:
    compiler = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        pytest.skip("no C compiler")
    (block,) = (block for block in blocks((DOCS / "1-dense.md").read_text()) if block.language == "c")
    assert len(block.code.splitlines()) <= 12
    source, library = tmp_path / "dense.c", tmp_path / "dense.so"
    source.write_text(block.code)
    flags = ["-std=c99", "-O1", "-shared", "-fPIC", "-Wall", "-Werror"]
    subprocess.run([compiler, *flags, source, "-o", library], check=True)
    rng = np.random.default_rng()
    rows, inputs, outputs = (int(n) for n in rng.integers(1, 20, 3))
    x, W, b = (rng.standard_normal(shape, np.float32) for shape in ((rows, inputs), (inputs, outputs), (outputs,)))
    y = np.full((rows, outputs), np.nan, np.float32)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, W, b, y)]
    ctypes.CDLL(str(library)).dense_forward(*pointers, rows, inputs, outputs)
    expected = dense.forward(*(array.astype(np.float64) for array in (x, W, b)))
    assert np.allclose(y, expected, rtol=1e-4, atol=1e-5)


def with_triton() -> list[Any]:
    return [
        pytest.param(path, block, id=f"{path.name}:{block.line}")
        for path in PAGES
        for block in blocks(path.read_text())
        if block.language == "python" and "import triton" in block.code
    ]


@pytest.mark.slow  # Triton and torch take seconds to import
@pytest.mark.parametrize("page, block", with_triton())
def test_a_block_with_triton_runs_in_its_interpreter(page: Path, block: Block, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    pytest.importorskip("torch")
    program = tmp_path / "block.py"
    program.write_text(block.code)
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    same_output(done.stdout, block, page)


PEOPLE = "age,hours,sex,income\n" + "".join(
    f"{17 + i % 60}, {20 + 7 * i % 40}, {('Male', 'Female')[i % 2]}, {('<=50K', '>50K')[i % 3 == 0]}\n"
    for i in range(300)
)


@pytest.mark.slow  # five seconds of processor time
def test_the_code_of_the_readme_runs(tmp_path: Path, monkeypatch: Any) -> None:
    """On a few rows, for an epoch."""
    fit = minigen.GAN.fit
    assert fit is minigen.VAE.fit

    def fit_briefly(model: Any, *arguments: Any, **options: Any) -> Any:
        model.epochs = 1
        return fit(model, *arguments, **options)

    digits = minigen.datasets.mnist_sample()
    few = replace(digits, images=digits.images[:200], labels=digits.labels[:200])
    monkeypatch.setattr(minigen.datasets, "mnist_sample", lambda: few)
    for kind in (minigen.GAN, minigen.VAE):
        monkeypatch.setattr(kind, "fit", fit_briefly)
    monkeypatch.chdir(tmp_path)
    Path("adult.csv").write_text(PEOPLE)
    rows = np.random.default_rng(0).standard_normal((200, 5))
    without = "" if all(map(find_spec, ("pandas", "narwhals", "sklearn"))) else "pandas"
    run(ROOT / "README.md", {"__name__": "__main__", "rows": rows}, shown=False, without=without)


TRANSLATED = {"README.zh.md": "README.md", "docs/article.zh.md": "docs/article.md"}


@pytest.mark.parametrize("chinese, english", TRANSLATED.items())
def test_a_chinese_page_has_the_code_and_formulas_of_its_english_one(chinese: str, english: str) -> None:
    """All of them; the Chinese README is shorter, and has lines of it."""
    pages = [(ROOT / name).read_text() for name in (chinese, english)]
    theirs, ours = ([(block.language, block.code, block.prints) for block in blocks(page)] for page in pages)
    if english == "README.md":
        lines = {line for _, code, _ in ours for line in code.splitlines()}
        assert [line for _, code, _ in theirs for line in code.splitlines() if line not in lines] == []
        return
    assert theirs == ours, "make docs"
    links = [re.findall(r"\]\((\.\./[^)]*)\)", page) for page in pages]
    assert sorted(set(links[0])) == sorted(set(links[1]))


def test_the_tape_has_sixty_lines_at_most() -> None:
    (tape,) = (block for block in blocks((DOCS / "6-autodiff.md").read_text()) if "class Array" in block.code)
    assert len(tape.code.splitlines()) <= 60

"""The pages of documentation name files that exist, and hold the tables that the code gives."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from minigen import ops, registry

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["CONTRIBUTING.md", "docs/architecture.md", "README.md", "bench/README.md", "docs/gpu-checklist.md"]
PAGES += ["bench/ladder/README.md"]
FILE = re.compile(r"[\w./-]+/[\w.-]+\.(?:py|cpp|hpp|cu|cuh|inc|md|sh|toml|json)\b|\b\w+\.(?:py|hpp|cpp|inc)\b")
MADE = ("runs/", "gpu/", "bench/prepared", "results/gpu-", "out/")  # by commands that a page tells of


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    code = re.findall(r"`([^`\n]+)`|\]\(([^)#]+)\)", (ROOT / page).read_text())
    named = {name for pair in code for text in pair for name in FILE.findall(text) if "://" not in text}
    named = {name for name in named if not any(made in name for made in MADE)}
    everywhere = [
        path.relative_to(ROOT).as_posix()
        for top in ("minigen", "csrc", "tests", "bench", "docs")
        for path in (ROOT / top).rglob("*.*")
    ]
    everywhere += [path.name for path in ROOT.iterdir()]
    names = {name.lstrip("./") for name in named}
    missing = sorted(n for n in names if not any(path == n or path.endswith("/" + n) for path in everywhere))
    assert missing == [] and (named or page == "README.md")


def test_the_table_of_operations_is_that_of_the_registry() -> None:
    assert ops.OPERATIONS
    text = (ROOT / "docs" / "operations.md").read_text()
    assert text.endswith(registry.table()), "run: make tables"

"""Every block of code on the pages of documentation runs, and prints what the page shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from doc_pages import ROOT, run

PAGES = sorted(path for path in (ROOT / "docs").glob("*.md") if "```python" in path.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs_and_prints_what_it_shows(page: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    run(page, {"__name__": "__main__"})

"""The pages of documentation as tests see them: their blocks of code, what they cite, and how their code is run.

``python tests/doc_pages.py`` writes what the code prints into the pages (``make docs``); look at the difference.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^(```+)([\w-]*)[^\n]*\n(.*?)^\1[ \t]*$\n?", re.M | re.S)
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
CITED = re.compile(r"^`?([\w./-]+\.\w+): ([\w.]+)`?$")  # of a link's text: `reference/dense.py: dgrad`
PAGES = ["CONTRIBUTING.md", "docs/architecture.md", "README.md", "bench/README.md", "docs/gpu-checklist.md"]
PAGES += ["bench/ladder/README.md"]
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
EXAMPLES = ["examples/README.md", "examples/exercises/README.md"]
CITING = sorted({*PAGES, *DOCS, *EXAMPLES, *(path.name for path in ROOT.glob("README*.md"))})
DOTTED = re.compile(r"`(minigen(?:\.\w+)+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and what the block right behind a Python one, a ``text`` or a graph, says that it
    prints."""

    language: str
    code: str
    line: int
    prints: str | None


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page but those that show what another prints."""
    found = list(FENCE.finditer(text))
    result = []
    shown = None
    for match, following in zip_longest(found, found[1:]):
        if match is shown:
            continue
        shown = following if following is not None and _shows(text, match, following) else None
        line = text.count("\n", 0, match.start()) + 1
        result.append(Block(match[2], match[3], line, shown and shown[3]))
    return result


def _shows(text: str, block: re.Match[str], following: re.Match[str]) -> bool:
    """Whether the block ``following`` is what ``block`` prints."""
    behind = not text[block.end() : following.start()].strip()
    return behind and block[2] == "python" and following[2] in ("text", "mermaid")


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", text)


def run(page: Path, namespace: dict[str, Any], *, shown: bool = True, without: str = "") -> None:
    """Run a page's Python from top to bottom, in one namespace, and compare what each block prints.

    Unless all of it is ``shown`` on the page. Blocks with the word ``without`` in them are left out, and those that
    import Triton, which need a process of their own.
    """
    for block in blocks(page.read_text()):
        if runs(block) and not (without and without in block.code):
            printed = printed_by(block, page, namespace)
            if shown or block.prints is not None:
                same_output(printed, block, page)


def runs(block: Block) -> bool:
    """Whether a block is Python and needs no process of its own."""
    return block.language == "python" and "import triton" not in block.code


def printed_by(block: Block, page: Path, namespace: dict[str, Any]) -> str:
    """Run a block, and what it prints."""
    printed = io.StringIO()
    code = "\n" * block.line + block.code  # so that a traceback names the page's line
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(page), "exec"), namespace)
    return printed.getvalue()


def filled(page: Path) -> str:
    """The page with what its code prints now."""
    text, namespace, lines = page.read_text(), {"__name__": "__main__"}, []
    outputs = {block.line: printed_by(block, page, namespace) for block in blocks(text) if runs(block)}
    position, found = 0, list(FENCE.finditer(text))
    for match, following in zip_longest(found, found[1:]):
        printed = outputs.get(text.count("\n", 0, match.start()) + 1, "").strip("\n")
        if not printed:
            continue
        graph = printed.startswith("flowchart")
        block = "\n".join(line.rstrip() for line in printed.splitlines())
        lines += [text[position : match.end()], f"```{'mermaid' if graph else 'text'}\n{block}\n```\n"]
        shown = following is not None and _shows(text, match, following)
        position = following.end() if following is not None and shown else match.end()
    return "".join([*lines, text[position:]])


def same_output(printed: str, block: Block, page: Path) -> None:
    """Raise AssertionError unless a block printed what the page shows; nothing is shown of a block that is silent."""
    shown = block.prints or ""
    where = f"{page.name}, line {block.line}"
    assert [line.rstrip() for line in printed.strip("\n").splitlines()] == [
        line.rstrip() for line in shown.strip("\n").splitlines()
    ], f"{where} prints\n{printed}"


def unresolved(page: Path) -> Iterator[str]:
    """What a page cites and is not there: files, headings, symbols, lines."""
    text = prose(page.read_text())
    for label, target in LINK.findall(text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists():
            yield f"{target}: no such file"
        elif anchor and path.suffix == ".md":
            if anchor not in anchors(path.read_text()):
                yield f"{target}: no such heading"
        elif anchor and not (lines := cited_lines(path, anchor)):
            yield f"{target}: no such line"
        elif cited := CITED.match(label):
            if not path.as_posix().endswith(cited[1]):
                yield f"{label} leads to {target}"
            elif not defines(path.read_text(), cited[2]):
                yield f"{label}: not defined there"
            elif anchor and not re.search(rf"\b{re.escape(cited[2].rpartition('.')[2])}\b", lines):
                yield f"{label}: not in the lines {anchor}"
    for dotted in DOTTED.findall(text):
        if not importable(dotted):
            yield f"{dotted}: cannot be imported"


def anchors(text: str) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).replace(" ", "-") for heading in headings}


def cited_lines(path: Path, anchor: str) -> str:
    """The text of ``#L3`` or ``#L3-L7``; empty where there are no such lines."""
    match = re.fullmatch(r"L(\d+)(?:-L(\d+))?", anchor)
    if not match:
        return ""
    first, last = int(match[1]), int(match[2] or match[1])
    lines = path.read_text().splitlines()
    return "\n".join(lines[first - 1 : last]) if 0 < first <= last <= len(lines) else ""


def defines(source: str, symbol: str) -> bool:
    """Whether Python or C++ ``source`` defines ``symbol``; ``Class.method`` asks for both."""
    kinds = r"^\s*(?:(?:def|class|struct|enum class)\s+)?(?:[\w:<>&*]+\s+)*[*&]?"
    return all(re.search(rf"{kinds}{re.escape(part)}\b", source, re.M) for part in symbol.split("."))


def importable(dotted: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def translated(chinese: str, english: str) -> str:
    """The Chinese page with the code and the formulas of the English one, block for block."""
    ours = iter([match[0] for match in FENCE.finditer(english)])
    return FENCE.sub(lambda _: next(ours), chinese)


if __name__ == "__main__":
    for page in sorted((ROOT / "docs").glob("*.md")):
        if "```python" in page.read_text() and not page.name.endswith(".zh.md"):
            page.write_text(filled(page))
    article = ROOT / "docs" / "article.zh.md"
    article.write_text(translated(article.read_text(), (ROOT / "docs" / "article.md").read_text()))

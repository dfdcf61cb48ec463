"""The pages of documentation as tests see them: their blocks of code, what they cite, and how their code is run."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^(```+)([\w-]*)[^\n]*\n(.*?)^\1[ \t]*$\n?", re.M | re.S)
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
CITED = re.compile(r"^`?([\w./-]+\.\w+): ([\w.]+)`?$")  # of a link's text: `reference/dense.py: dgrad`
DOTTED = re.compile(r"`(minigen(?:\.\w+)+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and what the block right behind it, of language ``text``, says that it prints."""

    language: str
    code: str
    line: int
    prints: str | None


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page but those that show what another prints."""
    found = list(FENCE.finditer(text))
    result = []
    for match, following in zip(found, [*found[1:], None], strict=True):
        shown = None
        if following is not None and following[2] == "text" and not text[match.end() : following.start()].strip():
            shown = following[3]
        if match[2] != "text":
            result.append(Block(match[2], match[3], text.count("\n", 0, match.start()) + 1, shown))
    return result


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", text)


def run(page: Path, namespace: dict[str, Any]) -> None:
    """Run a page's Python from top to bottom, in one namespace, and compare what each block prints.

    A block that imports Triton is left out here: it needs a process of its own.
    """
    for block in blocks(page.read_text()):
        if block.language != "python" or "import triton" in block.code:
            continue
        printed = io.StringIO()
        code = "\n" * block.line + block.code  # so that a traceback names the page's line
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(page), "exec"), namespace)
        same_output(printed.getvalue(), block, page)


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

"""The README and the documentation as tests read them: their code blocks, commands and links."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "android_runner" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "templates" not in page.parts]
GENERATED = {"cli.md", "api"}  # by docs/hooks.py when the site is built
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", flags=re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced code block and the page it is on."""

    page: str
    number: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}#{self.number}"


def text(page: str) -> str:
    """Return a page, named from the repository's folder."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(*languages: str, page: str | None = None) -> list[Block]:
    """Return the code blocks in these languages, of one page or of all."""
    found = []
    for path in PAGES:
        name = str(path.relative_to(ROOT))
        if page in (None, name):
            fences = FENCE.findall(path.read_text(encoding="utf-8"))
            found += [Block(name, n, lang, code) for n, (lang, code) in enumerate(fences, 1) if lang in languages]
    return found


def commands(block: Block) -> list[list[str]]:
    """Return the command lines of a shell block as words, without comments; lines that go on are joined."""
    lines = block.code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def prose(path: Path) -> str:
    """Return a page without its code blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def spans(path: Path) -> list[str]:
    """Return the inline code of a page."""
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(path))]


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MkDocs both make them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), flags=re.M)
    plain = [re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower() for heading in headings]
    return {re.sub(r"[ ]+", "-", heading) for heading in plain}

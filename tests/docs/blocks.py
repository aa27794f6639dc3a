"""What the documentation holds: fenced blocks with their marks, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

_FENCE = re.compile(r"^(?P<ticks>`{3,})(?P<language>[\w-]*)\s*$")
_MARK = re.compile(r"^<!-- (?P<mark>[^>]+?) -->$")
_HEADING = re.compile(r"^#{1,6} (?P<text>.+?)\s*$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One fenced block; ``marks`` are the HTML comments right above it: ``exits 3``, ``file: a/b.yaml``."""

    path: Path
    line: int
    language: str
    text: str
    marks: tuple[str, ...]

    @property
    def where(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    def mark(self, name: str) -> str | None:
        """Return what follows ``name`` in the block's marks, or None."""
        return next((mark[len(name) :].strip(" :") for mark in self.marks if mark.startswith(name)), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """One ``$`` line of a console block and the output that the document shows for it."""

    text: str
    line: int
    output: str


def documents() -> tuple[Path, ...]:
    """Return every Markdown file that a reader is meant to read."""
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    return tuple(sorted(path for path in paths if "workspace" not in path.parts))


def blocks(path: Path) -> Iterator[Block]:
    """Yield the fenced blocks of one document, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    marks: list[str] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        fence = _FENCE.match(line)
        if fence is None:
            mark = _MARK.match(line)
            marks = [*marks, mark["mark"]] if mark else (marks if not line.strip() else [])
            number += 1
            continue
        end = lines.index(fence["ticks"], number + 1)
        text = "\n".join(lines[number + 1 : end]) + "\n"
        yield Block(path=path, line=number + 1, language=fence["language"], text=text, marks=tuple(marks))
        marks = []
        number = end + 1


def commands(block: Block) -> Iterator[Command]:
    """Yield a console block's commands; a trailing backslash or an open here-document continues one."""
    lines = block.text.splitlines()
    number = 0
    while number < len(lines):
        if not lines[number].startswith("$ "):
            raise ValueError(f"{block.where}: output before any command: {lines[number]!r}")
        start = number
        command = [lines[number][2:]]
        number += 1
        end_word = re.search(r"<<-?\s*'?(\w+)'?", command[0])
        while number < len(lines) and (
            command[-1].endswith("\\") or (end_word and command[-1] != end_word[1])
        ):
            command.append(lines[number])
            number += 1
        output = []
        while number < len(lines) and not lines[number].startswith("$ "):
            output.append(lines[number])
            number += 1
        yield Command(text="\n".join(command), line=block.line + start + 1, output="\n".join(output))


def prose(path: Path) -> str:
    """Return a document without its fenced blocks."""
    kept = []
    ticks = None
    for line in path.read_text(encoding="utf-8").splitlines():
        fence = _FENCE.match(line)
        if ticks is None and fence is None:
            kept.append(line)
        elif ticks is None and fence is not None:
            ticks = fence["ticks"]
        elif line == ticks:
            ticks = None
    return "\n".join(kept)


def anchors(path: Path) -> frozenset[str]:
    """Return the anchors that a Markdown viewer makes of the headings, and the explicit ones."""
    text = prose(path)
    made = [_slug(match["text"]) for line in text.splitlines() if (match := _HEADING.match(line))]
    return frozenset([*made, *re.findall(r'<a (?:id|name)="([^"]+)"', text)])


def links(path: Path) -> tuple[str, ...]:
    """Return the targets of all links in the prose of a document."""
    return tuple(match["target"] for match in _LINK.finditer(prose(path)))


def _slug(heading: str) -> str:
    bare = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", bare).strip().replace(" ", "-")

"""read_file, write_file and list_files: one file operation of the guest each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import Final

from budgets.call import Effects, JsonValue, PathUse
from budgets.reasons import Reason
from executor.tools.arguments import Argument, Arguments, text_bytes
from executor.tools.base import Action, Bench, Performed, Tool, refused, relative, shown
from sandboxes.base import DirectoryEntry, FileContent, FileProblem

MAX_FILE_BYTES: Final = 8 * 1024 * 1024
_SNIFFED_BYTES: Final = 8192
_MAX_OUTPUT_BYTES: Final = 2 * 1024 * 1024
_MAX_LINES: Final = 2000
_IMAGES: Final = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"RIFF": "image/webp",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadFile:
    """Lines of one text file, numbered."""

    path: str
    offset: int
    limit: int

    def effects(self) -> Effects:
        """Name the file as read."""
        return Effects(paths=(PathUse(path=self.path, access="read"),))

    async def perform(self, bench: Bench) -> Performed:
        """Read the file once and give the lines asked for."""
        found = await bench.sandbox.read_file(relative(bench, self.path), max_bytes=MAX_FILE_BYTES)
        if isinstance(found, FileProblem):
            return refused(found)
        if b"\0" in found.data[:_SNIFFED_BYTES]:
            return self._binary(found)
        return self._lines(found, min(_MAX_OUTPUT_BYTES, bench.output_left_bytes))

    def _lines(self, found: FileContent, max_output_bytes: int) -> Performed:
        lines = found.data.split(b"\n")
        if lines[-1] == b"":
            lines.pop()
        asked = lines[self.offset - 1 : self.offset - 1 + self.limit]
        output, given = _numbered(asked, self.offset, max_output_bytes)
        following = self.offset + given
        more = following <= len(lines) or found.truncated
        result: dict[str, JsonValue] = {
            "total_lines": len(lines),
            "file_size": found.size,
            "truncated": more,
            "is_binary": False,
            "is_image": False,
        }
        if more:
            result["next_offset"] = following
        if found.truncated:
            result["hint"] = f"only the first {MAX_FILE_BYTES} bytes were looked at"
        elif self.offset > max(1, len(lines)):
            result["hint"] = f"the file has {len(lines)} lines"
        return Performed(
            output=output,
            truncated=given < len(asked),
            result=result,
            observed={"bytes": len(found.data)},
        )

    def _binary(self, found: FileContent) -> Performed:
        kind = next((kind for magic, kind in _IMAGES.items() if found.data.startswith(magic)), None)
        result: dict[str, JsonValue] = {
            "file_size": found.size,
            "is_binary": True,
            "is_image": kind is not None,
        }
        if kind is not None:
            result["mime_type"] = kind
        return Performed(
            status="error",
            reasons=(
                Reason(
                    code="file.invalid_text",
                    detail=f"{shown(self.path)}: not a text file, {found.size} bytes",
                ),
            ),
            result=result,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteFile:
    """One file that shall hold exactly these bytes."""

    path: str
    content: bytes
    expected_sha256: str | None

    def effects(self) -> Effects:
        """Name the file as written, with its size."""
        return Effects(paths=(PathUse(path=self.path, access="write"),), written_bytes=len(self.content))

    async def perform(self, bench: Bench) -> Performed:
        """Put the content in place, making parent directories."""
        path = relative(bench, self.path)
        done = await bench.sandbox.write_file(path, self.content, expected_sha256=self.expected_sha256)
        if isinstance(done, FileProblem):
            return refused(done)
        digest = hashlib.sha256(self.content).hexdigest()
        return Performed(
            output=f"wrote {done.bytes_written} bytes to {shown(path)}".encode(),
            written_bytes=done.bytes_written,
            result={
                "bytes_written": done.bytes_written,
                "dirs_created": done.directories_created > 0,
                "created": done.created,
                "resolved_path": path,
                "files_modified": [path],
                "sha256": digest,
            },
            observed={"bytes": done.bytes_written, "sha256": digest},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ListFiles:
    """The names below one directory."""

    path: str
    recursive: bool
    limit: int

    def effects(self) -> Effects:
        """Name the directory as read."""
        return Effects(paths=(PathUse(path=self.path, access="read"),))

    async def perform(self, bench: Bench) -> Performed:
        """List what the read scope lets one see."""
        path = relative(bench, self.path)
        found = await bench.sandbox.list_directory(
            path, recursive=self.recursive, max_entries=_listed(self.limit)
        )
        if isinstance(found, FileProblem):
            return refused(found)
        visible = [entry for entry in found.entries if _visible(bench, entry)]
        given = visible[: self.limit]
        return Performed(
            output="".join(f"{_line(entry)}\n" for entry in given).encode("utf-8", "surrogateescape"),
            result={
                "total_count": len(visible),
                "truncated": found.truncated or len(given) < len(visible),
                "resolved_path": path,
            },
            observed={"entries": len(given)},
        )


def _parse_read(given: Mapping[str, JsonValue]) -> Action | Reason:
    values = _READ.read(given)
    if isinstance(values, Reason):
        return values
    return ReadFile(
        path=str(values["path"]), offset=_integer(values["offset"]), limit=_integer(values["limit"])
    )


def _parse_write(given: Mapping[str, JsonValue]) -> Action | Reason:
    values = _WRITE.read(given)
    if isinstance(values, Reason):
        return values
    expected = values["expected_sha256"]
    return WriteFile(
        path=str(values["path"]),
        content=text_bytes(str(values["content"])) or b"",
        expected_sha256=None if expected is None else str(expected),
    )


def _parse_list(given: Mapping[str, JsonValue]) -> Action | Reason:
    values = _LIST.read(given)
    if isinstance(values, Reason):
        return values
    return ListFiles(
        path=str(values["path"]), recursive=bool(values["recursive"]), limit=_integer(values["limit"])
    )


def _numbered(lines: list[bytes], first: int, max_bytes: int) -> tuple[bytes, int]:
    marks = [b"%d|" % number for number in range(first, first + len(lines))]
    sizes = [len(mark) + len(line) + 1 for mark, line in zip(marks, lines, strict=True)]
    given = len(lines)
    if sum(sizes) > max_bytes:
        given = sum(1 for _ in takewhile(lambda end: end <= max_bytes, accumulate(sizes)))
    if given == 0 and lines:
        # A first line that is too long by itself is cut rather than never shown.
        return (marks[0] + lines[0])[:max_bytes], 1
    parts = [b"\n"] * (3 * given)
    parts[0::3], parts[1::3] = marks[:given], lines[:given]
    return b"".join(parts), given


def _listed(limit: int) -> int:
    # What the read scope hides must not use up the places of what it shows.
    return min(20_000, 4 * limit + 1000)


def _visible(bench: Bench, entry: DirectoryEntry) -> bool:
    return bench.scope.readable(entry.path)


def _line(entry: DirectoryEntry) -> str:
    marks = {"directory": "/", "symlink": "@", "other": "?"}
    return f"{entry.path}{marks.get(entry.kind, '')}"


def _integer(value: JsonValue) -> int:
    if not isinstance(value, int):
        return int(str(value))
    return value


_PATH = Argument(
    name="path",
    kind="string",
    description="Path of the file, relative to the workspace or absolute below its mount point",
    required=True,
)
_READ = Arguments(
    _PATH,
    Argument(
        name="offset",
        kind="integer",
        description="Line to start from; the first is 1",
        default=1,
        minimum=1,
    ),
    Argument(
        name="limit",
        kind="integer",
        description="How many lines at most",
        default=500,
        minimum=1,
        maximum=_MAX_LINES,
    ),
)
_WRITE = Arguments(
    _PATH,
    Argument(name="content", kind="string", description="Everything the file shall hold", required=True),
    Argument(
        name="expected_sha256",
        kind="string",
        description="Only write if the file's present content has this SHA-256, in hex",
    ),
    Argument(name="cross_profile", kind="boolean", description="Has no meaning here", only=False),
)
_LIST = Arguments(
    Argument(
        name="path",
        kind="string",
        description="Directory, relative to the workspace or absolute below its mount point",
        default=".",
    ),
    Argument(name="recursive", kind="boolean", description="Also everything below it", default=False),
    Argument(
        name="limit",
        kind="integer",
        description="How many names at most",
        default=500,
        minimum=1,
        maximum=5000,
    ),
)

READ_FILE: Final = Tool(
    name="read_file",
    description=(
        "Read a text file of the workspace. Lines come numbered as LINE|CONTENT; offset and limit page "
        "through long files, and next_offset says where to go on."
    ),
    input_schema=_READ.schema(),
    parse=_parse_read,
    text_field="content",
)
WRITE_FILE: Final = Tool(
    name="write_file",
    description="Write a file of the workspace, replacing what it held. Parent directories are made.",
    input_schema=_WRITE.schema(),
    parse=_parse_write,
    text_field="message",
)
LIST_FILES: Final = Tool(
    name="list_files",
    description="List a directory of the workspace, in order of path. Directories end in /, links in @.",
    input_schema=_LIST.schema(),
    parse=_parse_list,
    text_field="files",
)

"""search_files: content by regular expression, or names by glob, filtered by what the remit lets one read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Literal

from budgets.call import Effects, JsonValue, PathUse
from budgets.reasons import Reason
from executor.tools.arguments import Argument, Arguments
from executor.tools.base import Action, Bench, Performed, Tool, failed, objection, relative, shown
from executor.tools.terminal import told
from sandboxes.base import ExecRequest, ExecResult

_MAX_RESULTS: Final = 10_000
_MAX_BYTES: Final = 1024 * 1024
_TIMEOUT_SECONDS: Final = 30.0
_FIELDS: Final = 4
_SCRIPT: Final = Path(__file__).with_name("search_script.py").read_text("utf-8")
_INVALID_PATTERN, _NOTHING_THERE, _THROUGH_LINK = 3, 4, 5

RowKind = Literal["m", "c", "f", "t"]
_KINDS: Final[Mapping[bytes, RowKind]] = {b"m": "m", b"c": "c", b"f": "f", b"t": "t"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line that the search answered."""

    kind: RowKind
    path: str
    number: int
    text: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchFiles:
    """A search below one path."""

    pattern: str
    target: str
    path: str
    file_glob: str
    limit: int
    offset: int
    output_mode: str
    context: int

    def effects(self) -> Effects:
        """Name where it looks; what it finds there is filtered by the read scope."""
        return Effects(paths=(PathUse(path=self.path, access="read"),))

    async def perform(self, bench: Bench) -> Performed:
        """Search inside the sandbox, under a wall limit of its own."""
        refusal = await objection(bench, relative(bench, self.path), directory=False)
        if refusal is not None:
            return refusal
        ended = await bench.sandbox.exec(self._request(bench))
        if ended.exit_code == _NOTHING_THERE:
            return failed("file.not_found", f"{shown(self.path)}: there is no such file or directory")
        if ended.exit_code == _THROUGH_LINK:
            return failed("file.symlink", f"{shown(self.path)}: the path goes through a link")
        if ended.exit_code == _INVALID_PATTERN:
            return failed("search.invalid", f"pattern: {ended.output.decode('utf-8', 'replace')[:200]}")
        if ended.limit is not None:
            return told(ended)
        if ended.exit_code != 0 or ended.truncated:
            return failed("search.invalid", f"the search program ended with {_ending(ended)}")
        return self._answer(
            [row for row in _rows(ended.output) if row.kind == "t" or bench.scope.readable(row.path)]
        )

    def _request(self, bench: Bench) -> ExecRequest:
        parameters = (
            self.target,
            self.pattern,
            relative(bench, self.path),
            self.file_glob,
            str(self.context if self.output_mode == "content" else 0),
            str(_MAX_RESULTS),
            str(_MAX_BYTES),
        )
        return ExecRequest(
            argv=("python3", "-I", "-S", "-c", _SCRIPT, *parameters),
            timeout_seconds=min(_TIMEOUT_SECONDS, bench.timeout_seconds),
            max_output_bytes=2 * _MAX_BYTES,
        )

    def _answer(self, rows: list[Row]) -> Performed:
        capped = any(row.kind == "t" and row.number for row in rows)
        if self.output_mode == "count" and self.target == "content":
            return self._page(list(_counted(rows)), capped=capped)
        if self.output_mode == "files_only" or self.target == "files":
            return self._page([_escaped(path) for path in dict.fromkeys(_found(rows))], capped=capped)
        return self._page(list(_blocks(rows)), capped=capped)

    def _page(self, results: list[str], *, capped: bool) -> Performed:
        given = list(islice(results, self.offset, self.offset + self.limit))
        result: dict[str, JsonValue] = {
            "total_count": len(results),
            "truncated": capped or self.offset + len(given) < len(results),
        }
        if capped:
            result["limit_reason"] = f"stopped after {_MAX_RESULTS} results or {_MAX_BYTES} bytes"
        if self.offset + len(given) < len(results):
            result["next_offset"] = self.offset + len(given)
        output = "".join(f"{text}\n" for text in given).encode("utf-8", "surrogateescape")
        return Performed(output=output, result=result, observed={"results": len(results)})


def _rows(output: bytes) -> Iterator[Row]:
    fields = output.split(b"\0")
    for start in range(0, len(fields) - _FIELDS, _FIELDS):
        kind, path, number, text = fields[start : start + _FIELDS]
        known = _KINDS.get(kind)
        if known is not None:
            yield Row(kind=known, path=path.decode("utf-8", "surrogateescape"), number=int(number), text=text)


def _found(rows: list[Row]) -> Iterator[str]:
    return (row.path for row in rows if row.kind in ("m", "f"))


def _counted(rows: list[Row]) -> Iterator[str]:
    counts: dict[str, int] = {}
    for path in _found(rows):
        counts[path] = counts.get(path, 0) + 1
    return (f"{_escaped(path)}:{count}" for path, count in counts.items())


def _blocks(rows: list[Row]) -> Iterator[str]:
    # Context goes with the match that it stands before or after, so that a page never starts in the middle.
    waiting: list[str] = []
    for row in rows:
        if row.kind == "t":
            continue
        mark = ":" if row.kind == "m" else "-"
        text = f"{_escaped(row.path)}{mark}{row.number}{mark}{row.text.decode('utf-8', 'replace')}"
        waiting.append(text)
        if row.kind == "m":
            yield "\n".join(waiting)
            waiting = []
    if waiting:
        yield "\n".join(waiting)


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace("\n", "\\n")


def _ending(ended: ExecResult) -> str:
    if ended.truncated:
        return "more output than it is made to give"
    return f"exit status {ended.exit_code}" if ended.signal is None else f"signal {ended.signal}"


def _parse(given: Mapping[str, JsonValue]) -> Action | Reason:
    values = _ARGUMENTS.read(given)
    if isinstance(values, Reason):
        return values
    for name in ("pattern", "file_glob"):
        if "\0" in str(values[name]) or len(str(values[name])) > 10_000:
            return Reason(
                code="arguments.invalid", detail=f"{name} holds a NUL or is longer than 10000 characters"
            )
    numbers = {name: value for name, value in values.items() if isinstance(value, int)}
    return SearchFiles(
        pattern=str(values["pattern"]),
        target=str(values["target"]),
        path=str(values["path"]),
        file_glob=str(values["file_glob"] or ""),
        limit=numbers["limit"],
        offset=numbers["offset"],
        output_mode=str(values["output_mode"]),
        context=numbers["context"],
    )


_ARGUMENTS = Arguments(
    Argument(
        name="pattern",
        kind="string",
        description="Regular expression (Python's) for target content, file name glob for target files",
        required=True,
    ),
    Argument(
        name="target",
        kind="string",
        description="Search inside files, or for files by name",
        choices=("content", "files"),
        default="content",
    ),
    Argument(name="path", kind="string", description="File or directory to search in", default="."),
    Argument(name="file_glob", kind="string", description="Only look into files with such a name, as *.py"),
    Argument(
        name="limit",
        kind="integer",
        description="How many results at most",
        default=50,
        minimum=1,
        maximum=1000,
    ),
    Argument(name="offset", kind="integer", description="How many results to skip", default=0, minimum=0),
    Argument(
        name="output_mode",
        kind="string",
        description="Matching lines, paths of files, or a count per file",
        choices=("content", "files_only", "count"),
        default="content",
    ),
    Argument(
        name="context",
        kind="integer",
        description="Lines to show before and after each match",
        default=0,
        minimum=0,
        maximum=20,
    ),
)

SEARCH_FILES: Final = Tool(
    name="search_files",
    description=(
        "Search the workspace: regular expression inside files (target content), or file names by glob "
        "(target files, newest first). Results are paged by limit and offset."
    ),
    input_schema=_ARGUMENTS.schema(),
    parse=_parse,
    text_field="matches",
    runs_command=True,
    deadline_seconds=90.0,
)

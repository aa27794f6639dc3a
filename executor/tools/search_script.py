"""The program that search_files runs inside the sandbox. Its source travels in argv, it imports none of ours.

A pattern comes from a model: matching it can take for ever. Here that ends at the command's wall limit and
costs the sandbox's processor time, never the guest's or the broker's.

Arguments: target, pattern, path, file_glob, context, max_results, max_bytes. Answer: fields that end in NUL,
four a row: kind (m match, c context, f file, t total), path, line number or count, text. Exit status 3: the
pattern is invalid; 4: nothing is there; 5: the path goes through a link.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import sys
from collections.abc import Iterator

MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_LINE_BYTES = 500
SNIFFED_BYTES = 8192


def walk(top: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield what is to be searched, names in order."""
    seen = os.lstat(top)
    if not stat.S_ISDIR(seen.st_mode):
        yield top, seen
        return
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)
            try:
                yield path, os.lstat(path)
            except OSError:
                continue


def through_link(path: bytes) -> bool:
    """Tell whether any part of a path is a link."""
    names = path.split(b"/")
    return any(os.path.islink(b"/".join(names[: count + 1])) for count in range(len(names)))


def content(path: bytes) -> bytes:
    """Read a regular file, at most so much of it."""
    # O_NONBLOCK: a FIFO that took the file's place must not hold the search.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        return file.read(MAX_FILE_BYTES)


class Rows:
    """The answer, written as it is found, up to its bounds."""

    def __init__(self, max_results: int, max_bytes: int) -> None:
        self.results = 0
        self.bytes = 0
        self.max_results = max_results
        self.max_bytes = max_bytes

    def full(self) -> bool:
        """Tell whether nothing more fits."""
        return self.results >= self.max_results or self.bytes >= self.max_bytes

    def add(self, kind: bytes, path: bytes, number: int, text: bytes) -> None:
        """Write one row."""
        clean = path[2:] if path.startswith(b"./") else path
        row = b"%b\0%b\0%d\0%b\0" % (kind, clean, number, text[:MAX_LINE_BYTES].replace(b"\0", b"?"))
        self.bytes += len(row)
        self.results += kind != b"c"
        sys.stdout.buffer.write(row)


def search_names(top: bytes, pattern: bytes, rows: Rows) -> None:
    """Answer the files whose name or path fits, newest first."""
    found: list[tuple[float, bytes]] = []
    for path, seen in walk(top):
        clean = path[2:] if path.startswith(b"./") else path
        if fnmatch.fnmatchcase(os.path.basename(path), pattern) or fnmatch.fnmatchcase(clean, pattern):
            found.append((-seen.st_mtime, path))
    for _, path in sorted(found):
        if rows.full():
            return
        rows.add(b"f", path, 0, b"")


def search_content(top: bytes, pattern: bytes, file_glob: bytes, context: int, rows: Rows) -> None:
    """Answer the lines that match."""
    expression = re.compile(pattern)
    for path, seen in walk(top):
        if rows.full():
            return
        if not stat.S_ISREG(seen.st_mode) or (file_glob and not wanted(path, file_glob)):
            continue
        try:
            data = content(path)
        except OSError:
            continue
        if b"\0" not in data[:SNIFFED_BYTES]:
            search_lines(path, data.split(b"\n"), expression, context, rows)


def wanted(path: bytes, file_glob: bytes) -> bool:
    """Tell whether a file's name or path fits."""
    clean = path[2:] if path.startswith(b"./") else path
    return fnmatch.fnmatchcase(os.path.basename(path), file_glob) or fnmatch.fnmatchcase(clean, file_glob)


def search_lines(
    path: bytes, lines: list[bytes], expression: re.Pattern[bytes], context: int, rows: Rows
) -> None:
    """Answer the matching lines of one file, with what stands around them."""
    if lines and not lines[-1]:
        lines.pop()
    shown = 0
    for index, line in enumerate(lines):
        if not expression.search(line):
            continue
        for before in range(max(shown, index - context), index):
            rows.add(b"c", path, before + 1, lines[before])
        rows.add(b"m", path, index + 1, line)
        shown = index + 1
        if rows.full():
            return
        for after in range(index + 1, min(len(lines), index + 1 + context)):
            if expression.search(lines[after]):
                break
            rows.add(b"c", path, after + 1, lines[after])
            shown = after + 1


def main() -> int:
    """Run one search."""
    target, pattern, path, file_glob = (os.fsencode(value) for value in sys.argv[1:5])
    context, max_results, max_bytes = (int(value) for value in sys.argv[5:8])
    rows = Rows(max_results, max_bytes)
    top = path if path == b"." else b"./" + path
    if not os.path.lexists(top):
        return 4
    if through_link(top):
        return 5
    try:
        if target == b"files":
            search_names(top, pattern, rows)
        else:
            search_content(top, pattern, file_glob, context, rows)
    except (re.error, RecursionError, OverflowError) as error:
        sys.stdout.write(str(error))
        return 3
    rows.add(b"t", b"", int(rows.full()), b"")
    return 0


if __name__ == "__main__":
    sys.exit(main())

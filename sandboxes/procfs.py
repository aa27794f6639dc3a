"""Tables of /proc about one process, as the host sees it."""

from __future__ import annotations

from pathlib import Path


def children(pid: int) -> list[int]:
    """Return the children of a process, in order of their start."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        # A kernel without CONFIG_PROC_CHILDREN.
        return [int(path.name) for path in Path("/proc").iterdir() if _is_child(path, pid)]


def colon_table(path: Path) -> dict[str, str]:
    """Return the rows ``name: value`` of a file."""
    rows = (line.partition(":") for line in path.read_text().splitlines())
    return {name: value.strip() for name, _, value in rows}


def limits_table(path: Path) -> dict[str, str]:
    """Return the soft limits by name; the columns are fixed in fs/proc/base.c."""
    return {line[:25].strip(): line[25:].split()[0] for line in path.read_text().splitlines()[1:]}


def mount_table(path: Path) -> dict[str, tuple[str, str]]:
    """Return type and options of the topmost mount at each place."""
    found = {}
    for line in path.read_bytes().decode("utf-8", "surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        found[_unescape(fields[4])] = (kind[0], f"{fields[5]} {kind[2]}")
    return found


def _is_child(path: Path, parent: int) -> bool:
    if not path.name.isdigit():
        return False
    try:
        text = (path / "stat").read_bytes()
    except OSError:
        return False
    return int(text[text.rindex(b")") + 2 :].split()[1]) == parent


def _unescape(text: str) -> str:
    codes = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\043", "#"), ("\\134", "\\"))
    for code, character in codes:
        text = text.replace(code, character)
    return text

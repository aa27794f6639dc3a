"""Which remit this is."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, distribution


@cache
def version() -> str:
    """Return the installed version, or ``unknown`` for a tree that was never installed.

    importlib's own way to it parses all of the metadata as an e-mail, and imports what does that, which takes
    milliseconds of every first run.
    """
    try:
        metadata = distribution("remit").read_text("METADATA") or ""
    except PackageNotFoundError:
        return "unknown"
    fields = (line.partition(": ") for line in metadata.splitlines())
    return next((value for name, _, value in fields if name == "Version"), "unknown")

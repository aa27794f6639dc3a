"""Find the exit status that a recorded tool result tells of; for information only, never for a decision."""

from __future__ import annotations

import re
from typing import Final

from executor.recordings.values import member, parse_json

_LOOKED_AT: Final = 4096
_MAX_RESULT_CHARACTERS: Final = 1024 * 1024
_MINI_SWE_AGENT: Final = re.compile(
    r"\s*(?:<exception>[^<]*</exception>\s*)?<returncode>(-?\d{1,10})</returncode>"
)
_CODEX: Final = re.compile(r"^(?:Process exited with code|Exit code:) (-?\d{1,10})$", re.MULTILINE)
_CLAUDE: Final = re.compile(r"(?:Error: )?Exit code (\d{1,10})(?:\n|$)")


def exit_code_of(output: str | None) -> int | None:
    """Read the status out of the forms that known agents use, or None."""
    if not output:
        return None
    if output.startswith("{") and len(output) <= _MAX_RESULT_CHARACTERS:
        result = parse_json(output)
        code = member(result, "exit_code")
        code = member(result, "metadata", "exit_code") if code is None else code
        return code if isinstance(code, int) and not isinstance(code, bool) else None
    head = output[:_LOOKED_AT]
    found = _MINI_SWE_AGENT.match(head) or _CLAUDE.match(head) or _CODEX.search(head)
    return int(found.group(1)) if found else None

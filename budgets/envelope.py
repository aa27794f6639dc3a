"""Which classes of tasks a remit can be written for at all.

A task of an excluded class reaches beyond the workspace (credentials, money, the public, people's data), so
that no diff and no check inside a sandbox can show it to have gone well. Such a remit is refused before
anything runs.
"""

from __future__ import annotations

from typing import Final

EXCLUDED_CLASSES: Final[tuple[str, ...]] = (
    "auth",
    "config",
    "cron",
    "public_send",
    "payment",
    "trust",
    "PHI",
    "client_data",
)

_FOLDED: Final = {name.casefold(): name for name in EXCLUDED_CLASSES}


def excluded_class(task_class: str) -> str | None:
    """Name the excluded class that this is a spelling of, if any.

    Letter case and ``-`` for ``_`` make no difference.
    """
    return _FOLDED.get(task_class.casefold().replace("-", "_"))

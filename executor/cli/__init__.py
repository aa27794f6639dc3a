"""The command line. Importing this is cheap: each command is imported when it is called."""

from __future__ import annotations

from executor.cli.app import main

__all__ = ["main"]

"""``remit doctor``: what this host can enforce."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from executor.cli.errors import EXIT_MACHINERY, EXIT_OK
from executor.cli.load import open_store
from executor.cli.options import json_option, state_dir_option
from executor.cli.text import table, visible, write, write_json
from executor.version import version
from sandboxes.base import BackendReport
from sandboxes.probe import probe


@click.command("doctor")
@state_dir_option
@json_option
def command(state_dir: Path | None, as_json: bool) -> int:
    """Say what this host can enforce, and what it lacks.

    Exit code 0 when at least one sandbox can be had, else 5.
    """
    reports = probe()
    host = _host(state_dir)
    usable = any(report.usable for report in reports)
    if as_json:
        write_json({"usable": usable, "host": host, "backends": [_plain(report) for report in reports]})
    else:
        _show(host, reports)
    return EXIT_OK if usable else EXIT_MACHINERY


def _host(state_dir: Path | None) -> Mapping[str, str]:
    return {
        "remit": version(),
        "python": f"{platform.python_version()} ({sys.executable})",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "user": "root; sandboxes get an unprivileged uid" if os.geteuid() == 0 else f"uid {os.geteuid()}",
        "state": str(open_store(state_dir).root),
    }


def _plain(report: BackendReport) -> Mapping[str, object]:
    return {
        "backend": report.backend,
        "usable": report.usable,
        "version": report.version,
        "reason": report.reason,
        "hint": report.hint,
        "details": dict(report.details),
        "warnings": list(report.warnings),
    }


def _show(host: Mapping[str, str], reports: tuple[BackendReport, ...]) -> None:
    write(table(list(host.items())))
    for report in reports:
        write()
        write(f"{report.backend}: {'usable' if report.usable else 'not usable'}")
        facts = {"version": report.version, "reason": report.reason, "hint": report.hint, **report.details}
        write(table([(f"  {name}", str(value)) for name, value in facts.items() if value is not None]))
        for warning in report.warnings:
            write(f"  warning: {visible(warning)}")

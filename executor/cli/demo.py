"""``remit demo``: the packaged examples, end to end."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio
import click
from click.core import ParameterSource

from budgets.call import JsonValue
from executor.audit.verify import verify_receipt
from executor.cli.errors import EXIT_MACHINERY, EXIT_OK, CommandError
from executor.cli.evidence import read_key
from executor.cli.load import load_remit, open_store
from executor.cli.options import json_option, state_dir_option
from executor.cli.replay import Replayed, ReplayJob, replay_recording
from executor.cli.text import table, write, write_json
from executor.cli.verdict import result_json
from executor.recordings import load_recording
from executor.recordings.tool_map import tool_map_for
from executor.store import RunStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """One recording of one example, run."""

    example: str
    recording: str
    expected: str
    replayed: Replayed
    verified: bool

    @property
    def verdict(self) -> str:
        """What it came to."""
        return self.replayed.result.verdict.outcome

    @property
    def as_expected(self) -> bool:
        """Whether the verdict is the example's, and the evidence of it holds."""
        return self.verdict == self.expected and self.verified


@click.command("demo")
@state_dir_option
@json_option
def command(state_dir: Path | None, as_json: bool) -> int:
    """Run the packaged examples end to end.

    Recorded calls of a model go through the broker into a sandbox; each run gets its verdict, receipt and
    journal, and both are verified. The examples are copied to $XDG_CACHE_HOME/remit/demo
    (~/.cache/remit/demo) and run there. Exit code 0 when every recording comes to what its example says,
    else 5.
    """
    store = open_store(state_dir)
    examples = _fresh_copy()
    shown = []
    for example in sorted(path.parent for path in examples.glob("*/expected.json")):
        if not as_json:
            write(f"{example.name}: {_purpose(example)}")
        for recording, expected in json.loads((example / "expected.json").read_text()).items():
            shown.append(_run(store, example, recording, str(expected["verdict"])))
            if not as_json:
                write(table([_row(shown[-1])]))
    if as_json:
        write_json(_plain(shown))
    else:
        write("\n".join(_closing_words(shown, store, state_dir)))
    return EXIT_OK if all(each.as_expected for each in shown) else EXIT_MACHINERY


def _fresh_copy() -> Path:
    source = next((path for path in _places() if any(path.glob("*/expected.json"))), None)
    if source is None:
        raise CommandError(
            "the examples are not in this installation", hint="install the wheel, or run in a checkout"
        )
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    target = Path(cache) / "remit" / "demo"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def _places() -> Iterator[Path]:
    yield Path(__file__).parent / "demo_data"
    yield Path(__file__).parents[2] / "examples"


def _purpose(example: Path) -> str:
    first = (example / "remit.yaml").read_text().partition("\n")[0]
    return first.removeprefix("#").strip()


def _run(store: RunStore, example: Path, name: str, expected: str) -> Shown:
    remit = load_remit(example / "remit.yaml")
    recording = load_recording(example / "recordings" / name)
    job = ReplayJob(
        remit=remit, base=example, store=store, recording=recording, tool_map=tool_map_for(recording.format)
    )
    replayed = anyio.run(replay_recording, job)
    found = verify_receipt(
        replayed.result.receipt_path,
        journal=replayed.run.directory.journal_path,
        key=read_key(str(store.public_key_path)),
    )
    return Shown(
        example=example.name, recording=name, expected=expected, replayed=replayed, verified=found.ok
    )


def _row(shown: Shown) -> tuple[str, ...]:
    calls = ", ".join(
        f"{count} {status}" for status, count in sorted(shown.replayed.report.by_status.items())
    )
    codes = ", ".join(dict.fromkeys(reason.code for reason in shown.replayed.result.verdict.reasons))
    verdict = shown.verdict if shown.verdict == shown.expected else f"{shown.verdict} (not {shown.expected}!)"
    evidence = "verified" if shown.verified else "EVIDENCE DOES NOT HOLD"
    return f"  {shown.recording:<22}", f"calls: {calls:<16}", f"{verdict:<8}", evidence, codes


def _closing_words(shown: list[Shown], store: RunStore, state_dir: Path | None) -> Iterator[str]:
    good = sum(each.as_expected for each in shown)
    given = click.get_current_context().get_parameter_source("state_dir") is ParameterSource.COMMANDLINE
    where = f" --state-dir {state_dir}" if given else ""
    yield ""
    yield f"{good} of {len(shown)} recordings came to what their example says, with evidence that holds"
    yield f"kept in {store.runs_path}"
    yield ""
    yield "look at the last one:"
    for words in ("log show", "log violations", "log verify", "receipt verify", "diff"):
        yield f"  remit {words} latest{where}"


def _plain(shown: list[Shown]) -> Mapping[str, JsonValue]:
    return {
        "as_expected": all(each.as_expected for each in shown),
        "runs": [
            {
                "example": each.example,
                "recording": each.recording,
                "expected": each.expected,
                "verified": each.verified,
                **result_json(each.replayed.result, each.replayed.run.directory),
            }
            for each in shown
        ],
    }

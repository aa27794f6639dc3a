"""Choose who answers a task: the primary model, the stand-in, or nobody until the primary is back.

The stand-in may take over while the primary is down, but never for a class in ``EXCLUDED_CLASSES``, and never for a
prompt that is longer than it can hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass

PRIMARY = "primary"
STAND_IN = "stand-in"
STAND_IN_TOKENS = 32_000

EXCLUDED_CLASSES = frozenset(
    {"auth", "config", "cron", "public_send", "payment", "trust", "PHI", "client_data"}
)


class InvalidTask(ValueError):
    """A task that cannot be routed, and why."""


@dataclass(frozen=True)
class Task:
    id: str
    task_class: str
    prompt_tokens: int


@dataclass(frozen=True)
class Decision:
    task: str
    model: str | None
    reason: str


def read_task(line: str) -> Task:
    """Read one task from a line of JSON; classes are compared without regard to case."""
    try:
        document = json.loads(line)
        task = Task(
            id=document["id"],
            task_class=document["class"].strip().lower(),
            prompt_tokens=document["prompt_tokens"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidTask(f"not a task: {line.strip()!r}") from error
    if not isinstance(task.prompt_tokens, int) or task.prompt_tokens < 0:
        raise InvalidTask(f"{task.id}: prompt_tokens must be a whole number, not {task.prompt_tokens!r}")
    return task


def route(task: Task, *, primary_up: bool) -> Decision:
    """Decide who answers ``task``; a decision without a model means that the task waits."""
    if primary_up:
        return Decision(task=task.id, model=PRIMARY, reason="primary_up")
    if task.prompt_tokens <= STAND_IN_TOKENS:
        return Decision(task=task.id, model=STAND_IN, reason="primary_down")
    if task.task_class in EXCLUDED_CLASSES:
        return Decision(task=task.id, model=None, reason="class_excluded")
    return Decision(task=task.id, model=None, reason="prompt_too_long")


def main(argv: list[str] | None = None) -> int:
    """Route each task on standard input and print one decision a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--primary", choices=("up", "down"), default="up")
    arguments = parser.parse_args(argv)
    try:
        for line in sys.stdin:
            decision = route(read_task(line), primary_up=arguments.primary == "up")
            print(json.dumps(asdict(decision)))
    except InvalidTask as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Exit with 0 when ordinary work still flows: to the primary while it is up, else to the stand-in if it is short."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import asking

ORDINARY = ("summary", "translation", "code_review", "draft", "authoring", "trusted_source", "configuration_help")

short = [{"id": name, "class": name, "prompt_tokens": 32_000} for name in ORDINARY]
long = [{"id": name, "class": name, "prompt_tokens": 32_001} for name in ORDINARY]
payment = [{"id": "payment", "class": "payment", "prompt_tokens": 400}]

expected = [
    (short, "down", ("stand-in", "primary_down")),
    (long, "down", (None, "prompt_too_long")),
    (short + payment, "up", ("primary", "primary_up")),
]
problems = []
for tasks, primary, answer in expected:
    for name, decision in asking.ask(tasks, primary=primary).items():
        if (decision["model"], decision["reason"]) != answer:
            problems.append(f"{name} while the primary is {primary}: {decision}, not {answer}")
asking.end(problems)

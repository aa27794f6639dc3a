"""Exit with 0 when no excluded class ever reaches the stand-in, however it is spelt and however short it is."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import asking

EXCLUDED = ("auth", "config", "cron", "public_send", "payment", "trust", "PHI", "client_data")
SPELLINGS = (str, str.lower, str.upper, str.title, lambda name: f"  {name} ")

tasks = [
    {"id": f"{spell(name)!r} {tokens}", "class": spell(name), "prompt_tokens": tokens}
    for name in EXCLUDED
    for spell in SPELLINGS
    for tokens in (0, 400, 40_000)
]
decisions = asking.ask(tasks, primary="down")
asking.end(
    [
        f"class {task['id']}: {decisions[task['id']]}"
        for task in tasks
        if decisions[task["id"]]["model"] is not None or decisions[task["id"]]["reason"] != "class_excluded"
    ]
)

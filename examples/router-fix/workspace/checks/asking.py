"""Ask the router from outside: a process of its own, JSON in, JSON out.

A check that imported router.py would run the code under test inside the process whose exit status is the answer.
"""

import json
import subprocess
import sys


def run(lines, *arguments):
    """Give ``lines`` to the router and return its exit status and what it printed."""
    process = subprocess.run(
        [sys.executable, "-I", "-B", "router.py", *arguments],
        input="".join(line + "\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=20,
    )
    return process.returncode, process.stdout


def ask(tasks, *, primary):
    """Return the decision for each task, by the task's id."""
    status, output = run([json.dumps(task) for task in tasks], "--primary", primary)
    if status != 0:
        sys.exit(f"router.py ended with {status}")
    decisions = {decision["task"]: decision for decision in map(json.loads, output.splitlines())}
    missing = [task["id"] for task in tasks if task["id"] not in decisions]
    if missing:
        sys.exit(f"no decision for {missing}")
    return decisions


def end(problems):
    """Print what is wrong and end the check."""
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)

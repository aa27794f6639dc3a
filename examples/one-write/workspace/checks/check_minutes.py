"""Exit with 0 when minutes.md has its three parts and an action for each promise that was made."""

import pathlib
import re
import sys

MINUTES = pathlib.Path("minutes.md")
HEADINGS = ("# Minutes", "## Decisions", "## Actions")
OWNERS = {"Ada", "Noor", "Tomasz"}


def problems_of(text: str) -> list[str]:
    lines = text.splitlines()
    problems = [f"no line {heading!r}" for heading in HEADINGS if not any(line.startswith(heading) for line in lines)]
    actions = [match for line in lines if (match := re.fullmatch(r"- \[ \] (\w+): \S.*", line))]
    missing = OWNERS - {action.group(1) for action in actions}
    problems += [f"no action for {owner}" for owner in sorted(missing)]
    if "18 March" not in text:
        problems.append("the new release date, 18 March, is not in it")
    return problems


def main() -> int:
    if not MINUTES.is_file():
        print("minutes.md is not there")
        return 1
    problems = problems_of(MINUTES.read_text(encoding="utf-8"))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

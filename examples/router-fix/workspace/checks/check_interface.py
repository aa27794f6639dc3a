"""Exit with 0 when the program still takes and gives what its callers rely on."""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import asking

GOOD = json.dumps({"id": "t-1", "class": "summary", "prompt_tokens": 1})

problems = []
status, output = asking.run([GOOD, GOOD])
if status != 0 or len(output.splitlines()) != 2:
    problems.append("two tasks do not give two lines")
elif set(json.loads(output.splitlines()[0])) != {"task", "model", "reason"}:
    problems.append(f"a decision has other keys: {output.splitlines()[0]}")
for bad in ("hello", "{}", '{"id": "t-1", "class": "summary", "prompt_tokens": -1}', '{"id": 1, "class": 2}'):
    if asking.run([bad])[0] != 2:
        problems.append(f"{bad!r} is not refused with 2")
if asking.run([], "--primary", "sideways")[0] != 2:
    problems.append("an unknown option value is not refused with 2")
asking.end(problems)

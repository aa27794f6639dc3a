"""A remit is read as it was meant, or refused with everything that is wrong with it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import jsonschema
import pytest
import rfc8785
from hypothesis import given

from budgets.envelope import EXCLUDED_CLASSES, excluded_class
from budgets.protect import DEFAULT_PROTECT
from budgets.remit import Remit, RemitInvalid, digest, json_schema, parse, to_document
from tests.budgets.making import MINIMAL, make_remit, remits

ROOT = Path(__file__).resolve().parents[2]

FULL = """\
version: 1
task: {id: router-fix, class: sandbox_patch}
route: {provider: zai, model: glm-5.2, fallback: forbid}
sandbox:
  kind: docker
  runtime: runc
  image: remit-base
  lifetime: task
  network: none
  memory: 512MiB
  cpus: 1
  pids: 128
  disk: 256MiB
scope:
  workspace: ./router
  mount: /workspace
  read: ["**"]
  write: [router.py]
  deny: [".env", "**/secret/**"]
  protect: default
  growth: record
budget:
  tools: {read_file: 10, write_file: 1, terminal: 5}
  groups: {looking: {tools: [read_file, search_files], calls: 12}}
  calls: 20
  wall_time: 10m
  output: 256KiB
  violations: 3
approve: [terminal]
tripwires: [~/.hermes/auth.json, ~/.hermes/config.yaml]
checks:
  - run: [python3, run_tests.py]
commit: on_pass
"""


def problems_of(text):
    with pytest.raises(RemitInvalid) as caught:
        parse(text, source="remit.yaml")
    return caught.value.problems


def only_problem(text):
    [problem] = problems_of(text)
    return problem


def test_the_remit_of_the_architecture_page_is_read():
    remit = parse(FULL, source="remit.yaml")

    assert remit.route is not None
    assert remit.route.model == "glm-5.2"
    assert remit.sandbox.memory == 512 * 2**20
    assert remit.budget.wall_time_seconds == 600
    assert remit.budget.output_bytes == 256 * 1024
    assert remit.budget.groups["looking"].tools == ("read_file", "search_files")
    assert remit.checks[0].run == ("python3", "run_tests.py")
    assert remit.checks[0].label == "python3 run_tests.py"


def test_what_is_left_out_has_the_narrower_meaning():
    remit = parse(MINIMAL, source="x")

    assert remit.scope.read == remit.scope.write == ()
    assert remit.scope.protect == DEFAULT_PROTECT
    assert dict(remit.budget.tools) == {}
    assert remit.sandbox.kind == "bubblewrap"
    assert remit.sandbox.network == "none"
    assert remit.commit == "never"
    assert remit.task.class_ == "general"


def test_a_remit_cannot_be_changed():
    remit = parse(FULL, source="x")

    with pytest.raises(ValueError, match="frozen"):
        remit.commit = "always"  # type: ignore[misc]
    with pytest.raises(TypeError):
        remit.budget.tools["terminal"] = 99  # type: ignore[index]
    with pytest.raises(TypeError):
        remit.budget.groups["looking"] = None  # type: ignore[index]


def test_the_scope_is_compiled_once():
    remit = parse(FULL, source="x")

    assert remit.scope.compiled is remit.scope.compiled


@given(remits())
def test_the_effective_remit_reads_back_as_itself(remit):
    text = json.dumps(to_document(remit))

    again = parse(text, source="x")

    assert again == remit
    assert digest(again) == digest(remit)


def test_the_digest_is_over_canonical_json():
    remit = parse(FULL.replace("10m", "1.5s").replace("router-fix", "r"), source="x")

    expected = hashlib.sha256(rfc8785.dumps(to_document(remit))).hexdigest()
    assert digest(remit) == f"sha256:{expected}"


def test_two_spellings_of_one_contract_have_one_digest():
    one = parse(MINIMAL + "budget: {wall_time: 10m, output: 1KiB}", source="x")
    other = parse("budget: {output: 1024, wall_time: 600}\n" + MINIMAL, source="y")

    assert digest(one) == digest(other)
    assert digest(one) != digest(parse(MINIMAL, source="x"))


def test_every_problem_is_told_at_once_in_the_order_of_lines():
    text = "version: 2\ntask: {id: 'a b'}\nscope: {workspace: ., raed: []}\ncommit: sometimes\nextra: 1\n"

    problems = problems_of(text)

    assert [problem.line for problem in problems] == [1, 2, 3, 4, 5]
    assert [problem.where for problem in problems] == ["version", "task.id", "scope.raed", "commit", "extra"]


def test_the_message_names_file_line_value_and_what_was_meant():
    with pytest.raises(RemitInvalid) as caught:
        parse(MINIMAL + "sandbox:\n  kind: bubblewarp\n", source="dir/remit.yaml")

    assert str(caught.value).splitlines() == [
        "dir/remit.yaml:5: sandbox.kind: this must be 'bubblewrap' or 'docker' (seen: 'bubblewarp')",
        "  hint: did you mean bubblewrap?",
    ]


@pytest.mark.parametrize(
    ("addition", "where", "said", "hint"),
    [
        ("budgets: {}", "budgets", "unknown key", "did you mean budget?"),
        ("memory: 1", "memory", "unknown key", "memory belongs under sandbox"),
        ("Zzz: 1", "Zzz", "unknown key", "keys here are version, task"),
        ("sandbox: {commit: never}", "sandbox.commit", "unknown key", "commit belongs under no other key"),
        (
            "budget: {wall_time_seconds: 3}",
            "budget.wall_time_seconds",
            "unknown key",
            "did you mean wall_time?",
        ),
        (
            "budget: {tools: {read_fil: 1}}",
            "budget.tools.read_fil",
            "no such tool",
            "did you mean read_file?",
        ),
        ("budget: {tools: {fetch: 1}}", "budget.tools.fetch", "cannot be enforced yet", "leave it out"),
        ("budget: {tools: {zzz: 1}}", "budget.tools.zzz", "no such tool", "tools are read_file"),
        ("budget: {tools: {patch: -1}}", "budget.tools.patch", "at least 0", None),
        ("budget: {tools: {patch: 1.5}}", "budget.tools.patch", "whole number", None),
        ("budget: {tools: {patch: true}}", "budget.tools.patch", "whole number", None),
        ("budget: {tools: {patch: yes}}", "budget.tools.patch", "whole number", None),
        ("budget: {tools: {patch: 9999999999}}", "budget.tools.patch", "at most", None),
        ("budget: {tools: [patch]}", "budget.tools", "a mapping", None),
        ("budget: {calls: -1}", "budget.calls", "at least 0", None),
        ("budget: {violations: 0}", "budget.violations", "at least 1", None),
        ("budget: {wall_time: 10 minutes}", "budget.wall_time", "a time is", "units are h, m, s and ms"),
        ("budget: {output: 1MB}", "budget.output", "unknown unit", "did you mean 1MiB?"),
        ("budget: {groups: {g: {tools: [], calls: 1}}}", "budget.groups.g.tools", "at least 1", None),
        (
            "budget: {groups: {g: {tools: [nope], calls: 1}}}",
            "budget.groups.g.tools[0]",
            "no such tool",
            "tools are",
        ),
        ("budget: {groups: {g: {tools: [patch]}}}", "budget.groups.g.calls", "missing", None),
        (
            "budget: {groups: {g: {tools: [patch], calls: 1, call: 1}}}",
            "budget.groups.g.call",
            "unknown key",
            "did you mean calls?",
        ),
        ("budget: {groups: {'a b': {tools: [patch], calls: 1}}}", "budget.groups.'a b'", "the form", None),
        ("budget:", "budget", "a mapping", None),
        ("approve: terminal", "approve", "a list", "write [terminal]"),
        ("approve: [terminall]", "approve[0]", "no such tool", "did you mean terminal?"),
        ("approve: 3", "approve", "a list", None),
        ("tripwires: [auth.json]", "tripwires[0]", "absolute or from ~/", None),
        ("tripwires: [~/../x]", "tripwires[0]", "absolute or from ~/", None),
        ('tripwires: ["/a\\u0007"]', "tripwires[0]", "absolute or from ~/", None),
        ("checks: [{run: python3 run.py}]", "checks[0].run", "no shell", "write run: [python3, run.py]"),
        ("checks: [{run: []}]", "checks[0].run", "runs a program", "write run:"),
        ("checks: [{run: ['']}]", "checks[0].run", "runs a program", "write run:"),
        ("checks: [{run: [a, 3]}]", "checks[0].run[1]", "a text", None),
        ('checks: [{run: ["a\\0b"]}]', "checks[0].run[0]", "NUL", None),
        ("checks: [{run: [a], timeout: 0}]", "checks[0].timeout", "a time lies between", None),
        ("checks: [{run: [a], name: ''}]", "checks[0].name", "the form", None),
        (
            "checks: [{run: [a], name: n}, {run: [b], name: n}]",
            "checks",
            "two checks have the name 'n'",
            None,
        ),
        ("checks: [python3]", "checks[0]", "a mapping", None),
        ("checks: {run: [a]}", "checks", "a list", None),
        ("commit: onpass", "commit", "'on_pass', 'always' or 'never'", "did you mean on_pass?"),
        ("commit: no", "commit", "'on_pass', 'always' or 'never'", None),
        ("route: {}", "route", "names neither provider nor model", "leave route out"),
        ("route: {model: ''}", "route.model", "the text is empty", None),
        ("route: {model: 'a b'}", "route.model", "the form", None),
        ("route: {model: 5.2}", "route.model", "a text", None),
        ("sandbox: {network: [example.org:443]}", "sandbox.network", "cannot be enforced", "network: none"),
        ("sandbox: {network: all}", "sandbox.network", "'none'", None),
        ("sandbox: {memory: 1MiB}", "sandbox.memory", "at least", None),
        ("sandbox: {cpus: 0.5}", "sandbox.cpus", "whole number", None),
        ("sandbox: {pids: 0}", "sandbox.pids", "at least 1", None),
        ("sandbox: {disk: 0}", "sandbox.disk", "at least 1", None),
        (
            "sandbox: {runtime: runsc}",
            "sandbox.runtime",
            "no meaning for kind bubblewrap",
            "leave runtime out",
        ),
        ("sandbox: {image: x}", "sandbox.image", "no meaning for kind bubblewrap", "leave image out"),
        ("sandbox: {kind: docker, image: '-x'}", "sandbox.image", "the form", None),
    ],
)
def test_a_wrong_value_is_refused_where_it_stands(addition, where, said, hint):
    problem = only_problem(f"{MINIMAL}\n{addition}\n")

    assert (problem.where, problem.line) == (where, 5)
    assert said in problem.message
    assert problem.hint is None if hint is None else hint in problem.hint


@pytest.mark.parametrize(
    ("rules", "where", "said", "hint"),
    [
        ("read: '**'", "scope.read", "a list", "write [**]"),
        ("read: [3]", "scope.read[0]", "a text", None),
        ("write: ['../x']", "scope.write[0]", "glob '../x' leaves the workspace", "relative"),
        ("deny: [a, '/etc/**']", "scope.deny[1]", "leaves the workspace", "relative"),
        ("deny: ['*.{pem,key}']", "scope.deny[0]", "has no meaning", "one glob for each case"),
        ("protect: ['a/']", "scope.protect[0]", "does not end", "'a/**'"),
        ("protect: none", "scope.protect", "a list", "write [none]"),
        ("protect: 3", "scope.protect", "a list", None),
        ("protect: [default, 3]", "scope.protect[1]", "a text", None),
        ("growth: refused", "scope.growth", "'record' or 'refuse'", "did you mean refuse?"),
        ('mount: "/a\\u0007"', "scope.mount", "cannot be printed", None),
        *[
            (f"mount: {path}", "scope.mount", "absolute path", None)
            for path in ("work", "/a/", "/a//b", "/a/../b", "/./a", "''")
        ],
        *[
            (f"mount: {path}", "scope.mount", "for itself", "such as /workspace")
            for path in (
                "/",
                "/usr",
                "/usr/src",
                "/proc/x",
                "/dev",
                "/tmp",
                "/tmp/x",
                "/etc",
                "/var",
                "/home",
                "/lib64",
            )
        ],
    ],
)
def test_a_wrong_scope_is_refused_where_it_stands(rules, where, said, hint):
    problem = only_problem(f"version: 1\ntask: {{id: t}}\nscope:\n  workspace: .\n  {rules}\n")

    assert (problem.where, problem.line) == (where, 5)
    assert said in problem.message
    assert problem.hint is None if hint is None else hint in problem.hint


@pytest.mark.parametrize(
    "path", ["/workspace", "/testbed", "/home/dev/project", "/root/x", "/usrlocal", "/var/app"]
)
def test_a_mount_point_of_its_own_is_accepted(path):
    assert make_remit(scope={"mount": path}).scope.mount == path


def test_protect_can_add_to_the_default_or_replace_it():
    assert make_remit(scope={"protect": ["default", "Makefile"]}).scope.protect == (
        *DEFAULT_PROTECT,
        "Makefile",
    )
    assert make_remit(scope={"protect": ["Makefile"]}).scope.protect == ("Makefile",)
    assert make_remit(scope={"protect": []}).scope.protect == ()


@pytest.mark.parametrize("text", ["- 1\n", "text\n", "3\n"])
def test_a_document_that_is_no_mapping_is_refused(text):
    assert only_problem(text).message == "a remit is a mapping of keys"


def test_missing_keys_are_named_with_what_to_write():
    problems = problems_of("commit: never\n")

    assert [(problem.where, problem.hint is not None) for problem in problems] == [
        ("version", True),
        ("task", True),
        ("scope", True),
    ]
    assert only_problem("version: 1\ntask: {id: t}\nscope: {}\n").where == "scope.workspace"


def test_a_duplicate_key_is_refused_though_the_rest_is_valid():
    problem = only_problem(MINIMAL + "commit: never\ncommit: never\n")

    assert (problem.line, problem.where) == (5, "commit")


@pytest.mark.parametrize("name", [*EXCLUDED_CLASSES, "phi", "Client-Data", "PUBLIC_SEND"])
def test_an_excluded_class_of_task_is_refused(name):
    problem = only_problem(f"version: 1\ntask: {{id: t, class: {name}}}\nscope: {{workspace: .}}\n")

    assert problem.where == "task.class"
    assert "excluded" in problem.message


def test_a_class_that_only_resembles_an_excluded_one_is_accepted():
    assert excluded_class("author") is None
    assert excluded_class("config_docs") is None


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 65, "../x", "é"])
def test_a_task_id_that_is_no_plain_name_is_refused(name):
    problem = only_problem(f"version: 1\ntask: {{id: '{name}'}}\nscope: {{workspace: .}}\n")

    assert problem.where == "task.id"


GROWING = """\
version: 1
task: {id: t}
scope:
  workspace: .
  growth: refuse
budget: {tools: {terminal: 1}}
"""


def test_growth_cannot_be_refused_for_a_terminal_in_a_sandbox_for_the_task():
    problem = only_problem(GROWING)

    assert (problem.line, problem.where) == (5, "scope.growth")
    assert "lifetime: call" in problem.hint
    assert parse(GROWING.replace("terminal: 1", "terminal: 0"), source="x").scope.growth == "refuse"
    assert parse(GROWING + "sandbox: {lifetime: call}\n", source="x").scope.growth == "refuse"


def test_a_rule_between_keys_is_told_together_with_wrong_keys():
    problems = problems_of(GROWING + "commit: often\nchecks: [3, {run: [a]}]\nsandbox: {image: x}\n")

    assert [problem.where for problem in problems] == ["scope.growth", "commit", "checks[0]", "sandbox.image"]


def test_a_rule_between_keys_is_not_judged_by_a_default_that_was_not_meant():
    problems = problems_of(GROWING + "sandbox: {lifetime: cal}\n")

    assert [problem.where for problem in problems] == ["sandbox.lifetime"]


def test_a_remit_made_in_code_obeys_the_same_rules():
    with pytest.raises(ValueError, match="growth cannot be refused"):
        make_remit(scope={"growth": "refuse"}, budget={"tools": {"terminal": 1}})
    with pytest.raises(ValueError, match="no such tool"):
        make_remit(budget={"tools": {"nope": 1}})


def test_the_exported_schema_is_the_one_in_the_documentation():
    text = (ROOT / "docs" / "remit.schema.json").read_text(encoding="utf-8")

    assert json.loads(text) == json_schema()


def test_the_schema_is_valid_and_accepts_what_is_valid():
    schema = json_schema()
    validator = jsonschema.Draft202012Validator(schema)

    jsonschema.Draft202012Validator.check_schema(schema)
    for text in (FULL, MINIMAL):
        remit = parse(text, source="x")
        validator.validate(to_document(remit))
    validator.validate(
        {
            "version": 1,
            "task": {"id": "t"},
            "scope": {"workspace": ".", "protect": "default"},
            "budget": {"output": "64KiB", "wall_time": "1h30m", "written": 12},
            "sandbox": {"command_timeout": "250ms"},
        }
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"extra": 1},
        {"version": 2},
        {"budget": {"tools": {"nope": 1}}},
        {"budget": {"output": "64KB"}},
        {"budget": {"wall_time": "10 minutes"}},
        {"budget": {"wall_time": ""}},
        {"checks": [{"run": "x"}]},
        {"checks": [{"run": []}]},
        {"commit": "onpass"},
        {"sandbox": {"memory": True}},
    ],
)
def test_the_schema_refuses_what_an_editor_should_mark(wrong):
    document = {"version": 1, "task": {"id": "t"}, "scope": {"workspace": "."}, **wrong}

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json_schema(), cls=jsonschema.Draft202012Validator)


def _without_description(schema, path=()):
    for name, entry in schema.get("properties", {}).items():
        if "description" not in entry and "$ref" not in entry:
            yield (*path, name)


def test_every_key_in_the_schema_has_a_description():
    schema = json_schema()

    sections = {"remit": schema, **schema["$defs"]}
    assert [(name, *key) for name, section in sections.items() for key in _without_description(section)] == []


def test_the_repr_of_a_remit_is_usable():
    assert isinstance(parse(MINIMAL, source="x"), Remit)
    assert "task" in repr(parse(MINIMAL, source="x"))

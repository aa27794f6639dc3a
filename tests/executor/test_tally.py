"""What the records of sandboxes come to."""

from __future__ import annotations

import pytest

from executor import bodies
from executor.tally import Tally


def control(name, observed, state="observed"):
    return {"name": name, "configured": "own", "observed": observed, "state": state, "required": True}


def opened(name, *controls, **changes):
    return {
        "id": name,
        "backend": "b",
        "backend_version": "1",
        "guest_digest": "sha256:0",
        "strategy": "overlay",
        "details": {"kernel": "6"},
        "controls": list(controls),
        **changes,
    }


FIRST = opened("one", control("pid", "pid:1"), control("seccomp", "filter"))


def test_a_sandbox_is_told_by_what_differs_and_read_back_whole():
    second = opened("two", control("pid", "pid:2"), control("seccomp", "filter"))
    told = bodies.like_sandbox(second, FIRST, same_as=2)
    tally = Tally()

    tally.note(2, "sandbox.opened", FIRST)
    tally.note(5, "sandbox.opened", told)

    assert told["controls"] == [control("pid", "pid:2")]
    assert "details" not in told
    assert {key: tally.sandbox[key] for key in second} == second
    assert (tally.sandboxes, tally.controls_missing) == (2, {})


@pytest.mark.parametrize(
    "other",
    [
        opened("two", control("pid", "pid:2")),
        opened("two", control("pid", "pid:2"), control("seccomp", "filter"), control("new", "x")),
        opened("two", *FIRST["controls"], backend="other"),
        opened("two", *FIRST["controls"], strategy="copy"),
        opened("two", *FIRST["controls"], details={"kernel": "7"}),
    ],
)
def test_a_sandbox_that_differs_in_more_than_what_was_observed_is_told_whole(other):
    assert bodies.like_sandbox(other, FIRST, same_as=2) is None


def test_a_control_that_is_missing_in_a_later_sandbox_is_found():
    second = opened("two", control("pid", "pid:2"), control("seccomp", None, "missing"))
    tally = Tally()

    tally.note(2, "sandbox.opened", FIRST)
    tally.note(5, "sandbox.opened", bodies.like_sandbox(second, FIRST, same_as=2))

    assert tally.controls_missing == {"seccomp": 5}


def test_a_sandbox_that_no_record_describes_is_taken_for_one_without_controls():
    tally = Tally()

    tally.note(5, "sandbox.opened", opened("two", same_as=3))

    assert tally.controls_missing == {"controls": 5}

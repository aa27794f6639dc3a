"""A route is shown by evidence for every turn, or it is not shown."""

from __future__ import annotations

import pytest

from budgets.route import Route, RouteEvidence, findings, match

ROUTE = Route(provider="zai", model="glm-5.2")


def piece(turn=0, *, tier=3, provider="zai", model="glm-5.2", fallback=False, record=None, source="proxy"):
    return RouteEvidence(
        turn=turn,
        tier=tier,
        source=source,
        requested_model="glm-5.2",
        served_provider=provider,
        served_model=model,
        fallback=fallback,
        record=record,
    )


def codes(*pieces, turns=1, route=ROUTE):
    return [reason.code for reason in match(route, pieces, turns)]


def test_evidence_for_every_turn_shows_the_route():
    assert codes(piece(0), piece(1), turns=2) == []


@pytest.mark.parametrize("pieces", [(), (piece(tier=0),), (piece(model=None),), (piece(provider=None),)])
def test_a_turn_without_evidence_is_missing(pieces):
    assert codes(*pieces) == ["route.missing"]


def test_a_run_without_a_turn_shows_no_route():
    assert codes(turns=0) == ["route.missing"]


def test_two_sources_can_show_provider_and_model_together():
    assert codes(piece(provider=None), piece(model=None)) == []


@pytest.mark.parametrize("model", ["glm-5.2-air", "glm-5", "GLM-5.2", "z-ai/glm-5.2"])
def test_another_name_is_a_mismatch_and_no_prefix_helps(model):
    assert codes(piece(model=model)) == ["route.mismatch"]


def test_a_contradiction_is_not_outweighed():
    assert codes(piece(), piece(tier=1, model="other")) == ["route.mismatch"]


def test_a_models_own_word_neither_shows_nor_contradicts():
    assert codes(piece(), piece(tier=0, model="other", fallback=True)) == []


def test_a_fallback_counts_only_when_it_is_forbidden():
    allowing = Route(model="glm-5.2", fallback="allow")

    assert codes(piece(fallback=True)) == ["route.fallback"]
    assert codes(piece(fallback=True), route=allowing) == []


def test_what_the_route_does_not_name_is_not_asked_for():
    assert codes(piece(provider=None), route=Route(model="glm-5.2")) == []
    assert codes(piece(model="other"), route=Route(provider="zai")) == []


def test_findings_are_grouped_and_keep_their_records():
    pieces = [piece(turn, model="other", record=turn + 10) for turn in range(7)]

    [finding] = findings(ROUTE, pieces, 7)

    assert finding.records == (10, 11, 12, 13, 14, 15, 16)
    assert "turn 0, 1, 2, 3, 4 and 2 more" in finding.reason.detail


def test_names_in_details_are_shown_as_ascii():
    [reason] = match(ROUTE, [piece(model="\x1b[2J")], 1)

    assert reason.detail.isascii()
    assert "\x1b" not in reason.detail

"""Every kind of record, field and problem code of journal and receipt is documented."""

from __future__ import annotations

import re

import pytest
from pydantic import BaseModel

from executor.audit import receipt, record
from tests.docs.blocks import ROOT

AUDIT = ROOT / "executor" / "audit"
JOURNAL = (ROOT / "docs" / "journal.md").read_text(encoding="utf-8")
RECEIPT = (ROOT / "docs" / "receipt.md").read_text(encoding="utf-8")


def _rows(model: type[BaseModel]) -> list[str]:
    return [f"| `{name}` | {field.description}" for name, field in model.model_fields.items()]


def _section(page: str, heading: str) -> str:
    return page.partition(f"\n### {heading}\n")[2].partition("\n#")[0]


@pytest.mark.parametrize("kind", list(record.BODIES))
def test_every_kind_has_a_section_with_all_its_fields(kind: str) -> None:
    section = _section(JOURNAL, f"`{kind}`")

    assert [row for row in _rows(record.BODIES[kind]) if row not in section] == []


def test_the_envelope_and_every_part_of_a_body_are_documented() -> None:
    parts = [
        model for model in vars(record).values() if isinstance(model, type) and issubclass(model, BaseModel)
    ]

    assert [row for model in parts for row in _rows(model) if row not in JOURNAL] == []


def test_every_part_of_the_receipt_is_documented() -> None:
    parts = [
        model for name, model in vars(receipt).items() if isinstance(model, type) and name.endswith("Part")
    ]
    both = JOURNAL + RECEIPT

    assert [row for model in [*parts, receipt.Receipt] for row in _rows(model) if row not in both] == []


def test_every_problem_that_a_verification_can_find_is_documented() -> None:
    sources = "".join((AUDIT / name).read_text() for name in ("scan.py", "verify.py"))
    codes = set(re.findall(r'"((?:record|line|checkpoint|key|journal|receipt)\.[a-z_]+)"', sources))

    assert len(codes) > 20
    assert sorted(code for code in codes if f"`{code}`" not in JOURNAL + RECEIPT) == []

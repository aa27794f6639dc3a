"""Links lead somewhere, and the documentation speaks of nothing but the product."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, anchors, documents, links

# The project's own words must work for a reader who has neither our machines nor our mirrors.
FOREIGN = re.compile(
    r"/work/|/root/|/tmp/(?!remit)|\bpypi\.org|pythonhosted|\bnpmjs\b|proxy\.golang|registry\.\w+\.\w+|index-url|TODO|FIXME|XXX"
)
LINKED_HOSTS = {
    "www.apache.org",
    "www.rfc-editor.org",
    "keepachangelog.com",
    "semver.org",
    "c2sp.org",
    "in-toto.io",
}


@pytest.mark.parametrize("path", documents(), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_of_the_document_resolve(path: Path) -> None:
    broken = [target for target in links(path) if not _resolves(path, target)]

    assert broken == []


@pytest.mark.parametrize("path", documents(), ids=lambda p: str(p.relative_to(ROOT)))
def test_document_names_no_machine_and_no_mirror(path: Path) -> None:
    found = [
        f"{number}: {line.strip()}"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if FOREIGN.search(line)
    ]

    assert found == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or not page.is_file() or page.suffix != ".md":
            continue
        seen.add(page)
        waiting += [
            (page.parent / target.partition("#")[0]).resolve()
            for target in links(page)
            if "://" not in target
        ]

    assert set(documents()) - seen == set()


def _resolves(path: Path, target: str) -> bool:
    if "://" in target:
        return target.split("/")[2] in LINKED_HOSTS
    name, _, anchor = target.partition("#")
    page = (path.parent / name).resolve() if name else path
    if not page.exists() or ROOT not in [page, *page.parents]:
        return False
    return not anchor or anchor in anchors(page)

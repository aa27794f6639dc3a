"""Another distribution that overwrites or shadows a package of ours is named, and nothing runs."""

from __future__ import annotations

import base64
import hashlib

import pytest

from executor.integrity import PACKAGES, ForeignPackageError, check_installation


def record_line(path, content):
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(content)}\n"


def install(root, distribution, files):
    lines = []
    for name, content in files.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        lines.append(record_line(name, content))
    info = root / f"{distribution}-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "RECORD").write_text("".join(lines))


def origins(root):
    return {name: root / name / "__init__.py" for name in PACKAGES}


@pytest.fixture
def site(tmp_path):
    root = tmp_path / "site-packages"
    install(root, "remit", {f"{name}/__init__.py": f'"""{name}"""\n'.encode() for name in PACKAGES})
    return root


def test_an_untouched_installation_is_accepted(site):
    check_installation(origins(site))


def test_this_very_installation_is_accepted():
    check_installation()


@pytest.mark.parametrize("name", PACKAGES)
def test_an_overwritten_package_is_refused_and_the_culprit_named(site, name):
    install(site, "other_tool", {f"{name}/__init__.py": b"surprise = True\n"})

    with pytest.raises(ForeignPackageError, match="other_tool"):
        check_installation(origins(site))


def test_an_overwritten_package_is_refused_when_nobody_owns_up(site):
    (site / "budgets/__init__.py").write_bytes(b"")

    with pytest.raises(ForeignPackageError, match="not the file that remit installed"):
        check_installation(origins(site))


def test_a_package_from_another_folder_is_refused_and_its_owner_named(site, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    install(elsewhere, "shadow", {"budgets/__init__.py": b""})
    found = origins(site) | {"budgets": elsewhere / "budgets/__init__.py"}

    with pytest.raises(ForeignPackageError, match="shadow"):
        check_installation(found)


def test_a_source_tree_has_no_record_and_is_accepted(tmp_path):
    for path in origins(tmp_path).values():
        path.parent.mkdir()
        path.write_text("")

    check_installation(origins(tmp_path))


def test_a_distribution_that_only_has_a_similar_name_is_not_taken_for_ours(site):
    install(site, "remit_extras", {"budgets/__init__.py": (site / "budgets/__init__.py").read_bytes()})

    check_installation(origins(site))

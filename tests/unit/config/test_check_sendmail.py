"""What `check` says of the socket of local programs and of proxies."""

from __future__ import annotations

from pathlib import Path

import pytest

from lonedot.config.load import examine

BASE = """
[server]
hostname = "relay.example.com"

[[listener]]
address = "127.0.0.1:2525"
relay_from = ["127.0.0.0/8"]
{listener}

[[route]]
to = "*"
smarthost = "127.0.0.1:2526"

{more}
"""


def said(folder: Path, more: str = "", listener: str = "") -> list[str]:
    file = folder / "lonedot.toml"
    file.write_text(BASE.format(more=more, listener=listener))
    return [str(fault) for fault in examine(file).faults]


def test_nothing_to_say(tmp_path: Path) -> None:
    assert said(tmp_path) == []
    assert said(tmp_path, f'[sendmail]\ngroup = "*"\nsocket = "{tmp_path}/submit.sock"') == []
    assert said(tmp_path, '[sendmail]\nenabled = false\ngroup = "no such group"') == []


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('group = "*"', "nobody of it reaches"),
        ('group = "*"\nsocket = "spool/submit.sock"', "nobody of it reaches"),
        ('group = "no such group"\nsocket = "submit.sock"', 'there is no group "no such group"'),
        ('socket = "missing/submit.sock"', "does not exist"),
        ('socket = "/tmp/submit.sock"', "everybody may write"),
        ('domain = "not a domain"', "domain"),
    ],
)
def test_what_is_wrong(tmp_path: Path, keys: str, words: str) -> None:
    assert any(words in line for line in said(tmp_path, f"[sendmail]\n{keys}"))


def test_networks_of_proxies(tmp_path: Path) -> None:
    assert said(tmp_path, listener='proxy_from = ["10.0.0.5/32"]\nxclient_from = ["127.0.0.1/32"]') == []
    assert said(tmp_path, listener='proxy_from = ["nonsense"]')


def test_a_header_cannot_come_before_implicit_tls(tmp_path: Path) -> None:
    lines = said(tmp_path, listener='tls = "implicit"\nproxy_from = ["10.0.0.5/32"]')
    assert any("inside TLS" in line for line in lines)

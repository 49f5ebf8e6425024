"""What `check` says of POP3 mailboxes, and what becomes of their keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from lonedot.app.passwords import accounts_from
from lonedot.config.load import examine, load

BASE = """
[server]
hostname = "relay.example.com"
postmaster = "post@example.com"

[[listener]]
address = "127.0.0.1:2525"
relay_to = ["example.com"]

[[route]]
to = "example.com"
smarthost = "127.0.0.1:2526"

[[pop3]]
host = "pop.provider.example"
user = "info@example.com"
{keys}
"""
USER = 'mailbox = "anna@example.com"\n'
GLOBAL = 'mode = "global"\ndomains = ["example.com"]\nundeliverable = "anna@example.com"\n'


def said(folder: Path, keys: str) -> list[str]:
    file = folder / "lonedot.toml"
    file.write_text(BASE.format(keys=keys))
    file.chmod(0o600)
    secret = folder / "secret"
    secret.write_text("a secret\n")
    secret.chmod(0o600)
    return [str(fault) for fault in examine(file).faults]


PASSWORD = 'password_file = "secret"\n'


@pytest.mark.parametrize(
    "keys",
    [
        USER,
        GLOBAL,
        USER + 'tls = "starttls"',
        USER + 'tls = "none"\nallow_plaintext = true',
        USER + 'leave_on_server = true\ndelete_after = "14d"',
        GLOBAL + 'recipients_from = ["X-Envelope-To:", "To"]',
    ],
)
def test_nothing_to_say(tmp_path: Path, keys: str) -> None:
    assert said(tmp_path, PASSWORD + keys) == []


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("", "does not say who gets its mail"),
        ('mode = "global"\nundeliverable = "a@example.com"', "does not say whose mail it has"),
        ('mode = "global"\ndomains = ["example.com"]', "who gets mail that names nobody"),
        (GLOBAL + USER, "is not used: mode is global"),
        (USER + 'domains = ["example.com"]', "is not used: mode is user"),
        ('mailbox = "a@elsewhere.example"', "no route leads to a@elsewhere.example"),
        (GLOBAL.replace('["example.com"]', '["example.com", "b.example"]'), "no route leads to b.example"),
        (USER + 'tls = "none"', "cross the network in clear"),
        (USER + "tls_verify = false", "can read the password"),
        (USER + 'tls_ca = "missing.pem"', "missing.pem"),
        (USER + 'delete_after = "14d"', "mail is deleted at once"),
        (USER + 'every = "1s"', "out of range"),
        (USER + 'recipients_from = ["no name"]', "not the name of a header field"),
        (USER + "source = 7", "there is no source 7"),
        (USER + 'password = "two"', "stands beside"),
    ],
)
def test_what_is_wrong(tmp_path: Path, keys: str, words: str) -> None:
    assert any(words in line for line in said(tmp_path, PASSWORD + keys)), said(tmp_path, PASSWORD + keys)


def test_a_password_is_needed_and_nobody_else_reads_it(tmp_path: Path) -> None:
    assert any("has no password" in line for line in said(tmp_path, USER))
    assert any("is not set" in line for line in said(tmp_path, USER + 'password_env = "NO_SUCH_VARIABLE"'))
    assert any(
        "no program" in line for line in said(tmp_path, USER + 'password_command = ["no-such-program"]')
    )
    said(tmp_path, USER)
    (tmp_path / "open").write_text("x\n")
    (tmp_path / "open").chmod(0o644)
    assert any("can be read by everybody" in line for line in said(tmp_path, USER + 'password_file = "open"'))


def test_one_mailbox_has_one_account(tmp_path: Path) -> None:
    twice = PASSWORD + USER + '[[pop3]]\nhost = "POP.provider.example"\nuser = "info@example.com"\n'
    assert any("has the same mailbox" in line for line in said(tmp_path, twice + PASSWORD + USER))


def test_a_source_of_fetched_mail_takes_mail(tmp_path: Path) -> None:
    keys = PASSWORD + USER + "source = 2\n[[source]]\nnumber = 2\n"
    assert said(tmp_path, keys) == []
    assert load(tmp_path / "lonedot.toml").served == {1, 2}


def test_settings_of_an_account(tmp_path: Path) -> None:
    assert said(tmp_path, 'password_command = ["echo", "told"]\n' + GLOBAL) == []
    config = load(tmp_path / "lonedot.toml")
    (account,) = accounts_from(config)
    assert (account.name, account.port, account.password) == (
        "info@example.com at pop.provider.example",
        995,
        b"told",
    )
    assert account.max_size == config.server.max_size
    assert "told" not in repr(account)
    assert said(tmp_path, PASSWORD + USER + 'tls = "starttls"') == []
    (account,) = accounts_from(load(tmp_path / "lonedot.toml"))
    assert (account.port, account.password) == (110, b"a secret")

"""The DKIM sink: whose mail it signs, with which key, and which settings it takes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from lonedot.message.dkim import read_tags
from lonedot.message.dkimverify import Standing, verify
from lonedot.message.intake import content_from
from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin.dkim import Dkim
from lonedot.sinks.settings import SettingsFault
from lonedot.testing.sinks import Ran, bound, run_sink
from tests.unit.sinks.builtin.dkim_keys import Keys

KEYS = Keys()
LETTER = b"From: A <a@office.example>\r\nTo: b@example.org\r\nTo: c@example.org\r\nSubject: x\r\n\r\ntext\r\n"


@pytest.fixture
def key(tmp_path: Path) -> str:
    return str(KEYS.write_ed25519(tmp_path))


def signed(octets: bytes, **settings: Setting) -> Ran:
    return run_sink(Dkim, octets, settings=settings)


def tags(ran: Ran) -> list[dict[bytes, bytes]]:
    return [read_tags(field.raw) for field in ran.after.headers.every("DKIM-Signature")]


def test_it_signs_and_the_guard_has_nothing_to_say(key: str) -> None:
    ran = signed(LETTER, domain="office.example", selector="s1", key=key, valid_days=7)
    assert ran.decision.value == "accept"
    assert ran.findings == ()
    (one,) = verify(ran.after.content, KEYS.find)
    assert one.standing is Standing.PASSED
    (found,) = tags(ran)
    assert (found[b"d"], found[b"s"], found[b"c"]) == (b"office.example", b"s1", b"relaxed/relaxed")
    assert int(found[b"x"]) - int(found[b"t"]) == 7 * 24 * 3600
    assert ran.octets.endswith(LETTER)


def test_fields_are_oversigned(key: str) -> None:
    ran = signed(LETTER, domain="office.example", selector="s1", key=key)
    (one,) = verify(ran.after.content, KEYS.find)
    assert [one.signed.count(name) for name in (b"from", b"to", b"subject", b"cc", b"references")] == [
        2, 3, 2, 1, 0,
    ]  # fmt: skip
    for added in (b"From: e@evil.example", b"To: d@example.org", b"Cc: d@example.org", b"Subject: y"):
        (broken,) = verify(content_from(added + b"\r\n" + ran.octets), KEYS.find)
        assert broken.is_head_same is False
    (same,) = verify(content_from(b"Received: x\r\nX-Any: y\r\n" + ran.octets), KEYS.find)
    assert same.standing is Standing.PASSED


def test_the_list_of_fields_is_a_setting(key: str) -> None:
    ran = signed(
        LETTER, domain="office.example", selector="s1", key=key, headers="Subject, X-Any", oversign="X-Any"
    )
    (one,) = verify(ran.after.content, KEYS.find)
    assert one.signed == (b"from", b"subject", b"x-any")


@pytest.mark.parametrize(
    ("sender", "selectors"),
    [
        ("a@office.example", [b"s1"]),
        ("a@OFFICE.example", [b"s1"]),
        ("a@sub.deep.office.example", [b"s1"]),
        ("a@two.example", [b"r2", b"s2"]),
        ("a@notoffice.example", []),
        ("a@example", []),
        ("a@b\xfccher.example", [b"s3"]),
        ("nobody", []),
    ],
)
def test_the_key_is_that_of_the_domain_in_from(sender: str, selectors: list[bytes], tmp_path: Path) -> None:
    one, two = KEYS.write_ed25519(tmp_path), KEYS.write_rsa(tmp_path)
    keys = f"two.example s2 {one}; two.example r2 {two};xn--bcher-kva.example s3 {one};"
    octets = LETTER.replace(b"a@office.example", sender.encode())
    ran = signed(octets, domain="office.example", selector="s1", key=str(one), keys=keys)
    assert [found[b"s"] for found in tags(ran)] == selectors
    assert all(found.standing is Standing.PASSED for found in verify(ran.after.content, KEYS.find))


def test_mail_of_others_is_signed_when_it_is_said(key: str) -> None:
    octets = LETTER.replace(b"office.example", b"other.example")
    settings: dict[str, Setting] = {"domain": "office.example", "selector": "s1", "key": key}
    assert tags(signed(octets, **settings)) == []
    (found,) = tags(signed(octets, **settings, sign_others=True))
    assert found[b"d"] == b"office.example"
    no_from = re.sub(rb"From:.*\r\n", b"", octets)
    assert tags(signed(no_from, **settings, sign_others=True)) == []


def test_however_many_fields_there_are(key: str) -> None:
    octets = b"To: b@example.org\r\n" * 5000 + LETTER
    (one,) = verify(signed(octets, domain="office.example", selector="s1", key=key).after.content, KEYS.find)
    assert one.standing is Standing.PASSED
    assert one.signed.count(b"to") == 21


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "there is no key"),
        ({"domain": "a.example"}, "domain, selector and key"),
        ({"keys": "a.example s1"}, "DOMAIN SELECTOR PATH"),
        ({"domain": "a example", "selector": "s", "key": "/k"}, "is no domain"),
        ({"domain": "a..example", "selector": "s", "key": "/k"}, "is no domain"),
        ({"domain": "a.example", "selector": "s;", "key": "/k"}, "is no selector"),
        ({"domain": "a.example", "selector": "s", "key": "k.pem"}, "the whole path"),
        ({"domain": "a.example", "selector": "s", "key": "/no/such.pem"}, "/no/such.pem: No such file"),
        ({"domain": "a.example", "selector": "s", "key": "/dev/null"}, "is not a file"),
        ({"domain": "a.example", "selector": "s", "key": "/k", "headers": "Return-Path"}, "return-path"),
        ({"domain": "a.example", "selector": "s", "key": "/k", "oversign": "a:b"}, "name of a field"),
        ({"domain": "a.example", "selector": "s", "key": "/k", "canonicalization": "x/y"}, "relaxed/simple"),
        ({"domain": "a.example", "selector": "s", "key": "/k", "valid_days": -1}, "write days"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Setting], words: str) -> None:
    with pytest.raises(SettingsFault, match=re.escape(words)):
        bound(Dkim, settings=settings)


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o777])
def test_a_key_that_others_can_read_is_a_fault(mode: int, tmp_path: Path) -> None:
    path = KEYS.write_rsa(tmp_path, mode=mode)
    with pytest.raises(SettingsFault, match=f"mode {mode:04o}.*chmod 600"):
        bound(Dkim, settings={"domain": "a.example", "selector": "s", "key": str(path)})


def test_no_octet_of_a_key_is_in_a_fault(tmp_path: Path) -> None:
    path = KEYS.write_rsa(tmp_path)
    text = path.read_bytes()
    path.write_bytes(text[:400] + b"!" + text[401:])
    with pytest.raises(SettingsFault, match="no private key in PEM") as fault:
        bound(Dkim, settings={"domain": "a.example", "selector": "s", "key": str(path)})
    assert text[100:130].decode() not in str(fault.value)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SettingsFault, match="is not a file"):
        bound(Dkim, settings={"domain": "a.example", "selector": "s", "key": str(tmp_path / "fifo")})

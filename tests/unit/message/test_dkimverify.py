"""Verifying signatures: the example of RFC 8463, what breaks it, and key records."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.dkim import Algorithm
from lonedot.message.dkimkeys import KeyFault, read_key_record, signing_key
from lonedot.message.dkimverify import SIGNATURES_LIMIT, Checked, Standing, key_names, verify
from lonedot.message.intake import content_from

# RFC 8463 Appendix A.
SIGNED = """\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
""".replace("\n", "\r\n").encode()
KEYS = {
    b"brisbane._domainkey.football.example.com": (
        b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    ),
    b"test._domainkey.football.example.com": (
        b"v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWR"
        b"iGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutAC"
        b"DfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3"
        b"Ip3G+2kryOTIKT+l/K4w3QIDAQAB"
    ),
}
ED25519 = KEYS[b"brisbane._domainkey.football.example.com"]


def checked(octets: bytes, keys: dict[bytes, bytes] | None = None, now: float | None = None) -> list[Checked]:
    return list(verify(content_from(octets), (KEYS if keys is None else keys).get, now))


def test_the_example_of_the_standard_holds() -> None:
    found = checked(SIGNED)
    assert [one.standing for one in found] == [Standing.PASSED, Standing.PASSED]
    assert [one.algorithm for one in found] == ["ed25519-sha256", "rsa-sha256"]
    assert found[0].signed == (
        b"from", b"to", b"subject", b"date", b"message-id", b"from", b"subject", b"date",
    )  # fmt: skip
    assert set(key_names(content_from(SIGNED))) == set(KEYS)


@pytest.mark.parametrize(
    ("old", "new", "is_body_same", "is_head_same"),
    [
        (b"hungry", b"angry", False, True),
        (b"dinner", b"lunch", True, False),
        (b"From: Joe", b"From: Eve <eve@example.net>\r\nFrom: Joe", True, False),
        (b"Joe.\r\n", b"Joe.\r\n.\r\n", False, True),
        (b"t=1528637909", b"t=1528637908", True, False),
    ],
)
def test_it_is_told_which_part_is_not_what_was_signed(
    old: bytes, new: bytes, is_body_same: bool, is_head_same: bool
) -> None:
    for one in checked(SIGNED.replace(old, new)):
        assert one.standing is Standing.FAILED
        assert (one.is_body_same, one.is_head_same) == (is_body_same, is_head_same)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Message-ID:", b"X-Mailer: any\r\nMessage-ID:"),
        (b"Subject: Is dinner", b"subject:   Is\r\n\tdinner"),
        (b"Joe.\r\n", b"Joe. \t\r\n\r\n\r\n"),
    ],
)
def test_what_a_relaxed_signature_leaves_free(old: bytes, new: bytes) -> None:
    assert {one.standing for one in checked(SIGNED.replace(old, new))} == {Standing.PASSED}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"a=ed25519-sha256", b"a=rsa-sha1", "RFC 8301"),
        (b"v=1; a=ed", b"v=2; a=ed", "version"),
        (b"s=brisbane;", b"s=brisbane; s=brisbane;", "twice"),
        (b"h=from : to :\r\n subject : date : message-id : from :", b"h=to : subject :", "From"),
        (b"i=@football.example.com", b"i=@example.net", "identity"),
        (b"s=brisbane;", b"s=other;", "no key record other._domainkey.football.example.com"),
        (b"s=brisbane;", b"s=test;", "not one for ed25519-sha256"),
        (b"s=brisbane;", b"s=brisbane; l=5000;", "signs 5000 octets"),
        (b"s=brisbane;", b"s=brisbane; l=-1;", "not a number"),
        (b"bh=2jUS", b"bh=\xff", "base64"),
        (b"c=relaxed/relaxed", b"c=strict", "canonicalisation"),
    ],
)
def test_what_cannot_be_checked_says_why(old: bytes, new: bytes, words: str) -> None:
    first, second = checked(SIGNED.replace(old, new, 1))
    assert first.standing is Standing.ERROR
    assert words in first.words
    assert second.standing is Standing.PASSED


def test_an_expired_signature() -> None:
    octets = SIGNED.replace(b"s=brisbane;", b"s=brisbane; x=1528637910;", 1)
    assert checked(octets)[0].standing is Standing.FAILED  # x= is signed too
    assert checked(SIGNED, now=4e9)[0].standing is Standing.PASSED


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (b"v=DKIM1; k=ed25519; p=", "revoked"),
        (b"v=DKIM1; k=rsa; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", "cannot be read"),
        (b"v=DKIM1; k=ed25519; p=AAAA", "cannot be read"),
        (b"v=DKIM2; p=AAAA", "v=DKIM1"),
        (b"k=rsa; v=DKIM1; p=AAAA", "v=DKIM1"),
        (b"v=DKIM1; s=tlsrpt; p=AAAA", "for mail"),
        (b"v=DKIM1; k=dsa; p=AAAA", "kind 'dsa'"),
        (b"v=DKIM1", "p="),
        (b"no tags", "tag list"),
    ],
)
def test_key_records_that_cannot_be_used(record: bytes, words: str) -> None:
    with pytest.raises(KeyFault, match=words):
        read_key_record(record)
    keys = {b"brisbane._domainkey.football.example.com": record}
    one = checked(SIGNED, keys)[0]
    assert one.standing is Standing.ERROR
    assert words in one.words
    assert one.is_body_same


def test_flags_of_a_key_record() -> None:
    key = read_key_record(ED25519 + b"; t=y:s; s=email; h=sha256")
    assert (key.algorithm, key.is_testing, key.is_strict) == (Algorithm.ED25519_SHA256, True, True)
    octets = SIGNED.replace(b"i=@football", b"i=@news.football", 1)
    strict = {b"brisbane._domainkey.football.example.com": ED25519 + b"; t=s"}
    assert "t=s" in checked(octets, strict)[0].words


def test_how_many_signatures_are_looked_at() -> None:
    field = SIGNED[: SIGNED.index(b"DKIM", 5)]
    assert len(checked(field * 500 + SIGNED)) == SIGNATURES_LIMIT


@given(junk=st.binary(max_size=200), place=st.integers(0, len(SIGNED) - 1), octet=st.integers(0, 255))
def test_nothing_is_raised_for_any_octets(junk: bytes, place: int, octet: int) -> None:
    checked(SIGNED[:place] + bytes([octet]) + SIGNED[place + 1 :])
    checked(b"DKIM-Signature:" + junk + b"\r\nFrom: a\r\n\r\nx\r\n")
    checked(SIGNED, dict.fromkeys(KEYS, junk))


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes = b"") -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
    )


def test_private_keys_that_cannot_be_used() -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    for octets, words in (
        (b"no key", "no private key"),
        (pem(curve), "neither"),
        (pem(curve, b"secret"), "passphrase"),
    ):
        with pytest.raises(KeyFault, match=words):
            signing_key(octets)

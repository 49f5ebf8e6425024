"""Offers read from EHLO, and plans: what is sent only when offered, what a hop cannot take."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.protocol.client_plan import (
    BDAT_LIMIT,
    NO_OFFER,
    ContentFacts,
    Offer,
    Plan,
    Refusal,
    RefusalKind,
    guard_line,
    plan_transaction,
    read_offer,
)
from lonedot.protocol.errors import LocalProtocolError
from lonedot.protocol.events import ContentMode
from lonedot.terms.address import NULL_REVERSE_PATH, Address
from lonedot.terms.envelope import Envelope, Notify, Recipient, Ret
from lonedot.terms.reply import Reply

EVERYTHING = Offer(
    esmtp=True,
    size=0,
    pipelining=True,
    eight_bit_mime=True,
    smtputf8=True,
    chunking=True,
    dsn=True,
    starttls=True,
    enhanced_status_codes=True,
)


def ehlo(*lines: bytes) -> Reply:
    return Reply(250, "", (b"peer.example", *lines))


def envelope(*recipients: bytes, sender: bytes = b"a@example.com") -> Envelope:
    return Envelope(Address(sender), tuple(Recipient(Address(r)) for r in recipients))


def plan(env: Envelope, facts: ContentFacts, offer: Offer) -> Plan:
    planned = plan_transaction(env, env.recipients, facts, offer)
    assert isinstance(planned, Plan), planned
    return planned


def refusal(env: Envelope, facts: ContentFacts, offer: Offer) -> Refusal:
    planned = plan_transaction(env, env.recipients, facts, offer)
    assert isinstance(planned, Refusal), planned
    return planned


def test_an_offer_is_read_without_regard_to_case() -> None:
    offer = read_offer(
        ehlo(
            b"pipelining",
            b"Size 1000",
            b"8bitmime",
            b"SMTPUTF8",
            b"Chunking",
            b"DSN",
            b"STARTTLS",
            b"EnhancedStatusCodes",
            b"AUTH login PLAIN",
            b"AUTH=PLAIN CRAM-MD5",
            b"X-UNKNOWN with words",
        )
    )
    assert offer == Offer(
        esmtp=True,
        size=1000,
        pipelining=True,
        eight_bit_mime=True,
        smtputf8=True,
        chunking=True,
        dsn=True,
        starttls=True,
        enhanced_status_codes=True,
        auth=(b"LOGIN", b"PLAIN", b"CRAM-MD5"),
    )


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (b"SIZE", 0),
        (b"SIZE 0", 0),
        (b"SIZE 5", 5),
        (b"SIZE lots", 0),
        (b"SIZE -1", 0),
        (b"SIZE " + b"9" * 21, 0),
    ],
)
def test_a_size_that_makes_no_sense_is_no_limit(line: bytes, size: int) -> None:
    assert read_offer(ehlo(line)).size == size


def test_the_greeting_line_is_not_a_keyword() -> None:
    assert not read_offer(Reply(250, "", (b"PIPELINING",))).pipelining


def test_keywords_that_the_route_switches_off_count_as_absent() -> None:
    lines = (b"PIPELINING", b"8BITMIME", b"AUTH=PLAIN", b"SIZE 10", b"CHUNKING")
    offer = read_offer(ehlo(*lines), {b"8BITMIME", b"AUTH", b"SIZE", b"CHUNKING"})
    assert offer == Offer(esmtp=True, pipelining=True)


def test_nothing_is_sent_that_was_not_offered() -> None:
    env = Envelope(
        Address(b"a@example.com"),
        (Recipient(Address(b"b@example.org"), Notify.SUCCESS, b"rfc822;b@example.org"),),
        ret=Ret.FULL,
        envid=b"QQ314159",
    )
    planned = plan(env, ContentFacts(100), NO_OFFER)
    assert planned == Plan(
        ContentMode.DATA, b"MAIL FROM:<a@example.com>", (b"RCPT TO:<b@example.org>",), 100, False
    )


def test_everything_offered_is_used() -> None:
    env = Envelope(
        Address("jörg@example.com".encode()),
        (
            Recipient(Address(b"b@example.org"), Notify.SUCCESS | Notify.DELAY, b"rfc822;b@example.org"),
            Recipient(Address(b"c@example.org"), Notify.NEVER),
            Recipient(Address(b"d@example.org")),
        ),
        smtputf8=True,
        ret=Ret.HEADERS,
        envid=b"QQ314159",
    )
    planned = plan(env, ContentFacts(100, True, True), EVERYTHING)
    assert planned.mode is ContentMode.BDAT
    assert planned.passes_dsn
    assert planned.mail == (
        b"MAIL FROM:<j\xc3\xb6rg@example.com> SIZE=100 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ314159"
    )
    assert planned.rcpt == (
        b"RCPT TO:<b@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b@example.org",
        b"RCPT TO:<c@example.org> NOTIFY=NEVER",
        b"RCPT TO:<d@example.org>",
    )


def test_the_null_reverse_path_is_a_path() -> None:
    env = Envelope(NULL_REVERSE_PATH, (Recipient(Address(b"b@example.org")),))
    assert plan(env, ContentFacts(1), NO_OFFER).mail == b"MAIL FROM:<>"


def test_eight_bit_content_for_a_seven_bit_hop_must_be_encoded() -> None:
    offer = Offer(esmtp=True)
    for facts in (ContentFacts(1, True, False), ContentFacts(1, False, True)):
        found = refusal(envelope(b"b@example.org"), facts, offer)
        assert (found.kind, found.status) == (RefusalKind.NEEDS_SEVEN_BIT, "5.6.3")


def test_smtputf8_is_asked_for_only_when_needed() -> None:
    env = msgspec.structs.replace(envelope(b"b@example.org"), smtputf8=True)
    assert b"SMTPUTF8" not in plan(env, ContentFacts(1, False, True), EVERYTHING).mail
    assert b"SMTPUTF8" in plan(env, ContentFacts(1, True, False), EVERYTHING).mail
    assert b"SMTPUTF8" not in plan(envelope(b"b@example.org"), ContentFacts(1, True, False), EVERYTHING).mail


@pytest.mark.parametrize("missing", ["smtputf8", "eight_bit_mime"])
def test_an_international_sender_or_header_needs_smtputf8(missing: str) -> None:
    offer = Offer(esmtp=True, smtputf8=missing != "smtputf8", eight_bit_mime=missing != "eight_bit_mime")
    sender = envelope(b"b@example.org", sender="ö@example.com".encode())
    header = msgspec.structs.replace(envelope(b"b@example.org"), smtputf8=True)
    for env, facts in ((sender, ContentFacts(1)), (header, ContentFacts(1, True))):
        found = refusal(env, facts, offer)
        assert (found.kind, found.status, found.places) == (RefusalKind.NEEDS_SMTPUTF8, "5.6.7", ())


def test_an_international_recipient_fails_alone() -> None:
    env = envelope(b"b@example.org", "ö@example.org".encode(), b"c@example.org")
    found = refusal(env, ContentFacts(1), Offer(esmtp=True, eight_bit_mime=True))
    assert (found.kind, found.places) == (RefusalKind.NEEDS_SMTPUTF8, (1,))


def test_size_is_compared_with_the_offer() -> None:
    env = envelope(b"b@example.org")
    assert plan(env, ContentFacts(100), Offer(size=100)).mail.endswith(b" SIZE=100")
    assert plan(env, ContentFacts(100), Offer(size=0)).mail.endswith(b" SIZE=100")
    found = refusal(env, ContentFacts(101), Offer(size=100))
    assert (found.kind, found.status) == (RefusalKind.TOO_LARGE, "5.3.4")
    assert "101" in found.words and "100" in found.words


@pytest.mark.parametrize(
    ("facts", "mode"),
    [
        (ContentFacts(BDAT_LIMIT), ContentMode.BDAT),
        (ContentFacts(BDAT_LIMIT + 1), ContentMode.DATA),
        (ContentFacts(10, at_hand=False), ContentMode.DATA),
    ],
)
def test_bdat_carries_small_content_at_hand(facts: ContentFacts, mode: ContentMode) -> None:
    assert plan(envelope(b"b@example.org"), facts, EVERYTHING).mode is mode


@pytest.mark.parametrize(
    "address",
    [
        b"",
        b"a b@example.org",
        b"a@example.org> SIZE=1",
        b"a@example.org>\r\nRCPT TO:<x@example.org",
        b"a\r@example.org",
        b"a\n@example.org",
        b"a\0@example.org",
        b"a\t@example.org",
        b'"a@example.org',
        b'"a"b"@example.org',
        b'"a\r\n"@example.org',
        b'"a"@example.org> X',
        b"a\x7f@example.org",
    ],
)
def test_an_address_that_could_end_its_command_is_refused_alone(address: bytes) -> None:
    found = refusal(envelope(b"b@example.org", address), ContentFacts(1), EVERYTHING)
    assert (found.kind, found.status, found.places) == (RefusalKind.BAD_ADDRESS, "5.1.3", (1,))
    if address:
        found = refusal(envelope(b"b@example.org", sender=address), ContentFacts(1), EVERYTHING)
        assert (found.kind, found.status, found.places) == (RefusalKind.BAD_ADDRESS, "5.1.7", ())


@pytest.mark.parametrize(
    "address",
    [
        b"postmaster",
        b"a@[192.0.2.1]",
        b"a@[IPv6:2001:db8::1]",
        b'"a b"@example.org',
        b'"a\\"b>"@example.org',
        b"o'x@e.org",
    ],
)
def test_odd_but_sound_addresses_pass(address: bytes) -> None:
    assert plan(envelope(address), ContentFacts(1), NO_OFFER).rcpt == (b"RCPT TO:<%s>" % address,)


def test_parameters_of_dsn_that_could_add_others_are_left_out() -> None:
    env = Envelope(
        Address(b"a@example.com"),
        (Recipient(Address(b"b@example.org"), 0, b"rfc822;b SIZE=0"),),
        envid=b"x BODY=7BIT",
    )
    planned = plan(env, ContentFacts(1), EVERYTHING)
    assert b"ENVID" not in planned.mail
    assert planned.rcpt == (b"RCPT TO:<b@example.org>",)


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=20), st.binary(max_size=20))
def test_no_octets_in_an_envelope_make_two_commands(
    sender: bytes, recipient: bytes, envid: bytes, orcpt: bytes
) -> None:
    env = Envelope(Address(sender), (Recipient(Address(recipient), 0, orcpt),), envid=envid)
    planned = plan_transaction(env, env.recipients, ContentFacts(1), EVERYTHING)
    if isinstance(planned, Plan):
        for line in (planned.mail, *planned.rcpt):
            assert guard_line(line).count(b"\n") == 1
            assert line.count(b">") == 1 or b'"' in line


@pytest.mark.parametrize("line", [b"MAIL FROM:<a\r\nb>", b"NOOP\n", b"EHLO a\0b", b"RCPT TO:<\r>"])
def test_the_door_refuses_what_would_be_two_commands(line: bytes) -> None:
    with pytest.raises(LocalProtocolError, match="CR, LF or NUL"):
        guard_line(line)


@pytest.mark.parametrize(
    ("verb", "limit"), [(b"EHLO ", 512), (b"MAIL ", 685), (b"RCPT ", 1052), (b"mail ", 685)]
)
def test_the_door_refuses_longer_lines_than_a_server_must_read(verb: bytes, limit: int) -> None:
    fits = verb + b"x" * (limit - 2 - len(verb))
    assert len(guard_line(fits)) == limit
    with pytest.raises(LocalProtocolError, match="octets"):
        guard_line(fits + b"x")

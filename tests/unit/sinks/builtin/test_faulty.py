"""The faulty sink does its damage, and dispatch undoes all of it but the field that was declared."""

from __future__ import annotations

import pytest

from lonedot.cli.samples import letter, scan_message, scan_pdf
from lonedot.message.encode import DataEncoder, canonicalise
from lonedot.message.findings import Code, Severity
from lonedot.message.intake import content_from
from lonedot.message.ledger import Action
from lonedot.sinks.bindings import Binding, OnDamage, Role
from lonedot.sinks.builtin.faulty import FIELD, rewrite_badly, x_recipient_list
from lonedot.sinks.calls import Decision, Dispatched
from lonedot.sinks.dispatch import dispatch
from lonedot.sinks.load import bind
from lonedot.spool.interface import Facts
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import SessionId
from lonedot.testing.clock import ManualClock

DATE = b"Sun, 22 Nov 2026 12:29:25 +0000"
SCAN = scan_message(DATE)
LETTER = letter(DATE)
FACTS = Facts("smtp", SessionId("0000000000001"))
ENVELOPE = Envelope(Address(b"a@example.com"), (Recipient(Address(b"b@example.com")),))
CLASS = "lonedot.sinks.builtin.faulty:x_recipient_list"


def dispatched(octets: bytes, binding: Binding | None = None) -> Dispatched:
    binding = binding or bind(x_recipient_list, sink_class=CLASS)
    return dispatch("id", ENVELOPE, FACTS, content_from(octets), [binding], ManualClock())


def test_a_scan_is_handed_back_decoded_and_cut() -> None:
    octets = rewrite_badly(SCAN)
    assert octets.endswith(b"%%EOF\n")
    assert octets.endswith(scan_pdf())
    assert octets.startswith(FIELD + b"\n")
    assert b"Content-Transfer-Encoding: base64\n" in octets
    assert b"\r\n" not in octets.removesuffix(scan_pdf())
    assert b"-1--" not in octets


def test_a_message_without_attachment_loses_its_line_ends() -> None:
    octets = rewrite_badly(LETTER)
    assert octets == FIELD + b"\n" + LETTER.replace(b"\r\n", b"\n").removesuffix(b"\n")


def test_an_attachment_that_is_the_message() -> None:
    octets = b"Subject: s\r\nContent-Transfer-Encoding: base64\r\n\r\nJSVFT0YK\r\n"
    assert rewrite_badly(octets) == (
        FIELD + b"\nSubject: s\nContent-Transfer-Encoding: base64\n\n" + b"%%EOF\n"
    )


def test_base64_that_is_none_is_left() -> None:
    octets = b"Subject: s\r\nContent-Transfer-Encoding: base64\r\n\r\nabc\r\n"
    assert rewrite_badly(octets).endswith(b"base64\n\nabc\n")


@pytest.mark.parametrize("octets", [b"", b"x", b"Subject: s", b"Subject: s\r\n", b"\r\n\r\n", b"\r\n"])
def test_scraps_are_rewritten_too(octets: bytes) -> None:
    assert rewrite_badly(octets).startswith(FIELD + b"\n")


@pytest.mark.parametrize("octets", [SCAN, LETTER], ids=["scan", "letter"])
def test_dispatch_takes_the_field_and_nothing_else(octets: bytes) -> None:
    done = dispatched(octets)
    assert done.decision is Decision.ACCEPT
    assert done.content.body.octets() == content_from(octets).body.octets()
    assert sorted(done.content.head.split(b"\r\n")) == sorted(
        (FIELD + b"\r\n" + content_from(octets).head).split(b"\r\n")
    )
    (entry,) = done.entries
    assert entry.action is Action.REDUCED
    assert entry.attempted_size == len(rewrite_badly(octets))
    sent = b"".join(DataEncoder(canonicalise(done.content), "DATA").chunks())
    assert sent.endswith(b"\r\n.\r\n")


def test_every_kind_of_damage_to_the_scan_is_found() -> None:
    (entry,) = dispatched(SCAN).entries
    codes = {finding.code for finding in entry.findings if finding.severity is not Severity.NOTE}
    assert codes >= {
        Code.BARE_LF,
        Code.BOUNDARY_MISSING,
        Code.ENCODING_MISMATCH,
        Code.BODY_UNDECLARED,
        Code.NUL,
    }
    assert entry.tail_before == SCAN[-64:]
    assert entry.tail_attempted == rewrite_badly(SCAN)[-64:]
    assert any("%%EOF LF" in finding.words for finding in entry.findings)


def test_the_end_of_the_letter_is_found_missing() -> None:
    (entry,) = dispatched(LETTER).entries
    codes = {finding.code for finding in entry.findings}
    assert codes >= {Code.BARE_LF, Code.NO_FINAL_NEWLINE}


def test_as_a_protective_sink_it_holds_the_mail() -> None:
    binding = bind(x_recipient_list, sink_class=CLASS, role=Role.PROTECTIVE.value)
    assert binding.on_damage is OnDamage.HOLD
    done = dispatched(SCAN, binding)
    assert done.decision is Decision.HOLD
    assert done.content.octets() == SCAN

"""The documented grammar, row by row, and what it refuses."""

from __future__ import annotations

import pytest

from lonedot.sinks.rules import RuleError, compile_rule
from lonedot.terms.address import NULL_REVERSE_PATH, Address
from lonedot.terms.envelope import Envelope, Recipient


def envelope(*recipients: str, sender: str = "copier@a.example") -> Envelope:
    path = Address(sender.encode()) if sender else NULL_REVERSE_PATH
    return Envelope(path, tuple(Recipient(Address(r.encode())) for r in recipients))


JOE = "joe@a.example"
POP = "mspop3connector.joe@a.example"
SUB = "joe@sub.a.example"


@pytest.mark.parametrize(
    ("rule", "joe", "pop", "sub"),
    [
        ("RCPT TO=*", True, True, True),
        ("RCPT TO=*mspop3connector.*", False, True, False),
        ("RCPT TO=joe@a.example", True, False, False),
        ("RCPT TO=joe@*a.example", True, False, True),
        ("RCPT TO=*@a.example", True, True, False),
    ],
)
def test_documented_table(rule: str, joe: bool, pop: bool, sub: bool) -> None:
    compiled = compile_rule(rule)
    assert compiled is not None
    assert [compiled.matches(envelope(a)) for a in (JOE, POP, SUB)] == [joe, pop, sub]


def test_no_rule_means_every_message() -> None:
    assert compile_rule("  ") is None


def test_semicolon_is_or_and_one_recipient_is_enough() -> None:
    rule = compile_rule("rcpt to=joe@*; MAIL FROM=*@bank.example")
    assert rule is not None
    assert rule.matches(envelope("anna@b.example", "Joe@b.example"))
    assert rule.matches(envelope("anna@b.example", sender="x@BANK.example"))
    assert not rule.matches(envelope("anna@b.example"))


def test_no_label_boundary() -> None:
    rule = compile_rule("RCPT TO=*@*example.com")
    assert rule is not None
    assert rule.matches(envelope("a@badexample.com"))


def test_null_reverse_path_matches_only_a_star() -> None:
    star, named = compile_rule("MAIL FROM=*"), compile_rule("MAIL FROM=*@a.example")
    assert star is not None and named is not None
    assert star.matches(envelope(JOE, sender=""))
    assert not named.matches(envelope(JOE, sender=""))


def test_ehlo() -> None:
    rule = compile_rule("EHLO=*.copiers.example")
    assert rule is not None
    assert rule.matches(envelope(JOE), "mx1.COPIERS.example")
    assert not rule.matches(envelope(JOE), "copiers.example")


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("SUBJECT=*", "not a command"),
        ("RCPT TO", "no pattern"),
        ("RCPT TO=", "no pattern"),
        ("RCPT TO=a*b@c", "only at the start or the end"),
        ("RCPT TO=a@b*", "only at the start"),
        ("RCPT TO=joe;", "not a command"),
    ],
)
def test_faults_say_what_and_what_to_do(rule: str, words: str) -> None:
    with pytest.raises(RuleError, match=words):
        compile_rule(rule)

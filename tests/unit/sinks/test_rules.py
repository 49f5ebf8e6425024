"""The documented grammar, row by row, and what it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.sinks.bindings import check_fit
from lonedot.sinks.events import EVENTS, Event
from lonedot.sinks.rules import ANY_VERB, Command, RuleError, compile_rule
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
        ("MY SUBJECT=*", "not a command"),
        ("MAIL=*", "an event of its own: write `MAIL FROM="),
        ("AUTH=*", "an event of its own: bind to event 'auth'"),
        ("HELO!=*", "write `EHLO="),
        ("NOOP", "no pattern"),
        ("RCPT TO!=", "no pattern"),
        ("RCPT TO! =joe", "not a command"),
        ("NOOP=a*b", "only at the start or the end"),
        ("RCPT TO!=a@b*", "only at the start"),
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


@pytest.mark.parametrize(
    ("domain", "matches"),
    [
        ("example.com", True),
        ("mx.EXAMPLE.com", True),
        ("a.b.example.com", True),
        ("badexample.com", False),
        ("example.com.au", False),
    ],
)
def test_a_dot_in_front_keeps_to_labels(domain: str, matches: bool) -> None:
    for text, event in (("RCPT TO=*@.Example.com", envelope(f"joe@{domain}")), ("EHLO=.example.com", None)):
        rule = compile_rule(text)
        assert rule is not None
        assert rule.matches(event or envelope(JOE), domain) is matches


def test_an_excluded_recipient_is_as_if_it_were_not_there() -> None:
    rule = compile_rule("RCPT TO=*@a.example;RCPT TO!=archive@*")
    assert rule is not None
    assert rule.matches(envelope("archive@a.example", JOE))
    assert not rule.matches(envelope("archive@a.example"))
    assert not rule.matches(envelope("archive@a.example", "joe@b.example"))


def test_an_excluded_sender_and_name_exclude_the_message() -> None:
    rule = compile_rule("MAIL FROM!=*@bank.example;RCPT TO=*;EHLO != scanner*")
    assert rule is None or rule.asks == {Command.MAIL_FROM, Command.RCPT_TO, Command.EHLO}
    assert rule is not None
    assert rule.matches(envelope(JOE), "copier")
    assert not rule.matches(envelope(JOE, sender="x@bank.example"), "copier")


def test_a_rule_that_only_excludes_matches_the_rest() -> None:
    rule = compile_rule("RCPT TO!=*@.a.example")
    assert rule is not None
    assert not rule.matches(envelope(JOE, SUB))
    assert rule.matches(envelope(JOE, "joe@b.example"))


def test_verbs() -> None:
    rule = compile_rule("xexch50=*; VRFY=*joe*")
    assert rule is not None
    assert rule.verbs == {b"XEXCH50", b"VRFY"}
    assert rule.matches(envelope(JOE), "", b"XEXCH50", b"12 2")
    assert rule.matches(envelope(JOE), "", b"VRFY", b"Big Joe")
    assert not rule.matches(envelope(JOE), "", b"VRFY", b"ann")
    assert not rule.matches(envelope(JOE), "", b"NOOP", b"joe")


def test_verbs_that_cannot_be_listed_are_all() -> None:
    for text in ("NOOP!=*", "NOOP=*;EHLO=*", "EHLO=a.example"):
        rule = compile_rule(text)
        assert rule is not None
        assert rule.verbs == {ANY_VERB}
    all_but = compile_rule("NOOP!=*")
    assert all_but is not None
    assert all_but.matches(envelope(JOE), "", b"HELP") and not all_but.matches(envelope(JOE), "", b"NOOP")


@pytest.mark.parametrize("event", list(Event))
def test_a_verb_fits_the_event_of_verbs_alone(event: Event) -> None:
    rule = compile_rule("XEXCH50=*")
    if Command.VERB in EVENTS[event].rule:
        assert event is Event.VERB
        check_fit("n", event, (), rule)
    else:
        with pytest.raises(ValueError, match="only event 'verb'"):
            check_fit("n", event, (), rule)


# -- against a matcher that reads the text each time -----------------------------------------------------


def naive_text(pattern: str, text: str) -> bool:
    """Every way to cut `text` at the stars."""
    if "*" not in pattern:
        return pattern == text
    left, _, right = pattern.partition("*")
    if not text.startswith(left):
        return False
    rest = text[len(left) :]
    return any(naive_text(right, rest[n:]) for n in range(len(rest) + 1))


def naive_domain(pattern: str, text: str) -> bool:
    if len(pattern) > 1 and pattern.startswith("."):
        labels = text.split(".")
        return any(".".join(labels[n:]) == pattern[1:] for n in range(len(labels)))
    return naive_text(pattern or "*", text)


def naive_path(pattern: str, path: str) -> bool:
    local, _, domain = path.rpartition("@") if "@" in path else (path, "", "")
    if "@" not in pattern:
        return naive_text(pattern, local)
    name, _, wanted = pattern.rpartition("@")
    return naive_text(name or "*", local) and naive_domain(wanted, domain)


def naive(rule: str, recipients: list[str], sender: str, helo: str) -> bool:
    when: list[tuple[str, str]] = []
    but: list[tuple[str, str]] = []
    for condition in rule.split(";"):
        left, _, pattern = condition.partition("=")
        (but if left.endswith("!") else when).append((left.rstrip("!"), pattern))

    def holds(command: str, pattern: str, recipient: str) -> bool:
        if command == "EHLO":
            return naive_domain(pattern, helo)
        return naive_path(pattern, sender if command == "MAIL FROM" else recipient)

    return any(
        (not when or any(holds(*one, recipient) for one in when))
        and not any(holds(*one, recipient) for one in but)
        for recipient in recipients
    )


WORD = st.text("ab.", min_size=1, max_size=4)
STARRED = st.builds(lambda a, w, z: a + w + z, st.sampled_from(["", "*"]), WORD, st.sampled_from(["", "*"]))
DOMAIN = st.builds(lambda a, w: a + w, st.sampled_from(["", "*", "."]), WORD) | st.just("*")
NAME = STARRED | st.just("*")
PATH = NAME | st.builds(lambda n, d: f"{n}@{d}", NAME, DOMAIN)
CONDITION = st.builds(
    lambda c, e, p: f"{c}{e}{p}",
    st.sampled_from(["MAIL FROM", "RCPT TO"]),
    st.sampled_from(["=", "!="]),
    PATH,
) | st.builds(lambda e, p: f"EHLO{e}{p}", st.sampled_from(["=", "!="]), DOMAIN)
HOST = st.lists(st.text("ab", min_size=1, max_size=2), min_size=1, max_size=3).map(".".join)
MAILBOX = st.builds(lambda n, d: f"{n}@{d}", st.text("ab", min_size=1, max_size=3), HOST)


@given(
    st.lists(CONDITION, min_size=1, max_size=4).map(";".join), st.lists(MAILBOX, min_size=1), MAILBOX, HOST
)
def test_as_a_matcher_that_reads_the_text(rule: str, recipients: list[str], sender: str, helo: str) -> None:
    compiled = compile_rule(rule)
    assert compiled is not None
    assert compiled.matches(envelope(*recipients, sender=sender), helo) is naive(
        rule, recipients, sender, helo
    )


@given(st.text(max_size=60))
def test_any_text_is_a_rule_or_a_fault_in_words(text: str) -> None:
    try:
        rule = compile_rule(text)
    except RuleError as error:
        assert str(error)
    else:
        assert (rule is None) is (not text.strip())
        if rule is not None:
            rule.matches(envelope(JOE), "x", b"NOOP", b"y")

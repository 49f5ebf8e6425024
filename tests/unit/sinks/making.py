"""What the tests of this room share: a message, bindings made in one line, and a dispatch of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from lonedot.message.content import Content
from lonedot.message.edits import AnyEdit, Edit, Effect
from lonedot.message.encode import canonicalise
from lonedot.message.fold import digests_of, fold
from lonedot.message.intake import content_from
from lonedot.sinks.bindings import Binding, OnDamage, OnError, Role, guid_for
from lonedot.sinks.calls import Dispatched
from lonedot.sinks.dispatch import dispatch
from lonedot.sinks.rules import compile_rule
from lonedot.sinks.verdicts import Next, Verdict
from lonedot.sinks.view import Message
from lonedot.spool.interface import Facts
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import SessionId
from lonedot.testing.clock import ManualClock

__all__ = ["CONTENT", "ENVELOPE", "FACTS", "OCTETS", "binding", "check", "editing", "rewriting", "run"]

OCTETS = (
    b"Received: from copier by relay.example.com; Sun, 22 Nov 2026 12:29:25 +0000\r\n"
    b"From: copier@a.example\r\nTo: joe@b.example\r\nSubject: a scan\r\n\r\n"
    b"The first line.\r\n.a line with a dot\r\nThe last line.\r\n"
)
CONTENT = content_from(OCTETS)
ENVELOPE = Envelope(Address(b"copier@a.example"), (Recipient(Address(b"joe@b.example")),))
FACTS = Facts("smtp", SessionId("0000000000001"), helo="copier", revision="r1")


def binding(
    call: Callable[[Message], Verdict],
    name: str = "sink",
    *,
    effects: Iterable[Effect] = (),
    role: Role = Role.COSMETIC,
    on_damage: OnDamage = OnDamage.UNDO,
    on_error: OnError = OnError.DEFER,
    rule: str = "",
) -> Binding:
    return Binding(
        name,
        guid_for(name),
        call,
        f"tests:{name}",
        rule=compile_rule(rule),
        effects=frozenset(effects),
        role=role,
        on_damage=on_damage,
        on_error=on_error,
    )


def editing(*edits: AnyEdit) -> Callable[[Message], Verdict]:
    """A sink that returns these edits."""
    return lambda message: Next(edits)


def rewriting(change: Callable[[bytes], bytes]) -> Callable[[Message], Verdict]:
    """A sink that hands the whole message back, changed."""
    return lambda message: Next([Edit.replace_message(change(message.octets()))])


def run(
    *bindings: Binding, content: Content = CONTENT, envelope: Envelope = ENVELOPE, checked: bool = True
) -> Dispatched:
    dispatched = dispatch("id", envelope, FACTS, content, bindings, ManualClock())
    if checked:
        check(content, bindings, dispatched)
    return dispatched


def check(content: Content, bindings: Sequence[Binding], dispatched: Dispatched) -> None:
    """What holds of every dispatch, whatever the sinks did."""
    canonicalise(dispatched.content)
    entries = dispatched.entries
    before = digests_of(content)
    for entry in entries:
        assert entry.before == before
        assert entry.revision == FACTS.revision
        assert entry.took_seconds >= 0
        before = entry.after
    assert digests_of(dispatched.content) == before
    assert fold(content, entries, verify=True).octets() == dispatched.content.octets()
    guids = [entry.binding_id for entry in entries]
    assert guids == [b.guid for b in bindings if b.guid in guids], "one entry each, in their order"

"""Rules: which messages a binding is called for. Compiled once, then matched without parsing.

Grammar (that of the old protocol rules)::

    rule           := condition { ";" condition }
    condition      := command "=" pattern
    command        := "EHLO" | "MAIL FROM" | "RCPT TO"
    pattern        := name-pattern [ "@" domain-pattern ]        for MAIL FROM and RCPT TO
                    | domain-pattern                             for EHLO
    name-pattern   := "*" | ["*"] text ["*"]                     exact, ends with, starts with, contains
    domain-pattern := ["*"] [ text ]                             exact or ends with

Case does not matter. Without a domain part any domain matches. The old documents leave two things open; here `;`
means OR, and one matching recipient is enough. `*example.com` has no label boundary: it matches `badexample.com`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope

__all__ = ["Command", "Rule", "RuleError", "compile_rule"]


class RuleError(ValueError):
    """The rule does not follow the grammar; the words say where and what would."""


class Command(enum.Enum):
    """What a condition asks of."""

    EHLO = "EHLO"
    MAIL_FROM = "MAIL FROM"
    RCPT_TO = "RCPT TO"


_Test = Callable[[bytes], bool]


def _any(_octets: bytes) -> bool:
    return True


def _compile_text(pattern: bytes, what: str) -> _Test:
    """A test for `*`, `text`, `*text`, `text*` or `*text*`, on octets in lower case."""
    leading, trailing = pattern.startswith(b"*"), pattern.endswith(b"*") and len(pattern) > 1
    text = pattern[1 if leading else 0 : -1 if trailing else None]
    if b"*" in text:
        raise RuleError(f"{what} {pattern.decode()!r}: `*` may stand only at the start or the end")
    if not text:
        return _any
    if leading and trailing:
        return lambda octets: text in octets
    if leading:
        return lambda octets: octets.endswith(text)
    if trailing:
        return lambda octets: octets.startswith(text)
    return lambda octets: octets == text


def _compile_address(pattern: bytes) -> Callable[[Address], bool]:
    name, at, domain = pattern.rpartition(b"@")
    if not at:
        name_test = _compile_text(pattern, "name pattern")
        return lambda address: name_test(address.local.lower())
    if domain.endswith(b"*") and domain != b"*":
        raise RuleError(f"domain pattern {domain.decode()!r}: `*` may stand only at the start")
    name_test = _compile_text(name, "name pattern")
    domain_test = _compile_text(domain, "domain pattern")
    return lambda address: name_test(address.local.lower()) and domain_test(address.domain)


class Rule:
    """A compiled rule. `str(rule)` is the text it came from."""

    __slots__ = ("_ehlo", "_recipient", "_sender", "text")

    def __init__(
        self,
        text: str,
        ehlo: Sequence[_Test],
        sender: Sequence[Callable[[Address], bool]],
        recipient: Sequence[Callable[[Address], bool]],
    ) -> None:
        self.text = text
        self._ehlo = ehlo
        self._sender = sender
        self._recipient = recipient

    def __str__(self) -> str:
        return self.text

    @property
    def asks(self) -> frozenset[Command]:
        """What its conditions ask of."""
        tests = {
            Command.EHLO: self._ehlo,
            Command.MAIL_FROM: self._sender,
            Command.RCPT_TO: self._recipient,
        }
        return frozenset(command for command, conditions in tests.items() if conditions)

    def matches(self, envelope: Envelope, helo: str = "") -> bool:
        """True when any condition holds; of RCPT TO, for any recipient."""
        if self._recipient and any(
            test(recipient.address) for recipient in envelope.recipients for test in self._recipient
        ):
            return True
        if self._sender and any(test(envelope.reverse_path) for test in self._sender):
            return True
        if self._ehlo:
            name = helo.lower().encode("utf-8", "backslashreplace")
            return any(test(name) for test in self._ehlo)
        return False


def compile_rule(text: str) -> Rule | None:
    """The compiled rule; None for an empty text (every message).

    Raises:
        RuleError: the text does not follow the grammar.
    """
    if not text.strip():
        return None
    ehlo: list[_Test] = []
    sender: list[Callable[[Address], bool]] = []
    recipient: list[Callable[[Address], bool]] = []
    for condition in text.split(";"):
        left, equals, right = condition.partition("=")
        try:
            command = Command(" ".join(left.upper().split()))
        except ValueError:
            commands = ", ".join(f"`{c.value}`" for c in Command)
            raise RuleError(f"{left.strip()!r} is not a command of a rule: use one of {commands}") from None
        pattern = right.strip().lower().encode("utf-8")
        if not equals or not pattern:
            raise RuleError(
                f"{condition.strip()!r} has no pattern: write `{command.value}=pattern`, `*` for any"
            )
        match command:
            case Command.EHLO:
                ehlo.append(_compile_text(pattern, "domain pattern"))
            case Command.MAIL_FROM:
                sender.append(_compile_address(pattern))
            case Command.RCPT_TO:
                recipient.append(_compile_address(pattern))
    return Rule(text, tuple(ehlo), tuple(sender), tuple(recipient))

"""Rules: which messages, or which commands, a binding is called for. Compiled once, then matched without parsing.

Grammar. The part with `=` is that of the old protocol rules, and means what it meant there::

    rule           := condition { ";" condition }
    condition      := command ( "=" | "!=" ) pattern
    command        := "EHLO" | "MAIL FROM" | "RCPT TO" | verb
    verb           := a command that no other event is for, such as NOOP or XEXCH50; at event `verb` alone
    pattern        := name-pattern [ "@" domain-pattern ]        for MAIL FROM and RCPT TO
                    | domain-pattern                             for EHLO
                    | name-pattern                               for a verb: of its argument
    name-pattern   := "*" | ["*"] text ["*"]                     exact, ends with, starts with, contains
    domain-pattern := ["*"] [ text ]                             exact or ends with
                    | "." text                                   that domain, and every domain below it

Case does not matter. Without a domain part any domain matches. The old documents leave two things open; here `;`
means OR, and one matching recipient is enough. `*example.com` has no label boundary: it matches `badexample.com`.

Two things are ours. `.example.com` keeps to labels: it is `example.com` and `mx.example.com`, not `badexample.com` (no
domain begins with a dot, so no old rule says this). And `!=` excludes: what it matches is not looked at. A recipient
that a `RCPT TO!=` matches is as if it were not there, and a message that has none left does not match; nor does one
whose sender, name in EHLO or verb is excluded. Exclusions hold for the whole rule, wherever they stand, and a rule
that only excludes matches all the rest.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope

__all__ = ["ANY_VERB", "Command", "Rule", "RuleError", "compile_rule"]


class RuleError(ValueError):
    """The rule does not follow the grammar; the words say where and what would."""


class Command(enum.Enum):
    """What a condition asks of."""

    EHLO = "EHLO"
    MAIL_FROM = "MAIL FROM"
    RCPT_TO = "RCPT TO"
    VERB = "any other verb"


ANY_VERB = b"*"
"""In the verbs of a rule: every one."""

_NAMED = {command.value: command for command in Command if command is not Command.VERB}
_VERB = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
_OTHER_EVENTS = {
    "HELO": "write `EHLO=…`, which is asked of HELO as well",
    "MAIL": "write `MAIL FROM=…`",
    "RCPT": "write `RCPT TO=…`",
    "DATA": "bind to event 'data'",
    "BDAT": "bind to event 'data'",
    "AUTH": "bind to event 'auth'",
}

_Test = Callable[[bytes], bool]
_AddressTest = Callable[[Address], bool]


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


def _compile_domain(pattern: bytes) -> _Test:
    """As `_compile_text`, and `.text` keeps to labels."""
    if len(pattern) > 1 and pattern.startswith(b".") and b"*" not in pattern:
        domain = pattern[1:]
        return lambda octets: octets == domain or octets.endswith(pattern)
    return _compile_text(pattern, "domain pattern")


def _compile_address(pattern: bytes) -> _AddressTest:
    name, at, domain = pattern.rpartition(b"@")
    if not at:
        name_test = _compile_text(pattern, "name pattern")
        return lambda address: name_test(address.local.lower())
    if domain.endswith(b"*") and domain != b"*":
        raise RuleError(f"domain pattern {domain.decode()!r}: `*` may stand only at the start")
    name_test = _compile_text(name, "name pattern")
    domain_test = _compile_domain(domain)
    return lambda address: name_test(address.local.lower()) and domain_test(address.domain)


class _Conditions(msgspec.Struct):
    """Conditions of one kind (those with `=`, or those with `!=`), by what they ask of."""

    ehlo: list[_Test] = []
    sender: list[_AddressTest] = []
    recipient: list[_AddressTest] = []
    verbs: dict[bytes, list[_Test]] = {}

    @property
    def asks(self) -> frozenset[Command]:
        asked: Mapping[Command, Sequence[object] | Mapping[bytes, object]] = {
            Command.EHLO: self.ehlo,
            Command.MAIL_FROM: self.sender,
            Command.RCPT_TO: self.recipient,
            Command.VERB: self.verbs,
        }
        return frozenset(command for command, conditions in asked.items() if conditions)

    def match_session(self, envelope: Envelope, helo: str, verb: bytes, argument: bytes) -> bool:
        """Some condition holds that is not asked of recipients."""
        if self.sender and any(test(envelope.reverse_path) for test in self.sender):
            return True
        if self.ehlo:
            name = helo.lower().encode("utf-8", "backslashreplace")
            if any(test(name) for test in self.ehlo):
                return True
        if self.verbs:
            tests = self.verbs.get(verb)
            if tests is not None:
                said = argument.lower()
                return any(test(said) for test in tests)
        return False


class Rule:
    """A compiled rule. `str(rule)` is the text it came from."""

    __slots__ = ("_but", "_excludes", "_takes_all", "_when", "text")

    def __init__(self, text: str, when: _Conditions, but: _Conditions) -> None:
        self.text = text
        self._when = when
        self._but = but
        self._takes_all = not when.asks
        self._excludes = bool(but.asks)

    def __str__(self) -> str:
        return self.text

    @property
    def asks(self) -> frozenset[Command]:
        """What its conditions ask of."""
        return self._when.asks | self._but.asks

    @property
    def verbs(self) -> frozenset[bytes]:
        """The verbs it can match, in upper case; `ANY_VERB`: more than can be listed."""
        when = self._when
        return frozenset(when.verbs) if when.asks == {Command.VERB} else frozenset((ANY_VERB,))

    def matches(self, envelope: Envelope, helo: str = "", verb: bytes = b"", argument: bytes = b"") -> bool:
        """True when nothing is excluded and any condition holds; of RCPT TO, for any recipient."""
        recipients = envelope.recipients
        if self._excludes:
            but = self._but
            if but.match_session(envelope, helo, verb, argument):
                return False
            if tests := but.recipient:
                recipients = tuple(
                    [one for one in recipients if not any(test(one.address) for test in tests)]
                )
                if not recipients:
                    return False
            if self._takes_all:
                return True
        when = self._when
        if when.recipient and any(
            test(recipient.address) for recipient in recipients for test in when.recipient
        ):
            return True
        return when.match_session(envelope, helo, verb, argument)


def compile_rule(text: str) -> Rule | None:
    """The compiled rule; None for an empty text (every message).

    Raises:
        RuleError: the text does not follow the grammar.
    """
    if not text.strip():
        return None
    when, but = _Conditions(), _Conditions()
    for condition in text.split(";"):
        left, equals, right = condition.partition("=")
        excludes = bool(equals) and left.endswith("!")
        name = " ".join(left.removesuffix("!" if excludes else "").upper().split())
        pattern = right.strip().lower().encode("utf-8")
        command = _command(name, left)
        if not equals or not pattern:
            raise RuleError(f"{condition.strip()!r} has no pattern: write `{name}=pattern`, `*` for any")
        into = but if excludes else when
        match command:
            case Command.EHLO:
                into.ehlo.append(_compile_domain(pattern))
            case Command.MAIL_FROM:
                into.sender.append(_compile_address(pattern))
            case Command.RCPT_TO:
                into.recipient.append(_compile_address(pattern))
            case Command.VERB:
                test = _compile_text(pattern, "pattern")
                into.verbs.setdefault(name.encode(), []).append(test)
    return Rule(text, when, but)


def _command(name: str, left: str) -> Command:
    known = _NAMED.get(name)
    if known is not None:
        return known
    if name in _OTHER_EVENTS:
        raise RuleError(f"{name!r} has an event of its own: {_OTHER_EVENTS[name]}")
    if not _VERB.fullmatch(name):
        commands = ", ".join(f"`{known}`" for known in _NAMED)
        raise RuleError(
            f"{left.strip()!r} is not a command of a rule: use one of {commands}, or a verb at event 'verb'"
        )
    return Command.VERB

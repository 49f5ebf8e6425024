"""Standing hold rules: how a person writes one, and what is done with them.

A rule is words `key=value`, all of which must hold; the keys mean what the options of `lonedot queue list` mean.

Rules:
1. `ADD` and `REMOVE` write the file of rules, and are asked of one process: the first worker, or the command itself.
2. `TAKE` is asked of every worker after that: it reads the file, judges new messages by it from then on, and holds what
   is queued. It may be asked at any time, and again.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from lonedot.admin.operations import Desk, Operation
from lonedot.admin.values import AdminError, ListArguments, NoArguments
from lonedot.spool.hold_rules import MAX_RULES, HoldRule, HoldRules
from lonedot.spool.interface import Filter, MessageState

__all__ = [
    "ADD",
    "REMOVE",
    "RULES",
    "TAKE",
    "NewRule",
    "RuleNumber",
    "Rules",
    "Taken",
    "held_by",
    "octets_from",
    "parse_rule",
    "queued_under",
]

_BATCH = 500
"""Messages that are held in one step: what comes between two steps waits that long."""
_TEXT_LIMIT = 1000
_REASON_LIMIT = 300
_MULTIPLES = {"": 1, "k": 1000, "m": 1_000_000, "g": 1_000_000_000}
_SIZE = re.compile(r"(\d{1,12})\s*([kKmMgG]?)\Z")


class NewRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str
    reason: str = "held by hand"


class RuleNumber(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    number: int


class Rules(msgspec.Struct, frozen=True):
    """Those in force, in the order of their numbers; the first that is about a message holds it."""

    rules: tuple[HoldRule, ...]


class Taken(msgspec.Struct, frozen=True):
    """A worker judges by the rules as they are in the file."""

    held: int = 0
    """Messages that were queued, and are held now."""


def octets_from(text: str) -> int | None:
    """`5000`, `20k`, `3M`; None when it is no size."""
    found = _SIZE.match(text.strip())
    return None if found is None else int(found[1]) * _MULTIPLES[found[2].lower()]


def _address(value: str) -> str:
    """An address, `@domain` or `*@domain`."""
    plain = value[1:] if value.startswith("*@") else value
    if "*" in plain or "@" not in plain or plain.endswith("@"):
        raise ValueError("give an address, or *@ and a domain")
    return plain


def _domain(value: str) -> str:
    plain = value.removeprefix("*").removeprefix("@")
    if not plain or "*" in plain or "@" in plain:
        raise ValueError("give a domain, as example.com")
    return plain


def _client(value: str) -> str:
    plain = value.removesuffix("*")
    if not plain or "*" in plain or (plain != value and plain[-1] not in ".:"):
        raise ValueError("give an address, or the beginning of one: 192.0.2.")
    return plain


def _size(value: str) -> int:
    size = octets_from(value)
    if not size:
        raise ValueError("give a size, as 5000, 20k or 3M")
    return size


_KEYS: dict[str, tuple[str, Callable[[str], str | int]]] = {
    "from": ("sender", _address),
    "sender": ("sender", _address),
    "to": ("recipient", _address),
    "recipient": ("recipient", _address),
    "domain": ("domain", _domain),
    "client": ("client", _client),
    "larger": ("larger", _size),
    "smaller": ("smaller", _size),
}
_HINT = "write for example: to=*@example.com larger=3M; keys are " + ", ".join(_KEYS)


def parse_rule(text: str) -> HoldRule:
    """What a person wrote, as a rule without number and reason.

    Raises:
        AdminError: it is no rule.
    """
    if len(text) > _TEXT_LIMIT:
        raise AdminError(f"a rule of {len(text)} signs is too long", "--rule", f"at most {_TEXT_LIMIT}")
    said: dict[str, str | int] = {}
    for word in text.split():
        key, mark, value = word.partition("=")
        known = _KEYS.get(key.lower().removeprefix("--"))
        if known is None or not mark:
            raise AdminError(f"{word[:60]!r} is not understood", "--rule", _HINT)
        name, read = known
        if name in said:
            raise AdminError(f"{key[:20]} is said twice", "--rule", "make two rules")
        try:
            said[name] = read(value)
        except ValueError as error:
            raise AdminError(f"{word[:60]!r} is not understood", "--rule", str(error)) from None
    if not said:
        raise AdminError("a rule that says nothing would hold everything", "--rule", _HINT)
    return msgspec.convert({"number": 0, "text": " ".join(text.split()), "reason": "", **said}, HoldRule)


async def rules(desk: Desk, _: NoArguments) -> Rules:
    """The rules in force."""
    return Rules(desk.spool.rules().rules)


async def add(desk: Desk, wanted: NewRule) -> HoldRule:
    """Make a rule; it is durable, and in force where it was asked."""
    rule = parse_rule(wanted.text)
    reason = " ".join(wanted.reason.split())[:_REASON_LIMIT] or NewRule("").reason
    there = desk.spool.rules()
    for known in there.rules:
        if known.text == rule.text:
            raise AdminError(
                f"rule {known.number} says that already",
                "--rule",
                f"lonedot queue release --rule {known.number}",
            )
    if len(there.rules) >= MAX_RULES:
        raise AdminError(f"there are {MAX_RULES} rules", "--rule", "lonedot queue rules shows which can go")
    made = msgspec.structs.replace(
        rule,
        number=there.newest + 1,
        reason=reason,
        made_at=desk.clock.now(),
        made_by=desk.asker,
    )
    desk.spool.write_rules(HoldRules(made.number, (*there.rules, made)))
    await desk.spool.take_rules()
    return made


async def remove(desk: Desk, wanted: RuleNumber) -> HoldRule:
    """End a rule. What it has held stays held."""
    there = desk.spool.rules()
    gone = [rule for rule in there.rules if rule.number == wanted.number]
    if not gone:
        numbers = ", ".join(str(rule.number) for rule in there.rules)
        raise AdminError(f"there is no rule {wanted.number}", "--rule", f"there are: {numbers or 'none'}")
    desk.spool.write_rules(
        HoldRules(there.newest, tuple(r for r in there.rules if r.number != wanted.number))
    )
    await desk.spool.take_rules()
    return gone[0]


async def take(desk: Desk, _: NoArguments) -> Taken:
    """Judge by the rules in the file from now on, and hold what is queued already."""
    held = 0
    spool = desk.spool
    to_apply = await spool.take_rules()
    newest = spool.rules().newest
    for rule in to_apply:
        # What cannot be held (it finished meanwhile) is behind `below`: the walk ends.
        below = ""
        while True:
            wanted = msgspec.structs.replace(Filter.of_rule(rule, _BATCH), below=below)
            ids = await spool.select(wanted)
            if not ids:
                break
            if desk.hooks is not None:
                desk.hooks.forget(ids)
            held += sum(await spool.hold(ids, rule.words))
            if desk.hooks is not None:
                desk.hooks.forget(ids)  # also those that were claimed meanwhile
            below = ids[-1]
    await spool.rules_applied(newest)
    return Taken(held)


def held_by(rule: HoldRule) -> ListArguments:
    """The messages that this rule holds, and nothing else does."""
    return ListArguments((MessageState.HELD,), held_for=rule.words)


def queued_under(rule: HoldRule) -> ListArguments:
    """The queued messages that this rule is about."""
    said = ("sender", "recipient", "domain", "client", "larger", "smaller")
    return ListArguments((MessageState.QUEUED,), **{name: getattr(rule, name) for name in said})


RULES = Operation("rules.list", NoArguments, Rules, rules)
ADD = Operation("rules.add", NewRule, HoldRule, add)
REMOVE = Operation("rules.remove", RuleNumber, HoldRule, remove)
TAKE = Operation("rules.take", NoArguments, Taken, take)

"""Rewriting: tables that do nothing, that are never reached, or whose results lead nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from lonedot.config.check_routes import covers
from lonedot.config.given import Drafts, Found, Given
from lonedot.config.rewrites import Rewrite

__all__ = ["judge"]

_Patterns = Callable[[Rewrite], Sequence[str]]

_KINDS: tuple[tuple[str, str, _Patterns], ...] = (
    ("from", "senders", lambda rewrite: rewrite.sender),
    ("to", "recipients", lambda rewrite: rewrite.to),
)


def judge(drafts: Drafts) -> Iterator[Found]:
    """Everything to say about `[[rewrite]]`."""
    for given in drafts.rewrites:
        if given.value is not None:
            yield from _judge_one(given, given.value)
            yield from _judge_reach(drafts, given, given.value)
    for key, people, patterns in _KINDS:
        yield from _judge_order(drafts.rewrites, key, people, patterns)


def _judge_one(given: Given[Rewrite], rewrite: Rewrite) -> Iterator[Found]:
    if not given.knows("from", "to", "into"):
        return
    patterns = (*rewrite.sender, *rewrite.to)
    if not patterns:
        yield given.fault("", "names no addresses", 'write from = "*@old.example", to, or both')
    if rewrite.into.startswith("*.") and not all(one.startswith("*.") for one in patterns):
        yield given.fault(
            "into",
            "keeps a host that not all patterns have",
            f'write "*@{rewrite.into[2:]}", or patterns such as "*@*.old.example"',
        )


def _judge_order(
    rewrites: Sequence[Given[Rewrite]], key: str, people: str, patterns: _Patterns
) -> Iterator[Found]:
    """What is never used, has no effect, or would be taken once more by another table."""
    known = [
        (given, given.value)
        for given in rewrites
        if given.value is not None and given.has(key) and given.knows("into")
    ]
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, (_, rewrite) in enumerate(known):
        for pattern in patterns(rewrite):
            first.setdefault(pattern.lower(), number)
            last[pattern.lower()] = number
    for number, (given, rewrite) in enumerate(known):
        for place, pattern in enumerate(patterns(rewrite)):
            before = [first[wide] for wide in _wider(pattern) if first.get(wide, number) < number]
            if before:
                where = known[min(before)][0].where
                what = f'"{_shown(pattern)}" is never used: {where} takes these {people} before'
                yield _warning(given, key, place, what, "remove it, or put the narrower table first")
            elif rewrite.into == pattern and not any(last.get(wide, -1) > number for wide in _wider(pattern)):
                # With a wider one behind it, it keeps an address from that.
                what = f'"{_shown(pattern)}" becomes what it is'
                yield _warning(given, key, place, what, "remove it, or mend into")
        if rewrite.into in patterns(rewrite):
            continue
        again = [first[wide] for wide in _wider(rewrite.into) if wide in first]
        if again and min(again) != number and known[min(again)][1].into != rewrite.into:
            other, after = known[min(again)]
            what = f"{other.where} takes {_shown(rewrite.into)} too, but nothing is written anew twice"
            yield given.warning("into", what, f'write into = "{_shown(after.into)}" if that is meant')


def _wider(pattern: str) -> Iterator[str]:
    """All patterns that take everything that this one takes, itself among them, in lower case: looked up instead of
    compared with each other, because there may be thousands."""
    pattern = pattern.lower()
    yield pattern
    if pattern == "*":
        return
    yield "*"
    domain = pattern.rpartition("@")[2]
    if domain != pattern:
        yield domain
    parent = domain.removeprefix("*.")
    while parent := parent.partition(".")[2]:
        yield f"*.{parent}"


def _judge_reach(drafts: Drafts, given: Given[Rewrite], rewrite: Rewrite) -> Iterator[Found]:
    """Recipients must come out where some route leads. Aliases may lead on from a local domain."""
    if not given.has("to") or not given.knows("into"):
        return
    if any(one.value is None or not one.knows("to") for one in drafts.routes) or not drafts.routes:
        return
    wanted = rewrite.into
    domain = wanted.rpartition("@")[2]
    if any(one.value is None or one.value.name == domain for one in drafts.domains):
        return
    if not any(covers(to, wanted) for one in drafts.routes if one.value is not None for to in one.value.to):
        what = f"no route leads to {_shown(rewrite.into)}"
        yield given.fault("into", what, f'add a route with to = "{wanted}"')


def _shown(pattern: str) -> str:
    """As a person writes it."""
    return pattern if "@" in pattern or pattern == "*" else f"*@{pattern}"


def _warning(given: Given[Rewrite], key: str, number: int, what: str, do: str) -> Found:
    found = given.warning(key, what, do)
    return found._replace(path=(*given.path, key, number))

"""The rate limit: never more than the limit in a window, the time that is told is true, and what is kept is bounded."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin.rate_limit import RateLimit, RateLimitOctets, RateSettings, Windows
from lonedot.sinks.calls import Decision
from lonedot.sinks.protocol import Session
from lonedot.sinks.settings import SettingsFault, typed
from lonedot.sinks.verdicts import Defer, Next, Reject, Verdict
from lonedot.testing import ask_sink, make_message, make_session, run_sink

NS = 1_000_000_000


# --- windows ------------------------------------------------------------------------------------------


@given(
    st.integers(1, 20),
    st.integers(1, 600),
    st.lists(st.tuples(st.integers(0, 100 * NS), st.integers(1, 8)), max_size=60),
)
def test_never_more_than_the_limit_in_any_window_and_who_waits_is_let_through(
    limit: int, window: int, steps: list[tuple[int, int]]
) -> None:
    windows = Windows(limit, window, 10)
    now = 0
    admitted: list[tuple[int, int]] = []
    for passed, amount in steps:
        now += passed
        wait = windows.admit("a", amount, now)
        if amount > limit:
            assert wait == -1
            continue
        if wait:
            assert 0 < wait <= window * 1.1 * NS + NS
            now += wait
            assert windows.admit("a", amount, now) == 0
        admitted.append((now, amount))
        assert sum(one for at, one in admitted if now - window * NS < at <= now) <= limit


def test_the_limit_is_given_whole_at_once_and_again() -> None:
    windows = Windows(5, 60, 10)
    assert [windows.admit("a", 1, 0) for _ in range(5)] == [0] * 5
    wait = windows.admit("a", 1, 0)
    assert wait == 65 * NS
    assert windows.admit("b", 5, 0) == 0
    assert windows.admit("a", 1, wait - 1) == 1
    assert [windows.admit("a", 1, wait) for _ in range(5)] == [0] * 5


def test_what_is_refused_does_not_count() -> None:
    windows = Windows(1, 60, 10)
    windows.admit("a", 1, 0)
    waits = [windows.admit("a", 1, now * NS) for now in range(60)]
    assert all(now * NS + wait == 65 * NS for now, wait in enumerate(waits))


def test_what_is_kept_is_bounded() -> None:
    windows = Windows(1, 60, 100)
    windows.admit("kept", 1, 0)
    for number in range(10_000):
        windows.admit(f"stranger{number}", 1, 0)
        assert windows.admit("kept", 1, 0) > 0, "whoever is seen again is not forgotten"
        assert len(windows) <= 100
    assert windows.admit("stranger1", 1, 0) == 0
    one = Windows(1 << 40, 60, 1)
    for number in range(10_000):
        one.admit("a", 1, number * NS)
    assert max(len(parts) for parts in one._seen.values()) <= 13


# --- whom it counts for -------------------------------------------------------------------------------


class Counted:
    """One limit with a clock moved by hand."""

    def __init__(self, **settings: Setting) -> None:
        self.now_ns = 0
        self.sink = RateLimit(typed(RateSettings, settings), lambda: self.now_ns)

    def __call__(self, session: Session) -> Verdict:
        return self.sink(session)

    def passes(self, **of: str) -> bool:
        return isinstance(self(make_session("mail", **of)), Next)  # type: ignore[arg-type]


def test_the_words_tell_the_time() -> None:
    counted = Counted(limit=2, window_seconds=36)
    assert counted.passes() and counted.passes()
    counted.now_ns = 1 * NS
    assert counted(make_session("mail")) == Defer(
        "At most 2 messages in 36 s; try again in 38 s", 451, "4.7.1"
    )
    counted.now_ns = 39 * NS
    assert counted.passes()


def test_networks() -> None:
    counted = Counted(limit=1)
    assert counted.passes(client="192.0.2.1") and counted.passes(client="192.0.2.2")
    assert not counted.passes(client="192.0.2.1") and not counted.passes(client="::ffff:192.0.2.1")
    assert counted.passes(client="2001:db8::1") and not counted.passes(client="2001:db8::ffff")
    assert counted.passes(client="2001:db8:0:1::1")
    assert counted.passes(client="") and counted.passes(client=""), "a local socket has no network"
    wide = Counted(limit=1, ipv4_prefix=24)
    assert wide.passes(client="192.0.2.1") and not wide.passes(client="192.0.2.200")


def test_senders() -> None:
    counted = Counted(limit=1, per="sender")
    assert counted.passes(sender="Anna@a.example") and not counted.passes(sender="anna@A.example")
    assert counted.passes(sender="bert@a.example")
    assert counted.passes(sender="") and counted.passes(sender=""), "reports have no sender"
    domain = Counted(limit=1, per="sender-domain")
    assert domain.passes(sender="anna@a.example") and not domain.passes(sender="bert@a.example")
    everybody = Counted(limit=1, per="all")
    assert everybody.passes(sender="anna@a.example") and not everybody.passes(sender="bert@b.example")


def test_logins_and_exemptions() -> None:
    sink = RateLimitOctets(typed(RateSettings, {"limit": 1, "per": "login"}), lambda: 0)
    assert isinstance(sink.judge("192.0.2.1", "anna", None, 1, "octets"), Next)
    assert isinstance(sink.judge("192.0.2.9", "anna", None, 1, "octets"), Defer)
    assert isinstance(sink.judge("192.0.2.1", "", None, 1, "octets"), Next), "nobody has logged in"
    exempt: dict[str, Setting] = {"limit": 1, "exempt_networks": "192.0.2.0/24", "exempt_logins": "scanner"}
    free = RateLimit(typed(RateSettings, exempt), lambda: 0)
    for _ in range(3):
        assert isinstance(free.judge("192.0.2.1", "", None, 1, ""), Next)
        assert isinstance(free.judge("198.51.100.1", "scanner", None, 1, ""), Next)
    assert isinstance(free.judge("198.51.100.1", "anna", None, 1, ""), Next)
    assert isinstance(free.judge("198.51.100.1", "anna", None, 1, ""), Defer)


@pytest.mark.parametrize(
    ("event", "word"),
    [("connect", "connections"), ("mail", "messages"), ("rcpt", "recipients"), ("data", "messages")],
)
def test_events(event: str, word: str) -> None:
    counted = Counted(limit=1, code=421)
    assert isinstance(counted(make_session(event)), Next)
    verdict = counted(make_session(event))
    assert isinstance(verdict, Defer) and verdict.code == 421
    assert re.fullmatch(rf"At most 1 {word} in 3600 s; try again in \d+ s", verdict.words)


def test_a_sender_that_is_not_known_yet_is_a_fault_that_says_what_to_do() -> None:
    asked = ask_sink(
        RateLimit, make_session("connect"), event="connect", settings={"limit": 1, "per": "sender"}
    )
    assert asked.decision is Decision.DEFER and "bind it to 'mail'" in asked.words


def test_octets() -> None:
    message = make_message("Subject: x\n\n" + "x" * 500 + "\n")
    run_sink(RateLimitOctets, message, settings={"limit": 1000}).assert_untouched()
    sink = RateLimitOctets(typed(RateSettings, {"limit": 1000, "window_seconds": 12}), lambda: 0)
    assert isinstance(sink(message), Next)
    assert sink(message) == Defer("At most 1000 octets in 12 s; try again in 13 s", 451, "4.7.1")
    never = RateLimitOctets(typed(RateSettings, {"limit": 100}), lambda: 0)(message)
    assert isinstance(never, Reject) and (never.code, never.enhanced) == (552, "5.3.4")


def test_each_worker_has_its_share() -> None:
    counted = Counted(limit=10, workers=3)
    assert [counted.passes() for _ in range(4)] == [True, True, True, False]
    assert typed(RateSettings, {"limit": 2, "workers": 8}).share == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "limit: is missing"),
        ({"limit": 0}, "limit: 0; write 1 to"),
        ({"limit": 1, "window_seconds": 0}, "window_seconds: 0; write 1 to"),
        ({"limit": 1, "code": 550}, "code: 550; write 400 to 499"),
        ({"limit": 1, "ipv4_prefix": 33}, "ipv4_prefix: 33; write 0 to 32"),
        ({"limit": 1, "exempt_networks": "x"}, "exempt_networks: 'x' is no network"),
        ({"limit": 1, "per": "moon"}, "settings.per"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict[str, Setting], words: str) -> None:
    with pytest.raises(SettingsFault, match=words):
        typed(RateSettings, settings)

"""What a sink says of itself: what it reads, and classes in the place of functions."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from lonedot import Hold, Message, Next, Stop, Verdict, sink
from lonedot.sinks.load import bind
from lonedot.sinks.settings import SettingsFault
from lonedot.sinks.view import BodyNotShown
from lonedot.testing import make_message, run_sink


def nothing(message: Message) -> Next:
    return Next()


# --- what a sink reads ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "bound", "reads_body"),
    [
        ({}, {}, False),
        ({"reads": {"body"}}, {}, True),
        ({"reads": {"header"}}, {}, False),
        ({"effects": {"body"}}, {}, True),
        ({}, {"reads": ["body"]}, True),
        ({}, {"effects": ["body"]}, True),
        ({"reads": {"body"}}, {"reads": ["header"]}, False),
        ({"effects": {"body"}}, {"reads": ["header"]}, True),
    ],
)
def test_who_is_shown_the_body(
    declared: dict[str, set[str]], bound: dict[str, list[str]], reads_body: bool
) -> None:
    made = sink("S", effects=declared.get("effects", ()), reads=declared.get("reads", ()))(nothing)
    binding = bind(made, sink_class="tests:s", effects=bound.get("effects"), reads=bound.get("reads"))
    assert binding.reads_body is reads_body


def test_a_part_that_is_none() -> None:
    with pytest.raises(ValueError, match="'attachment' is not a valid Part"):
        sink("S", reads={"attachment"})


# --- classes -------------------------------------------------------------------------------------


class Limit(msgspec.Struct, frozen=True):
    most: int = 2


@sink("counts", settings=Limit)
class Counts:
    """Holds what comes behind the first `most` messages."""

    def __init__(self, settings: Limit) -> None:
        self._left = settings.most

    def __call__(self, message: Message) -> Verdict:
        self._left -= 1
        return Hold("enough") if self._left < 0 else Next()


def test_a_class_is_made_once_for_each_binding() -> None:
    message = make_message()
    one, other = (bind(Counts, sink_class="t:c", settings={"most": 1}) for _ in range(2))
    assert [one.call(message), one.call(message)] == [Next(), Hold("enough")]
    assert other.call(message) == Next()
    counts = Counts(Limit(0))
    assert counts(message) == Hold("enough")


def test_a_class_without_settings() -> None:
    @sink("plain")
    class Plain:
        def __call__(self, message: Message) -> Verdict:
            return Stop()

    class Heir(Plain):
        """Inherits the code, and not that it is a sink."""

    assert run_sink(Plain).verdict == Stop()
    with pytest.raises(TypeError, match="is not a sink: decorate it with @sink"):
        bind(Heir, sink_class="t:h")
    assert bind(Plain, sink_class="t:p").call(make_message()) == Stop()


def test_a_class_that_cannot_be_made_is_a_fault_of_its_binding() -> None:
    @sink("fails", settings=Limit)
    class Fails:
        def __init__(self, settings: Limit) -> None:
            raise OSError("no such table")

        def __call__(self, message: Message) -> Verdict:
            return Next()

    @sink("nothing")
    class Nothing:  # type: ignore[type-var]  # what is tested
        pass

    with pytest.raises(SettingsFault, match="'fails': Fails cannot be made: OSError: no such table"):
        bind(Fails, sink_class="t:f")
    with pytest.raises(SettingsFault, match="Nothing has no __call__"):
        bind(Nothing, sink_class="t:n")
    with pytest.raises(SettingsFault, match="expected int, got str"):
        bind(Counts, sink_class="t:c", settings={"most": "many"})


# --- what is shown -------------------------------------------------------------------------------


def test_the_body_is_shown_to_those_that_say_that_they_read_it() -> None:
    read: list[Callable[[Message], object]] = [
        lambda m: m.octets(),
        lambda m: list(m.body_chunks()),
        lambda m: m.open_body().read(),
        lambda m: m.parts,
        lambda m: m.root.text(),
    ]
    for look in read:

        def looks(message: Message, look: Callable[[Message], object] = look) -> Next:
            assert look(message)
            return Next()

        ran = run_sink(sink("looks")(looks), "A: b\n\nhello\n")
        assert isinstance(ran.error, BodyNotShown)
        assert 'write reads={"body"} in its @sink' in str(ran.error)
        run_sink(sink("looks", reads={"body"})(looks), "A: b\n\nhello\n").assert_sound()
        run_sink(sink("looks")(looks), "A: b\n\nhello\n", reads=["body"]).assert_sound()


def test_header_and_size_are_shown_to_all() -> None:
    def looks(message: Message) -> Verdict:
        return Hold(f"{message.headers.subject} {message.size}")

    assert run_sink(sink("looks")(looks), "Subject: =?utf-8?q?=C3=A4?=\n\nhello\n").words == "ä 38"

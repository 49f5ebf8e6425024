"""Typed settings: made once for a binding, and every mistake named by its key, never by its value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot import Hold, Message, Next, Sink, Verdict, sink
from lonedot.sinks.bindings import Setting
from lonedot.sinks.load import bind
from lonedot.sinks.settings import SettingsFault, typed
from lonedot.testing import make_message


class Limits(msgspec.Struct, frozen=True):
    largest: int = 100
    field: str = "X-Limit"
    share: float = 0.5
    strict: bool = False


@dataclasses.dataclass(frozen=True)
class Server:
    host: str
    port: int = 25
    made: int = dataclasses.field(default=1, init=False)

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ValueError("port is not in 1 … 65535")


MADE: list[Limits] = []


class Counted(Limits, frozen=True):
    def __post_init__(self) -> None:
        MADE.append(self)


@sink("limit", settings=Limits)
def limit(message: Message, settings: Limits) -> Verdict:
    return Hold(settings.field) if message.size > settings.largest else Next()


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ({}, Limits()),
        ({"largest": 7, "field": "X-A", "share": 1, "strict": True}, Limits(7, "X-A", 1.0, True)),
        ({"Largest": 7, "FIELD": "x"}, Limits(7, "x")),
        # What the old tool writes is text.
        ({"largest": "7", "share": "0.25", "strict": "true"}, Limits(7, share=0.25, strict=True)),
    ],
)
def test_settings_become_the_type(settings: dict[str, Setting], value: Limits) -> None:
    assert typed(Limits, settings) == value


def test_a_dataclass_serves_as_well() -> None:
    assert typed(Server, {"host": "a", "port": 26}) == Server("a", 26)


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (Limits, {"largets": 1}, "settings.largets: there is no such setting; did you mean largest?"),
        (
            Limits,
            {"zzz": 1},
            "settings.zzz: there is no such setting; there are: largest, field, share, strict",
        ),
        (Limits, {"largest": "hunter2"}, "settings.largest: expected int, got str"),
        (Limits, {"field": 5}, "settings.field: expected str, got int"),
        (Limits, {"largest": 1, "LARGEST": 2}, "settings.LARGEST: given twice, in different case"),
        (Server, {}, "settings.host: is missing"),
        (Server, {"host": "a", "made": 3}, "settings.made: there is no such setting; there are: host, port"),
        (Server, {"host": "a", "port": 0}, "settings: port is not in 1 … 65535"),
    ],
)
def test_a_mistake_is_named_by_its_key(kind: type[object], settings: dict[str, Setting], words: str) -> None:
    with pytest.raises(SettingsFault) as caught:
        typed(kind, settings)
    assert str(caught.value) == words


@given(st.dictionaries(st.text(max_size=8), st.text() | st.integers() | st.floats() | st.booleans()))
def test_any_table_gives_a_value_or_a_fault(settings: Mapping[str, Setting]) -> None:
    for kind in (Limits, Server):
        try:
            made = typed(kind, settings)
        except SettingsFault as fault:
            assert str(fault).startswith("settings")
        else:
            assert isinstance(made, kind)


def test_a_binding_makes_its_settings_once() -> None:
    seen: list[Counted] = []

    @sink("counted", settings=Counted)
    def counted(message: Message, settings: Counted) -> Verdict:
        seen.append(settings)
        return Next()

    MADE.clear()
    binding = bind(counted, sink_class="tests:counted", settings={"largest": 3})
    (made,) = MADE
    binding.call(make_message())
    binding.call(make_message())
    assert seen == [made, made]
    assert made.largest == 3
    assert len(MADE) == 1


def test_a_binding_whose_settings_do_not_fit_is_not_made() -> None:
    with pytest.raises(SettingsFault, match=r"sink 'other': settings\.largest: expected int"):
        bind(limit, sink_class="tests:limit", name="other", settings={"largest": "many"})


def test_a_sink_with_settings_can_be_called_with_the_message_alone() -> None:
    assert isinstance(limit, Sink)
    assert limit(make_message("a: b\n\nhello\n")) == Next()
    assert limit(make_message("a: b\n\nhello\n", settings={"largest": 3, "field": "no"})) == Hold("no")


@pytest.mark.parametrize("kind", [int, dict, Limits(), "Limits"])
def test_settings_must_be_a_type_with_fields(kind: object) -> None:
    with pytest.raises(TypeError, match="neither a dataclass nor a"):
        sink("x", settings=kind)  # type: ignore[call-overload]  # what is tested

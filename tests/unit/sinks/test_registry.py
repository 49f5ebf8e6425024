"""The registry as values: bags, GUIDs, order, revision."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.sinks.bindings import guid_for
from lonedot.sinks.events import Event
from lonedot.sinks.registry import (
    Add,
    Bag,
    Change,
    Remove,
    Row,
    Selected,
    SetKey,
    Source,
    Status,
    Switch,
    UnsetKey,
    derived_guid,
    revision_of,
    rows_in_order,
    source_guid,
)


def row(name: str = "a", **values: object) -> Row:
    return msgspec.structs.replace(Row(guid=derived_guid(name), name=name, sink="m:s"), **values)


class TestBag:
    def test_names_are_compared_without_case_and_kept_as_written(self) -> None:
        bag = Bag({"Priority": 5, "rule": "RCPT TO=*"})
        assert bag["priority"] == bag["PRIORITY"] == bag.get("prioRITY") == 5
        assert "RULE" in bag and "other" not in bag
        assert bag.get("other") is None and bag.get("other", 7) == 7
        assert list(bag) == ["Priority", "rule"]

    def test_a_name_that_is_not_there(self) -> None:
        with pytest.raises(KeyError):
            Bag()["header"]

    def test_it_is_a_table_to_whoever_writes_it_down(self) -> None:
        assert msgspec.json.encode(Bag({"Header": "X-A"})) == b'{"Header":"X-A"}'


class TestGuids:
    def test_the_first_source_is_that_of_the_story(self) -> None:
        assert source_guid(1) == Source(1, "any").guid == "{1B3C0666-E470-11D0-AA67-80C04FA345F6}"

    def test_other_sources_have_their_own_and_keep_it(self) -> None:
        guids = {source_guid(number) for number in range(1, 50)}
        assert len(guids) == 49
        assert source_guid(2) == source_guid(2)

    def test_a_binding_on_arrival_has_that_of_its_name(self) -> None:
        assert derived_guid("X") == guid_for("X")

    def test_the_same_name_at_another_event_or_source_is_another_binding(self) -> None:
        assert len({derived_guid("X"), derived_guid("X", Event.RCPT), derived_guid("X", source=2)}) == 3


class TestOrder:
    def test_events_come_as_a_message_meets_them_then_priority_then_name(self) -> None:
        rows = (
            row("late", priority=9),
            row("B", priority=5),
            row("a", priority=5),
            row("door", event=Event.MAIL, priority=32767),
            row("unsaid"),
        )
        assert [(one.name, priority) for one, priority in rows_in_order(rows)] == [
            ("door", 32767),
            ("a", 5),
            ("B", 5),
            ("late", 9),
            ("unsaid", 24575),
        ]

    def test_what_the_code_says_counts_where_the_row_says_nothing(self) -> None:
        rows = (row("a"), row("b", priority=7))
        said = {derived_guid("a"): 3, derived_guid("b"): 1}
        assert [(one.name, priority) for one, priority in rows_in_order(rows, said)] == [("a", 3), ("b", 7)]


class TestRevision:
    def test_order_of_the_file_does_not_count(self) -> None:
        one, two, sources = row("a"), row("b"), (Source(1, "smtpsvc 1"),)
        assert revision_of(sources, (one, two)) == revision_of(sources, (two, one))

    @pytest.mark.parametrize(
        "change",
        [
            {"priority": 3},
            {"rule": "MAIL FROM=*"},
            {"status": Status.DISABLED},
            {"sink_properties": {"a": 1}},
            {"group": "g"},
            {"deadline_seconds": 3.0},
        ],
    )
    def test_every_value_counts(self, change: dict[str, object]) -> None:
        assert revision_of((), (row("a"),)) != revision_of((), (row("a", **change),))

    def test_a_source_counts(self) -> None:
        assert revision_of((Source(1, "a"),), ()) != revision_of((Source(1, "b"),), ())


selections = st.builds(
    Selected,
    st.lists(st.text(max_size=5), max_size=3).map(tuple),
    st.text(max_size=5),
    st.none() | st.sampled_from(Event),
    st.integers(0, 9),
    st.booleans(),
)
written = st.one_of(
    st.text(max_size=9), st.integers(-5, 40_000), st.booleans(), st.lists(st.text(max_size=4), max_size=3)
)
changes = st.one_of(
    st.builds(Add, st.dictionaries(st.text(max_size=6), written, max_size=4)),
    st.builds(Remove, selections),
    st.builds(Switch, selections, st.sampled_from(Status)),
    st.builds(SetKey, selections, st.text(max_size=9), written),
    st.builds(UnsetKey, selections, st.text(max_size=9)),
)


@given(changes)
def test_a_change_survives_the_way_to_the_relay(change: Change) -> None:
    assert msgspec.json.decode(msgspec.json.encode(change), type=Change) == change

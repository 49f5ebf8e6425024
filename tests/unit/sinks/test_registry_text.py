"""Changes to the text of a registry: what is meant is changed, and everything else stays as the person wrote it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lonedot.config.registry import examine_registry_octets
from lonedot.sinks.bindings import guid_for
from lonedot.sinks.events import Event
from lonedot.sinks.registry import (
    Add,
    Change,
    Registry,
    Remove,
    Selected,
    SetKey,
    Status,
    Switch,
    UnsetKey,
    Written,
)
from lonedot.sinks.registry_text import CannotChange, apply_changes, nearest

TEXT = """\
# The registry of the goods-in relay.
# Ask Anna before you touch the scanner.

[[source]]
number = 1
name = "smtpsvc 1"      # the only one

# Stamps what the copiers send.
[[binding]]
name = "stamp"   # also in the handbook
sink = "lonedot.sinks.builtin.x_recipient:x_recipient"
priority = 100
# no rule on purpose

[binding.sink_properties]
Header = "X-Stamp"   # agreed in March

# The scanner.
[[binding]]
name = 'scanner'
sink = "lonedot.sinks.builtin.faulty:x_recipient_list"
status = "disabled"
effects = [
    "header",   # for now
]
group = "scan"
source_properties = { Priority = 200 }

# End of the list.
"""


SAID = {guid_for(name): Event.ARRIVAL for name in ("stamp", "scanner")}
"""What their code says, since the text leaves it open."""


def named(*names: str) -> Selected:
    return Selected(names)


def changed(text: str, *changes: Change) -> str:
    return apply_changes(text, changes, SAID).text


def registry(text: str) -> Registry:
    found = examine_registry_octets(text.encode(), Path("sinks.toml"))
    assert found.registry is not None, found.faults
    return found.registry


def comments(text: str) -> list[str]:
    return re.findall(r"#.*", text)


class TestSet:
    def test_only_the_value_changes(self) -> None:
        text = changed(TEXT, SetKey(named("stamp"), "priority", 7))
        assert text == TEXT.replace("priority = 100", "priority = 7")

    def test_a_new_key_stands_with_the_others_of_its_binding(self) -> None:
        text = changed(TEXT, SetKey(named("stamp"), "rule", "RCPT TO=*"))
        assert comments(text) == comments(TEXT)
        assert registry(text).rows[0].rule == "RCPT TO=*"
        assert text.index("rule =") < text.index("[binding.sink_properties]")

    def test_a_property_is_found_without_case(self) -> None:
        text = changed(TEXT, SetKey(named("stamp"), "sink_properties.header", "X-Other"))
        assert text == TEXT.replace('"X-Stamp"', '"X-Other"')

    def test_a_first_property_makes_its_bag(self) -> None:
        text = changed(TEXT, SetKey(named("scanner"), "sink_properties.Socket name", "/run/clamd"))
        assert registry(text).rows[1].sink_properties == {"Socket name": "/run/clamd"}
        assert comments(text) == comments(TEXT)

    @pytest.mark.parametrize("key", ["priority", "source_properties.PRIORITY"])
    def test_priority_in_the_bag_is_changed_where_it_stands(self, key: str) -> None:
        text = changed(TEXT, SetKey(named("scanner"), key, "344"))
        assert text == TEXT.replace("Priority = 200", "Priority = 344")
        assert registry(text).rows[1].priority == 344

    @pytest.mark.parametrize("key", ["priority", "source_properties.Priority"])
    def test_priority_of_the_old_tool_becomes_the_key_and_a_number(self, key: str) -> None:
        text = changed(TEXT, SetKey(named("stamp"), key, "344"))
        assert text == TEXT.replace("priority = 100", "priority = 344")

    def test_a_rename_keeps_the_guid(self) -> None:
        text = changed(TEXT, SetKey(named("stamp"), "name", "label"))
        row = registry(text).rows[0]
        assert (row.name, row.guid) == ("label", guid_for("stamp"))

    @pytest.mark.parametrize("key", ["sinkproperties.a", "sink_properties.", "other.a"])
    def test_a_bag_that_does_not_exist(self, key: str) -> None:
        with pytest.raises(CannotChange, match="not a key"):
            changed(TEXT, SetKey(named("stamp"), key, "x"))

    def test_a_property_is_not_told_to_audit_and_log(self) -> None:
        edited = apply_changes(TEXT, [SetKey(named("stamp"), "sink_properties.password", "hunter2")])
        assert "hunter2" not in " ".join(edited.done)
        assert "hunter2" in edited.text


class TestUnset:
    def test_the_line_goes(self) -> None:
        assert changed(TEXT, UnsetKey(named("stamp"), "priority")) == TEXT.replace("priority = 100\n", "")

    def test_priority_in_the_bag(self) -> None:
        assert registry(changed(TEXT, UnsetKey(named("scanner"), "priority"))).rows[1].priority is None

    @pytest.mark.parametrize(
        ("key", "meant"),
        [
            ("sink_properties.headr", "did you mean 'Header'"),
            ("rule", "it sets: name, sink, priority"),
            ("source_properties.rule", "it sets"),
        ],
    )
    def test_what_is_not_there(self, key: str, meant: str) -> None:
        with pytest.raises(CannotChange, match=meant):
            changed(TEXT, UnsetKey(named("stamp"), key))


class TestWhich:
    def test_by_guid_in_any_form(self) -> None:
        for guid in (guid_for("scanner"), guid_for("scanner").lower(), guid_for("scanner").strip("{}")):
            text = changed(TEXT, Switch(named(guid), Status.ENABLED))
            assert text == TEXT.replace('"disabled"', '"enabled"')

    def test_by_group(self) -> None:
        edited = apply_changes(TEXT, [Switch(Selected(group="scan"), Status.ENABLED)])
        assert edited.done == (f"enabled 'scanner' {guid_for('scanner')}",)

    @pytest.mark.parametrize(
        ("which", "words"),
        [
            (named("Stamp"), r"no binding 'Stamp'; did you mean 'stamp'\?"),
            (named("skanner"), r"did you mean 'scanner'\?"),
            (named("zzz"), "there are: 'stamp', 'scanner'"),
            (Selected(group="scna"), r"did you mean 'scan'\?"),
            (Selected(), "no binding was named"),
            (
                Selected(("stamp",), event=Event.RCPT),
                "no binding 'stamp' at 'rcpt'; it is bound at the event of its code, of source 1",
            ),
            (Selected(("stamp",), source=2), "no binding 'stamp' of source 2; it is bound at"),
            (Selected(("stam",), source=2), "did you mean 'stamp'?"),
        ],
    )
    def test_a_name_that_is_not_there_is_an_error_with_a_suggestion(
        self, which: Selected, words: str
    ) -> None:
        with pytest.raises(CannotChange, match=words):
            changed(TEXT, Remove(which))

    def test_of_what_leaves_its_event_to_code_that_is_not_loaded_the_event_may_be_any(self) -> None:
        (done,) = apply_changes(TEXT, [Remove(Selected(("stamp",), event=Event.RCPT))]).done
        assert done == f"removed 'stamp' {guid_for('stamp')}"

    def test_one_of_several_changes_that_fails_leaves_nothing(self) -> None:
        with pytest.raises(CannotChange):
            apply_changes(TEXT, [Remove(named("stamp")), Remove(named("nobody"))])

    def test_a_name_that_two_have(self) -> None:
        text = changed(TEXT, Add({"name": "stamp", "sink": "m:s", "event": "rcpt"}))
        with pytest.raises(CannotChange, match="2 bindings are named 'stamp'; name one by its GUID"):
            changed(text, Remove(named("stamp")))
        assert len(registry(changed(text, Remove(Selected(("stamp",), every=True)))).rows) == 1
        assert len(registry(changed(text, Remove(Selected(("stamp",), event=Event.RCPT)))).rows) == 2


class TestAddAndRemove:
    def test_a_new_one_stands_at_the_end_with_its_guid(self) -> None:
        text = changed(TEXT, Add({"name": "new", "sink": "m:s", "priority": 5}, sink_properties={"a b": 1}))
        assert text.startswith(TEXT)
        assert text[len(TEXT) :] == (
            f'\n[[binding]]\nguid = "{guid_for("new")}"\nname = "new"\nsink = "m:s"\npriority = 5\n'
            '\n[binding.sink_properties]\n"a b" = 1\n'
        )

    def test_the_first_one_of_an_empty_registry(self) -> None:
        assert changed("", Add({"name": "n", "sink": "m:s"})).startswith("[[binding]]\nguid = ")

    def test_a_file_without_a_last_line_end(self) -> None:
        assert len(tomllib.loads(changed(TEXT.rstrip(), Add({"name": "n", "sink": "m:s"})))["binding"]) == 3

    def test_a_name_that_is_taken(self) -> None:
        with pytest.raises(CannotChange, match="there is a binding 'Stamp' already"):
            changed(TEXT, Add({"name": "Stamp", "sink": "m:s"}))

    def test_the_guid_of_one_that_was_renamed_is_not_given_twice(self) -> None:
        text = changed(TEXT, SetKey(named("stamp"), "name", "label"), Add({"name": "stamp", "sink": "m:s"}))
        guids = [one["guid"] for one in tomllib.loads(text)["binding"] if "guid" in one]
        assert len(set(guids)) == len(guids) == 2

    def test_what_is_removed_takes_its_comment_and_nobody_else_s(self) -> None:
        text = changed(TEXT, Remove(named("stamp")))
        assert comments(text) == [
            "# The registry of the goods-in relay.",
            "# Ask Anna before you touch the scanner.",
            "# the only one",
            "# The scanner.",
            "# for now",
            "# End of the list.",
        ]

    def test_windows_line_ends_stay(self) -> None:
        crlf = TEXT.replace("\n", "\r\n")
        text = changed(
            crlf, SetKey(named("stamp"), "priority", 3), Add({"name": "n", "sink": "m:s"}), Remove(named("n"))
        )
        assert text.replace("\r\n", "").count("\n") == 0
        assert registry(text).rows[0].priority == 3

    def test_a_byte_order_mark_stays(self) -> None:
        text = changed("\ufeff" + TEXT, Switch(named("scanner"), Status.ENABLED))
        assert text == "\ufeff" + TEXT.replace('"disabled"', '"enabled"')


class TestCannotBeEdited:
    @pytest.mark.parametrize(
        "text",
        [
            'binding = [{ name = "stamp", sink = "m:s" }]\n',
            '[[binding]]\nname = "stamp"\nsink = "m:s"\n[[source]]\nnumber = 1\n[binding.sink_properties]\na = 1\n',
        ],
    )
    def test_a_form_that_is_not_edited_safely_is_refused(self, text: str) -> None:
        with pytest.raises(CannotChange):
            changed(text, SetKey(named("stamp"), "sink_properties.b", 1))

    @pytest.mark.parametrize("text", ["[[binding", "binding = 3\n", '[binding]\nname = "stamp"\n'])
    def test_what_is_no_list_of_tables_is_refused(self, text: str) -> None:
        with pytest.raises(CannotChange):
            changed(text, Remove(named("stamp")))

    def test_a_header_inside_a_text_is_none(self) -> None:
        text = TEXT.replace('group = "scan"', 'group = "scan"\nrule = """RCPT TO=*;\\\n[[binding]]\\\n"""')
        got = tomllib.loads(changed(text, Switch(named("scanner"), Status.ENABLED)))
        assert [one.get("status") for one in got["binding"]] == [None, "enabled"]


def test_nearest_prefers_what_differs_in_case_alone() -> None:
    assert nearest("XRECIPIENTLIST", ["XRecipientLists", "XRecipientList"]) == "XRecipientList"
    assert nearest("zzz", ["abc"]) == ""


names = st.sampled_from(["stamp", "scanner", "n1", "n2", "n3", "never"])
values: st.SearchStrategy[tuple[str, Written]] = st.one_of(
    st.tuples(st.just("priority"), st.integers(0, 32767)),
    st.tuples(st.just("rule"), st.sampled_from(["RCPT TO=*", "MAIL FROM=a@b;EHLO=c"])),
    st.tuples(st.just("effects"), st.lists(st.sampled_from(["header", "body", "envelope"]), unique=True)),
    st.tuples(st.just("group"), st.sampled_from(["g", "a # b", 'q"uote'])),
    st.tuples(
        st.sampled_from(["a", "B b", "Ä.x", "header", "[[binding]]"]).map(
            lambda name: f"sink_properties.{name}"
        ),
        st.one_of(st.text("ab#\"'\\[] \n", max_size=8), st.integers(-9, 9), st.booleans()),
    ),
)
edits = st.one_of(
    st.builds(lambda name: Add({"name": name, "sink": "m:s", "status": "disabled"}), names),
    st.builds(lambda name: Remove(named(name)), st.sampled_from(["n1", "n2", "n3"])),
    st.builds(lambda name, status: Switch(named(name), status), names, st.sampled_from(Status)),
    st.builds(lambda name, pair: SetKey(named(name), *pair), names, values),
    st.builds(lambda name, pair: UnsetKey(named(name), pair[0]), names, values),
)


@settings(max_examples=20, deadline=None, phases=(Phase.generate,))
@given(st.lists(edits, min_size=200, max_size=200))
def test_comments_and_order_survive_200_changes(steps: list[Change]) -> None:
    """Against a model: what a plain dictionary would say, with the person's comments and order as they were."""
    text = TEXT
    for step in steps:
        before = tomllib.loads(text)
        try:
            text = changed(text, step)
        except CannotChange:
            continue
        after = tomllib.loads(text)
        kept = [one["name"] for one in before["binding"] if one in after["binding"]]
        assert kept == [one["name"] for one in after["binding"] if one["name"] in kept]
        assert after["source"] == before["source"]
    # A comment inside or behind a value goes when the value goes; all others stand where they stood.
    left = [comment for comment in comments(TEXT) if comment not in ("# for now", "# agreed in March")]
    rest = iter(text.splitlines())
    assert all(any(comment in line for line in rest) for comment in left), text

"""What a process says to the relay: only values of the types of `wire`, whatever the octets are."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot import Defer, Discard, Edit, Hold, Next, Reject, Stop, Verdict
from lonedot.message.edits import AddRecipient, AnyEdit, ChangeReversePath, RemoveRecipient, SpliceBody
from lonedot.sinks import wire
from lonedot.sinks.verdicts import EDITS_LIMIT

HEAD = wire.FRAME_HEAD.size
words = st.text(st.characters(codec="utf-8"), max_size=20)
edits = st.one_of(
    st.builds(
        Edit.add_field,
        st.from_regex(r"X-[A-Z]{1,5}", fullmatch=True),
        st.just("value"),
        st.sampled_from(["top", "bottom"]),
    ),
    st.builds(Edit.remove_field, st.just("X-A"), st.sampled_from([None, 1, -1])),
    st.builds(Edit.replace_body, st.binary(max_size=50)),
    st.builds(
        lambda start, size: SpliceBody(start, start + size, b"x"), st.integers(0, 99), st.integers(0, 99)
    ),
    st.builds(Edit.replace_message, st.binary(max_size=50)),
    st.just(Edit.add_recipient("a@b.example")),
    st.just(Edit.remove_recipient(b'"a b"@b.example')),
    st.sampled_from([Edit.change_reverse_path(""), Edit.change_reverse_path("a@b.example")]),
)
lists: st.SearchStrategy[list[AnyEdit]] = st.lists(edits, max_size=5)
verdicts: st.SearchStrategy[Verdict] = st.one_of(
    st.builds(Next, lists),
    st.builds(Stop, lists),
    st.builds(Hold, words, lists),
    st.builds(Reject, words, st.integers(), st.just("5.7.1")).filter(lambda v: abs(v.code) < 1 << 60),
    st.builds(Defer, words),
    st.builds(Discard, words),
)


@given(verdicts, st.integers(0, 1 << 40))
def test_what_is_said_arrives(verdict: Verdict, number: int) -> None:
    octets = wire.frame(wire.Said(number, verdict))
    assert wire.FRAME_HEAD.unpack_from(octets)[0] == len(octets) - HEAD
    assert wire.decode_from_sink(octets[HEAD:]) == wire.Said(number, verdict)


@given(st.binary(max_size=200))
def test_any_octets_are_a_value_or_a_fault(octets: bytes) -> None:
    try:
        said = wire.decode_from_sink(octets)
    except ValueError:
        return
    assert isinstance(said, get_args(wire.FromSink))


@given(verdicts, st.data())
def test_a_changed_octet_is_a_value_or_a_fault(verdict: Verdict, data: st.DataObject) -> None:
    octets = wire.frame(wire.Said(7, verdict))[HEAD:]
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        said = wire.decode_from_sink(octets)
    except ValueError:
        return
    assert isinstance(said, get_args(wire.FromSink))


@pytest.mark.parametrize(
    "edit",
    [
        AddRecipient(b"a@b.example>\r\nRSET"),
        RemoveRecipient(b"nobody"),
        ChangeReversePath(b"<>"),
        AddRecipient(b""),
    ],
)
def test_an_address_that_is_none_is_a_fault(edit: AnyEdit) -> None:
    octets = wire.frame(wire.Said(1, Next([edit])))
    with pytest.raises(ValueError, match="not a mail address"):
        wire.decode_from_sink(octets[HEAD:])


def test_more_edits_than_any_sink_needs_are_a_fault() -> None:
    many = [Edit.remove_field("X-A")] * (EDITS_LIMIT + 1)
    with pytest.raises(ValueError, match="length"):
        wire.decode_from_sink(wire.frame(wire.Said(1, Next(many)))[HEAD:])
    assert wire.decode_from_sink(wire.frame(wire.Said(1, Next(many[1:])))[HEAD:]) == wire.Said(
        1, Next(many[1:])
    )


@pytest.mark.parametrize(
    "nested", [b"\x91" * 100_000, b"\x92\xa4said" + b"\x91" * 100_000, b"\x81\xa1a" * 100_000]
)
def test_deep_nesting_is_a_fault(nested: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        wire.decode_from_sink(nested)


def test_nothing_but_the_fields_of_a_type_is_taken() -> None:
    octets = msgspec.msgpack.encode(
        ["said", 1, {"type": "next", "edits": [], "__class__": "os.system", "call": "x"}]
    )
    assert wire.decode_from_sink(octets) == wire.Said(1, Next([]))

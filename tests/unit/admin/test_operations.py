"""Operations against made-up messages in each state."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.admin.ids import resolve, resolve_all
from lonedot.admin.operations import (
    Desk,
    delete,
    export,
    hold,
    list_messages,
    octets,
    release,
    retry,
    show,
    status,
    why,
)
from lonedot.admin.values import (
    AdminError,
    ExportArguments,
    FileBegins,
    FileEnds,
    Form,
    HoldArguments,
    IdArguments,
    IdsArguments,
    ListArguments,
    NoArguments,
    Octets,
    OctetsArguments,
    Piece,
    Remark,
)
from lonedot.message.content import Content
from lonedot.message.findings import Part
from lonedot.message.fold import fold
from lonedot.message.ledger import Action, Entry, Splice
from lonedot.spool.interface import MessageState, RecipientStatus, Stored
from lonedot.terms.ids import MessageId
from tests.unit.admin.spool_double import DoubleSpool, FixedClock, Hooks
from tests.unit.diagnosis.stories import (
    BEGAN,
    BODY,
    HEAD,
    TRACE,
    attempt_that_delivered,
    content,
    deferred,
    stored,
    the_story,
)

QUEUED = MessageId("1jkq0b0000000")
HELD = MessageId("1jkq0c0000000")
DAMAGED = MessageId("1jkq0d0000000")
DONE = MessageId("1jkq0a0000000")


def _messages() -> tuple[tuple[Stored, Content | None], ...]:
    return (
        (the_story(), content()),
        (stored(id=QUEUED, attempts=(deferred(BEGAN + 1),), next_at=BEGAN + 60), content()),
        (stored(MessageState.HELD, id=HELD, reason="the scanner failed"), content()),
        (stored(MessageState.DAMAGED, id=DAMAGED, reason="another digest"), None),
    )


@pytest.fixture
def hooks() -> Hooks:
    return Hooks()


@pytest.fixture
def desk(hooks: Hooks) -> Desk:
    return Desk(DoubleSpool(*_messages()), FixedClock(BEGAN + 10), hooks=hooks, since=BEGAN)


async def _pieces(desk: Desk, form: Form, id: str = DONE, attempt: int = 0) -> list[Piece]:
    return [piece async for piece in octets(desk, OctetsArguments(id, form, attempt))]


def _joined(pieces: list[Piece]) -> bytes:
    return b"".join(piece.octets for piece in pieces if isinstance(piece, Octets))


class TestListing:
    async def test_leaves_out_what_is_finished_and_counts_it(self, desk: Desk) -> None:
        listing = await list_messages(desk, ListArguments())
        assert [row.id for row in listing.rows] == [QUEUED, HELD, DAMAGED]
        assert listing.counts == {"queued": 1, "held": 1, "finished": 1, "damaged": 1}
        assert not listing.cut

    async def test_a_limit_that_is_reached_is_said(self, desk: Desk) -> None:
        assert (await list_messages(desk, ListArguments(limit=2))).cut

    async def test_a_limit_below_one_is_refused(self, desk: Desk) -> None:
        with pytest.raises(AdminError, match="selects nothing"):
            await list_messages(desk, ListArguments(limit=0))

    async def test_by_part_of_an_id(self, desk: Desk) -> None:
        listing = await list_messages(desk, ListArguments(ids=("0c00",)))
        assert [row.id for row in listing.rows] == [HELD]


class TestChanging:
    async def test_hold_tells_the_scheduler_and_says_what_was_left(self, desk: Desk, hooks: Hooks) -> None:
        changed = await hold(desk, HoldArguments((QUEUED, HELD, DONE), "to look at"))
        assert changed.done == (QUEUED,)
        assert [(left.id, left.why) for left in changed.left] == [
            (HELD, "it is held already"),
            (DONE, "it is finished"),
        ]
        assert hooks.forgotten == [QUEUED]
        assert desk.spool.show(QUEUED).reason == "to look at"

    async def test_release_kicks(self, desk: Desk, hooks: Hooks) -> None:
        changed = await release(desk, IdsArguments((HELD, QUEUED)))
        assert changed.done == (HELD,)
        assert changed.left[0].why == "it is not held"
        assert hooks.kicked == [HELD]

    async def test_retry_kicks_and_leaves_held_ones(self, desk: Desk, hooks: Hooks) -> None:
        changed = await retry(desk, IdsArguments((HELD, QUEUED)))
        assert changed.done == (QUEUED,)
        assert changed.left[0].why == "it is held; release it first"
        assert hooks.kicked == [QUEUED]

    async def test_delete_forgets(self, desk: Desk, hooks: Hooks) -> None:
        unknown = MessageId("1jkq0z0000000".replace("z", "v"))
        changed = await delete(desk, IdsArguments((QUEUED, DAMAGED, unknown)))
        assert changed.done == (QUEUED, DAMAGED)
        assert changed.left[0].why == "there is no such message"
        assert hooks.forgotten == [QUEUED, DAMAGED]

    async def test_nothing_is_changed_when_one_id_means_nothing(self, desk: Desk) -> None:
        with pytest.raises(AdminError, match="no message has"):
            await delete(desk, IdsArguments((QUEUED, "vvvv")))
        assert desk.spool.show(QUEUED).state is MessageState.QUEUED

    async def test_an_id_given_twice_counts_once(self, desk: Desk) -> None:
        changed = await hold(desk, HoldArguments((QUEUED, QUEUED.upper(), "0b00")))
        assert changed.done == (QUEUED,)
        assert changed.left == ()


class TestIds:
    def test_a_whole_id_is_not_looked_up(self) -> None:
        assert resolve(DoubleSpool(), " 1JKQ0A0000000 ") == DONE

    def test_a_part_that_several_have_lists_them(self) -> None:
        with pytest.raises(AdminError) as caught:
            resolve(DoubleSpool(*_messages()), "1jkq0")
        assert HELD in caught.value.problem.what and QUEUED in caught.value.problem.what

    def test_finished_ones_are_found_too(self) -> None:
        assert resolve(DoubleSpool(*_messages()), "kq0a") == DONE

    def test_no_ids_at_all(self) -> None:
        with pytest.raises(AdminError, match="no message is named"):
            resolve_all(DoubleSpool(), ())

    @given(st.text(max_size=30))
    def test_any_text_means_one_message_or_is_an_error(self, text: str) -> None:
        spool = DoubleSpool(*_messages())
        try:
            found = resolve(spool, text)
        except AdminError as error:
            assert error.problem.do
        else:
            assert len(found) == 13


class TestOctets:
    async def test_arrival_is_what_came(self, desk: Desk) -> None:
        assert _joined(await _pieces(desk, Form.ARRIVAL)) == HEAD + BODY

    async def test_queued_is_what_the_ledger_makes_of_it(self, desk: Desk) -> None:
        added = b"X-Faulty: yes\r\nX-Recipient: anna@example.net\r\n"
        assert _joined(await _pieces(desk, Form.QUEUED)) == added + TRACE + HEAD + BODY

    async def test_sent_is_stuffed_ended_and_proved(self, desk: Desk) -> None:
        pieces = await _pieces(desk, Form.SENT)
        sent = _joined(pieces)
        assert sent.endswith(b"\r\n..dots\r\n--b--\r\n.\r\n")
        wire = the_story().attempts[0].wire
        assert wire is not None and len(sent) == wire.size
        head_size = sent.index(b"\r\n\r\n") + 4
        assert hashlib.sha256(sent[head_size:-3]).digest() == wire.body_sha256
        remark = next(piece for piece in pieces if isinstance(piece, Remark))
        assert not remark.is_fault and "the same octets" in remark.words

    async def test_sent_that_differs_from_what_was_recorded_is_said(self) -> None:
        story = the_story()
        attempt = story.attempts[0]
        assert attempt.wire is not None
        other = msgspec.structs.replace(attempt.wire, body_sha256=b"\0" * 32)
        changed = msgspec.structs.replace(story, attempts=(msgspec.structs.replace(attempt, wire=other),))
        pieces = await _pieces(Desk(DoubleSpool((changed, content())), FixedClock(BEGAN)), Form.SENT)
        assert any(isinstance(piece, Remark) and piece.is_fault for piece in pieces)

    async def test_sent_finds_the_recipients_copy_that_was_sent(self) -> None:
        message = stored(
            MessageState.FINISHED, id=DONE, recipients=("a@b", "c@d"), status=RecipientStatus.DELIVERED
        )
        common = message.ledger
        blank = common[0].before
        mark = Splice(Part.HEAD, 0, 0, b"X-For: c\r\n")
        own = Entry("c alone", "", "arrival", 0, 0, blank, blank, Action.KEPT, changes=(mark,), scope=(1,))
        copy = fold(content(), (*common, own), 1)
        attempt = attempt_that_delivered(copy, BEGAN, (0, 1))
        message = msgspec.structs.replace(message, ledger=(*common, own), attempts=(attempt,))
        pieces = await _pieces(Desk(DoubleSpool((message, content())), FixedClock(BEGAN)), Form.SENT)
        assert _joined(pieces).startswith(b"X-For: c\r\n")
        assert not any(isinstance(piece, Remark) and piece.is_fault for piece in pieces)

    async def test_what_was_never_sent(self, desk: Desk) -> None:
        with pytest.raises(AdminError, match="nothing of it was sent yet"):
            await _pieces(desk, Form.SENT, QUEUED)
        with pytest.raises(AdminError, match="attempt 1 sent no content"):
            await _pieces(desk, Form.SENT, QUEUED, 1)
        with pytest.raises(AdminError, match="there is no attempt 7"):
            await _pieces(desk, Form.SENT, DONE, 7)

    async def test_octets_that_are_gone_or_damaged(self) -> None:
        gone = stored(MessageState.FINISHED, id=DONE, has_content=False)
        damaged = stored(MessageState.DAMAGED, id=DAMAGED)
        desk = Desk(DoubleSpool((gone, None), (damaged, None)), FixedClock(BEGAN))
        with pytest.raises(AdminError, match="no longer kept"):
            await _pieces(desk, Form.ARRIVAL, DONE)
        with pytest.raises(AdminError, match="another digest"):
            await _pieces(desk, Form.QUEUED, DAMAGED)


class TestExport:
    async def test_each_message_with_its_record(self, desk: Desk) -> None:
        pieces = [piece async for piece in export(desk, ExportArguments((DONE,)))]
        assert [piece.name for piece in pieces if isinstance(piece, FileBegins)] == [
            f"{DONE}.json",
            f"{DONE}.eml",
        ]
        assert sum(isinstance(piece, FileEnds) for piece in pieces) == 2
        first = pieces[1]
        assert isinstance(first, Octets)
        record = msgspec.json.decode(first.octets)
        assert record["sender"] == "scanner@example.com"
        assert record["ledger"][2]["binding"] == "XRecipientList (faulty)"

    async def test_a_damaged_one_is_said_and_the_others_go_on(self, desk: Desk) -> None:
        pieces = [piece async for piece in export(desk, ExportArguments())]
        names = [piece.name for piece in pieces if isinstance(piece, FileBegins)]
        assert f"{DAMAGED}.json" in names and f"{DAMAGED}.eml" not in names
        assert f"{QUEUED}.eml" in names and f"{HELD}.eml" in names
        assert [piece.is_fault for piece in pieces if isinstance(piece, Remark)] == [True]


async def test_show_is_the_same_value_as_its_json(desk: Desk) -> None:
    record = await show(desk, IdArguments(DONE))
    assert msgspec.json.decode(msgspec.json.encode(record), type=type(record)) == record


async def test_show_of_an_unknown_id(desk: Desk) -> None:
    with pytest.raises(AdminError, match="there is no message 1jkq0v0000000"):
        await show(desk, IdArguments("1jkq0v0000000"))


async def test_why_names_the_sink(desk: Desk) -> None:
    journey = await why(desk, IdArguments(DONE))
    assert [suspect.binding for suspect in journey.suspects] == ["XRecipientList (faulty)"]
    assert journey.is_running


async def test_status_of_a_running_relay_and_of_one_that_is_down(desk: Desk) -> None:
    running = await status(desk, NoArguments())
    assert running.running and running.since == BEGAN and running.counts["held"] == 1
    down = await status(Desk(DoubleSpool(), FixedClock(BEGAN)), NoArguments())
    assert not down.running and down.pid == 0

"""Transcripts: what was said, where it stands, what is never in it."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lonedot.evidence.transcript import MAX_PIECES, PIECE_LIMIT, RECORD_LIMIT, Record, TranscriptStore
from lonedot.spool.interface import TranscriptRef
from tests.unit.evidence.conftest import HandClock


def read(store: TranscriptStore, ref: TranscriptRef | None) -> Record:
    assert ref is not None
    record = store.read(ref)
    assert record is not None
    return record


def test_a_session_of_two_messages(tmp_path: Path, clock: HandClock) -> None:
    store = TranscriptStore(tmp_path, clock)
    transcript = store.session("0h3k1", "192.0.2.1")
    other = store.session("0h3k2", "192.0.2.2")
    transcript.note(">", b"220 relay\r\n")
    clock.time += 1.5
    transcript.note("<", b"EHLO \xff\r\n")
    first = transcript.flush()
    other.note("<", b"HELO x\r\n")
    other.flush()
    transcript.note(">", b"250 OK\r\n")
    assert transcript.flush() is not None
    assert transcript.flush() is None
    record = read(store, first)
    assert (record.session, record.peer, record.at) == ("0h3k1", "192.0.2.1", 1_700_000_000.0)
    assert [(p.after, p.direction, p.octets) for p in record.pieces] == [
        (0, ">", b"220 relay\r\n"),
        (1_500_000, "<", b"EHLO \xff\r\n"),
    ]
    assert first is not None
    (reply,) = store.following(first, "0h3k1", 5)
    assert [piece.octets for piece in reply.pieces] == [b"250 OK\r\n"]
    assert store.following(first, "0h3k2")[0].pieces[0].octets == b"HELO x\r\n"
    assert store.following(first, "0h3k3") == []
    assert store.following(first, "0h3k1", 0) == []
    store.close()


def test_following_goes_on_in_the_next_day(tmp_path: Path, clock: HandClock) -> None:
    store = TranscriptStore(tmp_path, clock)
    transcript = store.session("a", "")
    transcript.note("<", b"DATA\r\n")
    ref = transcript.flush()
    clock.time += 86400
    transcript.note(">", b"250 OK\r\n")
    transcript.flush()
    assert ref is not None
    assert [record.pieces[0].octets for record in store.following(ref, "a", 9)] == [b"250 OK\r\n"]
    assert store.forget(clock.time) == 1
    assert store.read(ref) is None
    store.close()


def test_a_conversation_that_is_over(tmp_path: Path, clock: HandClock) -> None:
    store = TranscriptStore(tmp_path, clock)
    ref = store.record("attempt", [(0.0, ">", b"EHLO x\r\n"), (0.25, "<", b"250 hi\r\n")])
    record = read(store, ref)
    assert [(piece.after, piece.direction, piece.text) for piece in record.pieces] == [
        (0, ">", "EHLO x\r\n"),
        (250_000, "<", "250 hi\r\n"),
    ]
    store.close()


def test_what_stands_behind_auth_is_replaced(tmp_path: Path, clock: HandClock) -> None:
    store = TranscriptStore(tmp_path, clock)
    transcript = store.session("a", "")
    transcript.note("<", b"EHLO x\r\nauth plain AGEAaHVudGVyMg==\r\nMAIL FROM:<a@b>\r\nAUTH LOGIN\r\n")
    transcript.note(">", b"250-AUTH PLAIN LOGIN\r\n")
    record = read(store, transcript.flush())
    assert [piece.text for piece in record.pieces] == [
        "EHLO x\r\nauth plain [secret]\r\nMAIL FROM:<a@b>\r\nAUTH LOGIN\r\n",
        "250-AUTH PLAIN LOGIN\r\n",
    ]
    store.close()


def test_a_record_is_bounded_with_its_middle_left_out(tmp_path: Path, clock: HandClock) -> None:
    store = TranscriptStore(tmp_path, clock)
    transcript = store.session("a", "")
    for number in range(20_000):
        transcript.note("<", b"NOOP %d %s\r\n" % (number, b"x" * 90))
    record = read(store, transcript.flush())
    sizes = [len(piece.octets) for piece in record.pieces]
    assert sum(sizes) <= RECORD_LIMIT + 200
    assert record.pieces[0].octets.startswith(b"NOOP 0 ")
    assert record.pieces[-1].octets.startswith(b"NOOP 19999 ")
    assert any("left out" in piece.text and piece.direction == "#" for piece in record.pieces)
    store.close()


def test_a_long_piece_keeps_start_and_end(tmp_path: Path, clock: HandClock) -> None:
    store = TranscriptStore(tmp_path, clock)
    transcript = store.session("a", "")
    transcript.note("<", b"start" + b"x" * 1_000_000 + b"end")
    (piece,) = read(store, transcript.flush()).pieces
    assert len(piece.octets) < PIECE_LIMIT + 100
    assert piece.octets.startswith(b"start") and piece.octets.endswith(b"end")
    store.close()


def test_many_small_pieces_are_bounded_too(tmp_path: Path, clock: HandClock) -> None:
    store = TranscriptStore(tmp_path, clock)
    record = read(store, store.record("a", [(0.0, "<", b"x")] * 100_000))
    assert len(record.pieces) <= MAX_PIECES + 1
    store.close()


def test_a_wrong_place_is_nothing(tmp_path: Path, clock: HandClock) -> None:
    store = TranscriptStore(tmp_path, clock)
    ref = store.record("a", [(0.0, "<", b"x")])
    assert ref is not None
    for wrong in (
        TranscriptRef(ref.day, ref.offset + 1, ref.length - 1),
        TranscriptRef(ref.day, ref.offset, ref.length - 1),
        TranscriptRef(ref.day, 10**30, 5),
        TranscriptRef("nonsense", 0, 5),
    ):
        assert store.read(wrong) is None
    store.close()


def test_a_folder_that_is_none_loses_records_and_nothing_else(tmp_path: Path, clock: HandClock) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    store = TranscriptStore(tmp_path / "file", clock)
    transcript = store.session("a", "")
    transcript.note("<", b"x")
    assert transcript.flush() is None
    assert store.lost == 1
    store.flush()
    store.close()


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("<>#"), st.binary(max_size=200)), min_size=1, max_size=20))
def test_octets_come_back_as_they_were(pieces: list[tuple[str, bytes]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store = TranscriptStore(Path(folder), HandClock())
        transcript = store.session("a", "b")
        for direction, octets in pieces:
            transcript.note(direction, octets)
        record = read(store, transcript.flush())
        if not any(b"auth" in octets.lower() for _, octets in pieces):
            assert [(piece.direction, piece.octets) for piece in record.pieces] == pieces
        store.close()

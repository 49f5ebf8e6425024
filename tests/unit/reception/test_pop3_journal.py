"""The journal of a POP3 mailbox: the last line of an UIDL holds, a torn one is left out, nothing grows for ever."""

from __future__ import annotations

from pathlib import Path

from lonedot.reception.pop3_journal import FORGOTTEN_SECONDS, Journal, Known, State, file_name

NOW = 1_800_000_000.0


def known(uidl: str, state: State = State.TAKEN, digest: bytes = b"") -> Known:
    return Known(uidl, state, NOW, NOW, 10, digest or uidl.encode())


def written(path: Path, *changes: Known) -> Journal:
    journal = Journal(path)
    journal.write(*changes)
    journal.sync()
    journal.close()
    return Journal(path)


def test_what_was_written_is_known_and_private(tmp_path: Path) -> None:
    path = tmp_path / "pop3" / "a.jsonl"
    journal = written(path, known("a"), known("b"), known("a", State.DELETED))
    assert (journal.get("a"), journal.get("b")) == (known("a", State.DELETED), known("b"))
    assert journal.get("c") is None and len(journal) == 2
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    written(path, known("a"), known("b"))
    octets = path.read_bytes()
    for cut in range(len(octets)):
        path.write_bytes(octets[:cut])
        journal = written(path, known("c"))
        assert journal.get("c") == known("c")
        assert (journal.get("a") is not None) is (cut >= octets.index(b"\n"))


def test_a_message_under_another_number_is_found_by_its_octets(tmp_path: Path) -> None:
    journal = written(tmp_path / "a", known("a"), known("gone", State.DELETED), known("twin x", digest=b"t"))
    assert journal.moved(b"a", {"new"}) == known("a")
    assert journal.moved(b"a", {"a", "new"}) is None  # it is there: the other is another message
    assert journal.moved(b"gone", {"new"}) is None  # deleted by us: somebody sent it again
    assert journal.moved(b"t", {"twin"}) is None
    assert journal.moved(b"unknown", set()) is None


def test_it_is_written_anew_when_it_says_little(tmp_path: Path) -> None:
    path = tmp_path / "a"
    journal = Journal(path)
    for _ in range(1100):
        journal.write(known("a"), known("b"))
    journal.tidy({"a", "b"}, NOW)
    assert len(path.read_bytes().splitlines()) == 2
    journal.write(known("c"))
    journal.close()
    assert len(Journal(path)) == 3


def test_what_is_still_listed_is_never_forgotten(tmp_path: Path) -> None:
    journal = written(tmp_path / "a", known("a"), known("b"))
    for day in range(0, 200, 10):
        journal.tidy({"a"}, NOW + day * 86400)
    assert journal.get("a") is not None
    assert journal.get("b") is None
    assert FORGOTTEN_SECONDS < 200 * 86400
    journal.close()


def test_each_mailbox_has_a_file_of_its_own() -> None:
    names = {file_name("h", "a/b"), file_name("h", "a_b"), file_name("H", "a_b"), file_name("../x", "..")}
    assert len(names) == 3
    assert all("/" not in name for name in names)

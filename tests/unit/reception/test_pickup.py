"""The Pickup folder: taken once, never half, never twice; what cannot be sent goes to Badmail, else it waits."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from lonedot.message.fold import fold
from lonedot.message.intake import HEAD_LIMIT, MEMORY_LIMIT
from lonedot.reception import pickup as module
from lonedot.reception.pickup import TRY_AGAIN_SECONDS, PickupFolder
from lonedot.spool.interface import SpoolFault, SpoolFull
from lonedot.terms.ids import MessageId
from tests.unit.reception.room import Room

MAIL = b"x-sender: c@a.example\r\nx-receiver: d@b.example\r\nFrom: c@a.example\r\nBcc: e@b.example\r\n\r\nbody\n.\nend"


class Told:
    """Pickup's observer."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.refusals: list[tuple[str, str, bool]] = []

    def taken(self, name: str, id: MessageId) -> None:
        name.encode()
        self.files.append(name.partition("-")[2])

    def refused(self, name: str, words: str, for_good: bool) -> None:
        name.encode()
        self.refusals.append((name.partition("-")[2], words, for_good))


class Place:
    """A Pickup folder, looked at by hand."""

    def __init__(self, root: Path) -> None:
        self.room = Room()
        self.room.give_timers_back()
        self.root = root
        self.folder = root / "pickup"
        self.taking = self.folder / ".taking"
        self.badmail = root / "badmail"
        self.taking.mkdir(parents=True, exist_ok=True)
        self.told = Told()
        self.pickup = self.fresh()

    def fresh(self) -> PickupFolder:
        """As after a restart."""
        return PickupFolder(
            self.folder,
            self.badmail,
            self.room.acceptor,
            self.room.has_route,
            self.told,
            0.01,
            1_000_000,
            "r1",
        )

    def leave(self, name: str, octets: bytes = MAIL) -> Path:
        file = self.folder / name
        file.write_bytes(octets)
        return file

    async def look(self, times: int = 2) -> None:
        for _ in range(times):
            await self.pickup.look()

    @property
    def left(self) -> list[str]:
        return sorted(
            path.name for path in (*self.folder.iterdir(), *self.taking.iterdir()) if path.is_file()
        )

    @property
    def bad(self) -> list[str]:
        return sorted(path.name for path in self.badmail.iterdir()) if self.badmail.exists() else []


@pytest.fixture
async def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# -- taking --------------------------------------------------------------------------------------------


async def test_a_still_file_is_sent_and_gone(place: Place) -> None:
    place.leave("scan.eml")
    await place.look(1)
    assert place.room.spool.accepted == []
    await place.look(1)
    (given,) = place.room.spool.accepted
    assert given.envelope.reverse_path.octets == b"c@a.example"
    assert [r.address.octets for r in given.envelope.recipients] == [b"d@b.example"]
    assert (given.facts.source, given.facts.client, given.facts.trusted) == ("pickup", "scan.eml", True)
    assert len(given.key) == 32
    queued = fold(given.arrival, given.ledger, verify=True).octets()
    assert queued.endswith(b"\r\n\r\nbody\r\n.\r\nend\r\n")
    assert b"Bcc" not in queued
    assert (place.left, place.told.files) == ([], ["scan.eml"])


async def test_a_large_file_too(place: Place) -> None:
    body = (b"x" * 70 + b"\r\n") * (MEMORY_LIMIT // 72 + 100)
    place.leave("big.eml", MAIL[:-13] + b"\r\n" + body)
    await place.look()
    (given,) = place.room.spool.accepted
    assert place.room.spool.content(given.id).octets().endswith(body)
    assert (place.left, place.room.spool.bodies) == ([], 0)


async def test_a_file_that_still_grows_waits(place: Place) -> None:
    file = place.leave("scan.eml")
    await place.look(1)
    with file.open("ab") as more:
        more.write(b"\r\nmore")
    await place.look(1)
    assert place.room.spool.accepted == []
    await place.look(1)
    assert len(place.room.spool.accepted) == 1


async def test_a_file_that_is_open_for_writing_waits(place: Place) -> None:
    file = place.leave("scan.eml")
    with file.open("ab"):
        await place.look(3)
        assert place.room.spool.accepted == []
    await place.look(1)
    assert len(place.room.spool.accepted) == 1


async def test_what_is_no_message_is_left_alone(place: Place) -> None:
    for name in (".hidden", "scan.part", "scan.TMP", "scan.temp", "scan.eml~"):
        place.leave(name)
    place.leave("empty.eml", b"")
    (place.folder / "sub").mkdir()
    (place.folder / "link.eml").symlink_to(place.leave("target.part"))
    os.mkfifo(place.folder / "pipe.eml")
    before = sorted(path.name for path in place.folder.iterdir())
    await place.look(3)
    assert sorted(path.name for path in place.folder.iterdir()) == before
    assert place.room.spool.accepted == []


async def test_names_are_whatever_programs_make_them(place: Place) -> None:
    names = [
        b"gr\xfc\xdfe.eml",
        b"n" * 250 + b".eml",
        "größe.eml".encode(),
        b"a b\n.eml",
        b"-rf",
        b"x'\"$(y).eml",
    ]
    for name in names:
        (place.folder / os.fsdecode(name)).write_bytes(MAIL)
    await place.look()
    assert len(place.room.spool.accepted) == len(names)
    assert place.left == []
    assert r"gr\xfc\xdfe.eml" in place.told.files
    assert all(given.facts.client.encode() for given in place.room.spool.accepted)


async def test_a_bad_file_of_any_name_gets_to_badmail(place: Place) -> None:
    names = [b"gr\xfc\xdfe.eml", b"n" * 250 + b".eml"]
    for name in names:
        (place.folder / os.fsdecode(name)).write_bytes(b"no mail at all")
    await place.look()
    assert place.left == []
    assert len(place.bad) == 6
    assert [for_good for *_, for_good in place.told.refusals] == [True, True]


async def test_one_file_that_cannot_be_moved_keeps_no_other(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.leave("a.eml")
    place.leave("b.eml")
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "a.eml":
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    await place.look()
    assert place.told.files == ["b.eml"]
    assert place.left == ["a.eml"]


# -- refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (b"Subject: no sender\r\n\r\n", "there is no From field"),
        (MAIL.replace(b"d@b.example", b"d@nowhere.example"), "no route to d@nowhere.example"),
        (MAIL.replace(b"body", b"bo\0dy"), "NUL at octet"),
        (b"Received: x\r\n" * 31 + b"To: d@b.example\r\nFrom: c@a.example\r\n\r\n", "circle"),
        (MAIL[:-13] + b"X-A: b\r\n" * (HEAD_LIMIT // 8 + 1), "header section is larger"),
        (MAIL + b"x" * 1_000_000, "the limit is 1000000"),
    ],
)
async def test_what_can_never_be_sent_goes_to_badmail(place: Place, octets: bytes, words: str) -> None:
    place.leave("scan.eml", octets)
    await place.look()
    assert place.left == []
    stem = place.bad[0].removesuffix(".eml")
    assert place.bad == [f"{stem}.eml", f"{stem}.json", f"{stem}.txt"]
    assert (place.badmail / f"{stem}.eml").read_bytes() == octets
    assert words in (place.badmail / f"{stem}.txt").read_text()
    assert json.loads((place.badmail / f"{stem}.json").read_text())["source"] == "pickup"
    assert [(name, for_good) for name, _, for_good in place.told.refusals] == [("scan.eml", True)]
    assert (place.room.spool.accepted, place.room.spool.bodies) == ([], 0)


@pytest.mark.parametrize("error", [SpoolFull("full"), SpoolFault("broken")])
async def test_what_cannot_be_stored_now_waits_and_is_sent_later(place: Place, error: SpoolFault) -> None:
    place.leave("scan.eml")
    place.room.spool.fault = error
    await place.look()
    assert [for_good for *_, for_good in place.told.refusals] == [False]
    place.room.spool.fault = None
    await place.look()
    assert place.room.spool.accepted == [], "not every moment"
    place.room.clock.advance(TRY_AGAIN_SECONDS + 1)
    await place.look(1)
    assert len(place.room.spool.accepted) == 1
    assert (place.left, place.pickup._later) == ([], {})


@pytest.mark.parametrize("error", [SpoolFull("full"), OSError(5, "I/O error"), ValueError("a fault of ours")])
async def test_a_body_that_cannot_be_written_leaves_nothing_behind(place: Place, error: Exception) -> None:
    place.leave("big.eml", MAIL + b"\r\n" + (b"x" * 70 + b"\r\n") * (MEMORY_LIMIT // 72 + 100))
    place.room.spool.write_error = error
    await place.look()
    assert (place.room.spool.writers, place.room.spool.discarded, place.room.spool.bodies) == (1, 1, 0)
    assert len(place.left) == 1
    place.leave("scan.eml")
    await place.look()
    assert place.told.files == ["scan.eml"]


async def test_badmail_that_cannot_be_written_keeps_the_file(place: Place) -> None:
    place.badmail.write_text("a file where the folder should be")
    place.leave("scan.eml", b"no mail")
    await place.look()
    ((_, words, for_good),) = place.told.refusals
    assert "Badmail cannot be written" in words
    assert not for_good
    assert len(place.left) == 1


# -- crashes -------------------------------------------------------------------------------------------


async def test_after_a_crash_behind_the_taking_it_goes_on(place: Place) -> None:
    place.leave("scan.eml")
    await place.look(1)
    place.pickup._take_still()
    assert [path.name.partition("-")[2] for path in place.taking.iterdir()] == ["scan.eml"]
    place.pickup = place.fresh()
    await place.look(1)
    assert place.told.files == ["scan.eml"]


async def test_after_a_crash_behind_the_commit_the_file_is_only_removed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.leave("scan.eml")

    def die(folder: PickupFolder, path: Path, name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PickupFolder, "_remove", die)
        with pytest.raises(KeyboardInterrupt):
            await place.look()
    assert len(place.room.spool.accepted) == 1
    assert len(place.left) == 1
    place.pickup = place.fresh()
    await place.look()
    assert len(place.room.spool.accepted) == 1, "not sent twice"
    assert place.left == []


async def test_after_a_crash_before_the_commit_it_is_sent_once(place: Place) -> None:
    place.leave("scan.eml")
    place.room.spool.by_hand = True
    looking = asyncio.ensure_future(place.look())
    while not place.room.spool.open:  # noqa: ASYNC110 - a thread reads the file: there is no event to wait for
        await asyncio.sleep(0)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    place.room.spool.open.clear()
    place.room.spool.by_hand = False
    place.pickup = place.fresh()
    await place.look(1)
    assert len(place.room.spool.accepted) == 1
    assert place.left == []


async def test_after_a_crash_between_badmail_and_removal_it_is_filed_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.leave("scan.eml", b"no mail")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", _die)
        with pytest.raises(KeyboardInterrupt):
            await place.look()
    assert len(place.bad) == 3
    assert len(place.left) == 1
    place.pickup = place.fresh()
    await place.look()
    assert len(place.bad) == 3, "the same three files"
    assert place.left == []


def _die(path: Path, missing_ok: bool = False) -> None:
    raise KeyboardInterrupt


async def test_two_files_of_one_name_are_two_messages(place: Place) -> None:
    for _ in range(2):
        place.leave("scan.eml")
        await place.look()
    assert len({given.key for given in place.room.spool.accepted}) == 2


# -- by itself -----------------------------------------------------------------------------------------


async def test_it_watches_by_itself_and_ends_when_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = asyncio.Event()
    monkeypatch.setattr(place.told, "taken", lambda name, id: taken.set())
    place.pickup.start()
    place.leave("scan.eml")
    await asyncio.wait_for(taken.wait(), 20)
    await place.pickup.stop()
    assert place.left == []


async def test_a_look_that_fails_is_not_the_last(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = asyncio.Event()
    monkeypatch.setattr(place.told, "taken", lambda name, id: taken.set())
    faults = iter([OSError(5, "I/O error"), SpoolFault("keys cannot be read")])
    has_key = place.room.spool.has_key

    def once(key: bytes) -> bool:
        for fault in faults:
            raise fault
        return has_key(key)

    monkeypatch.setattr(place.room.spool, "has_key", once)
    monkeypatch.setattr(module, "TRY_AGAIN_SECONDS", 0.0)
    place.pickup.start()
    place.leave("scan.eml")
    await asyncio.wait_for(taken.wait(), 20)
    await place.pickup.stop()

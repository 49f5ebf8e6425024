"""Export and import: another spool has the same message, once; a file that does not fit together is refused."""

from __future__ import annotations

import asyncio
import io
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lonedot.admin.import_operations import HERE_ALREADY, IMPORT
from lonedot.admin.operations import Desk, export
from lonedot.admin.transfer import TransferFault, read_header
from lonedot.admin.values import (
    AdminError,
    Changed,
    ExportArguments,
    FileBegins,
    FileEnds,
    ImportArguments,
    Octets,
)
from lonedot.message.findings import Part
from lonedot.message.fold import digests_of
from lonedot.message.ledger import Action, Digests, Entry, Splice
from lonedot.message.measure import measure
from lonedot.spool.hold_rules import HoldRule, HoldRules
from lonedot.spool.interface import (
    Acceptance,
    MessageState,
    RecipientStatus,
    SpoolPaths,
)
from lonedot.spool.sqlite import Policy, SqliteSpool, open_spool
from lonedot.terms.ids import IdSource, MessageId
from lonedot.testing.clock import ManualClock
from lonedot.testing.messages import acceptance
from tests.unit.admin.spool_double import Hooks

Change = Callable[[dict[str, Any]], None]


class Places:
    """A spool to export from and one to import into."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.folder = folder / "files"
        self.folder.mkdir()
        self.ids = IdSource()
        self.source = self._open(folder / "source")
        self.target = self._open(folder / "target")
        self.hooks = Hooks()
        self.desk = Desk(self.target, self.clock, hooks=self.hooks)

    def _open(self, folder: Path) -> SqliteSpool:
        return open_spool(SpoolPaths(folder), self.clock, Policy(inline_sync=True))

    async def exported(self, given: Acceptance) -> MessageId:
        await self.source.accept((given,))
        return await self.export(given.id)

    async def export(self, id: MessageId) -> MessageId:
        name = ""
        async for piece in export(Desk(self.source, self.clock), ExportArguments((id,))):
            match piece:
                case FileBegins(name):
                    (self.folder / name).write_bytes(b"")
                case Octets(octets):
                    with (self.folder / name).open("ab") as file:
                        file.write(octets)
                case FileEnds():
                    pass
                case other:
                    raise AssertionError(other)
        self.clock.advance(10)
        return id

    def new(self, body: bytes = b"one line\r\n", **more: Any) -> Acceptance:
        now = self.clock.now()
        given = acceptance(self.ids.next(now), now, body=body, recipients=("a@example.org", "b@example.org"))
        return msgspec.structs.replace(given, **more)

    def edited(self, body: bytes = b"one line\r\n") -> Acceptance:
        """With a header field put in, in the ledger."""
        given = self.new(body)
        before = digests_of(given.arrival)
        splice = Splice(Part.HEAD, 0, 0, b"X-Seen: yes\r\n")

        def ledger(after: Digests) -> tuple[Entry]:
            return (Entry("Seen", "", "arrival", 1.0, 0.1, before, after, Action.KEPT, changes=(splice,)),)

        after = Digests(measure(b"X-Seen: yes\r\n" + given.arrival.head).sha256, before.body)
        return msgspec.structs.replace(given, ledger=ledger(after))

    async def take(self, *ids: str, hold: bool = False) -> Changed:
        return await IMPORT.run(self.desk, ImportArguments(str(self.folder), ids, hold))

    def change(self, id: str, change: Change) -> None:
        path = self.folder / f"{id}.message"
        line, _, octets = path.read_bytes().partition(b"\n")
        value = msgspec.json.decode(line)
        change(value)
        path.write_bytes(msgspec.json.encode(value) + b"\n" + octets)


@pytest.fixture
async def places(tmp_path: Path) -> AsyncIterator[Places]:
    made = Places(tmp_path)
    yield made
    await made.source.close()
    await made.target.close()


LARGE = b"a line of a large scan\r\n" * 20_000


@pytest.mark.parametrize("body", [b"one line\r\n", b"", b"bare\nlf \xff\x00", LARGE])
async def test_the_other_spool_has_the_same_message(places: Places, body: bytes) -> None:
    id = await places.exported(places.edited(body))
    before = places.source.show(id)
    assert await places.take(id) == Changed((id,))
    after = places.target.show(id)
    for name in ("envelope", "ledger", "recipients", "accepted_at", "size", "state", "facts"):
        assert getattr(after, name) == getattr(before, name), name
    one, other = places.source.content(id), places.target.content(id)
    assert b"".join(one.chunks()) == b"".join(other.chunks())
    assert (one.head_measure, one.body_measure) == (other.head_measure, other.body_measure)
    assert places.hooks.kicked == [id]


async def test_what_was_sent_is_not_sent_again(places: Places) -> None:
    given = places.new()
    first = msgspec.structs.replace(given.recipients[0], status=RecipientStatus.DELIVERED, attempts=1)
    id = await places.exported(msgspec.structs.replace(given, recipients=(first, given.recipients[1])))
    await places.take(id)
    (claim,) = await places.target.claim("me", places.clock.now(), 60, 10)
    assert [one.status for one in claim.message.recipients] == [
        RecipientStatus.DELIVERED,
        RecipientStatus.WAITING,
    ]


async def test_a_second_import_makes_no_second_copy(places: Places) -> None:
    id = await places.exported(places.new())
    assert (await places.take(id)).done == (id,)
    again = await places.take(id, id)
    assert [(left.id, left.why) for left in again.left] == [(id, HERE_ALREADY)]
    await places.target.delete((id,), places.clock.now())
    assert (await places.take(id)).left[0].why == HERE_ALREADY


async def test_two_imports_at_once_take_it_once(places: Places) -> None:
    ids = [await places.exported(places.new()) for _ in range(3)]
    one, other = await asyncio.gather(places.take(*ids), places.take(*ids))
    assert sorted((*one.done, *other.done)) == sorted(ids)


async def test_what_was_held_stays_held_and_all_is_held_on_request(places: Places) -> None:
    held = await places.exported(places.new(state=MessageState.HELD, reason="a virus"))
    free = await places.exported(places.new())
    await places.take(held)
    await places.take(free, hold=True)
    assert (places.target.show(held).state, places.target.show(held).reason) == (MessageState.HELD, "a virus")
    assert places.target.show(free).reason == "imported, to be looked at"


async def test_standing_rules_are_asked(places: Places) -> None:
    places.target.write_rules(HoldRules(1, (HoldRule(1, "x", "no", recipient="b@example.org"),)))
    await places.target.take_rules()
    id = await places.exported(places.new())
    await places.take(id)
    assert places.target.show(id).reason == "held by rule 1: no"


async def test_finished_messages_have_no_such_file(places: Places) -> None:
    id = await places.exported(places.new(state=MessageState.HELD))
    (places.folder / f"{id}.message").unlink()
    await places.source.delete((id,), places.clock.now())
    pieces = [piece async for piece in export(Desk(places.source, places.clock), ExportArguments((id,)))]
    assert not [piece for piece in pieces if isinstance(piece, FileBegins) and piece.name.endswith("message")]


def _set(name: str, value: object) -> Change:
    return lambda given: given.__setitem__(name, value)


def _of_recipient(place: int, value: object) -> Change:
    return lambda given: given["recipients"][0].__setitem__(place, value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("kind", "mail"), "version"),
        (_set("version", 2), "version"),
        (_set("id", "1jkq0b0000000"), "it is that of"),
        (_set("state", "finished"), "finished"),
        (_set("accepted_at", 1e12), "out of range"),
        (_set("accepted_at", -1.0), "out of range"),
        (_set("head_size", 1 << 40), "out of range"),
        (_set("head_size", 3), "behind its body"),
        (_set("body_size", 5), "behind its body"),
        (_set("body_size", 500), "ends within the body"),
        (_set("recipients", []), "no recipient"),
        (_set("envelope", [["YUBi"], []]), "not those of its envelope"),
        (_set("envelope", 7), "cannot be read"),
        (_of_recipient(0, 1), "recipient 0"),
        (_of_recipient(3, -1), "out of range"),
        (_of_recipient(4, 1e20), "out of range"),
        (lambda given: given["head"].__setitem__(1, "A" * 43 + "="), "digest differs"),
        (lambda given: given["ledger"][0][9][0].__setitem__(3, 10_000), "does not fit"),
        (lambda given: given["ledger"][0][6].__setitem__(0, "A" * 43 + "="), "does not fit"),
        (lambda given: given["ledger"][0].__setitem__(16, [9]), "recipient that there is not"),
    ],
)
async def test_what_does_not_fit_together_is_refused(places: Places, change: Change, words: str) -> None:
    id = await places.exported(places.edited())
    places.change(id, change)
    changed = await places.take(id)
    assert not changed.done
    (left,) = changed.left
    assert re.search(words, left.why), left.why
    assert not places.target.contains(id)


@pytest.mark.parametrize("address", ["a@b\r\nRCPT TO:<c@d", "a", "<a@b", "a@b> SIZE=1 <", "", "a b@c"])
async def test_an_address_that_no_command_could_bring_is_refused(places: Places, address: str) -> None:
    id = await places.exported(places.new())
    octets = b64encode(address.encode()).decode()

    def change(given: dict[str, Any]) -> None:
        given["recipients"][0][1][0][0] = octets
        given["envelope"][1][0][0][0] = octets

    places.change(id, change)
    assert "address" in (await places.take(id)).left[0].why


async def test_an_id_of_the_future_is_refused(places: Places) -> None:
    id = await places.exported(places.new())
    places.clock.advance(-3600)
    assert "future" in (await places.take(id)).left[0].why


async def test_links_and_other_paths_are_refused(places: Places, tmp_path: Path) -> None:
    id = await places.exported(places.new())
    path = places.folder / f"{id}.message"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert (await places.take(id)).left
    path.unlink()
    path.mkdir()
    assert (await places.take(id)).left
    for bad in ("../x", "1jkq0b000000/", "x" * 13):
        with pytest.raises(AdminError):
            await places.take(bad)
    with pytest.raises(AdminError):
        await IMPORT.run(places.desk, ImportArguments("files", (id,)))
    assert (await places.take("1jkq0b0000000")).left  # no such file


@pytest.mark.parametrize("line", [b"", b"{}", b"{}\n", b"[" * 100_000 + b"\n", b"\xff\n", b"null\n"])
def test_noise_is_refused(line: bytes) -> None:
    with pytest.raises(TransferFault):
        read_header(io.BytesIO(line), "1jkq0b0000000")

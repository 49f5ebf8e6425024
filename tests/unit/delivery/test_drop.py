"""Drop folders: what is written, under which name, with which rights, and what the system's refusals make of it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.delivery.drop import DROP_RECIPIENTS, DROPPED, envelope_lines, needs_trace
from lonedot.delivery.routing import Drop, Route
from lonedot.message.fold import digests_of, fold
from lonedot.reception.pickup_envelope import read_start
from lonedot.terms.address import NULL_REVERSE_PATH, Address
from lonedot.terms.outcome import Result, Stage
from tests.unit.delivery.outbound import claim, message, outbound, route

ANNA, BEN = b"anna@example.org", b"Ben@Example.ORG"


def into(folder: Path, envelope: bool = True) -> Route:
    return route(0, target=Drop(((1, folder),), envelope))


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def marks(path: Path) -> tuple[int, ...]:
    """What a change of a file changes; that it was read may show in its status, too."""
    status = path.lstat()
    return status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns


async def test_a_message_is_one_file_with_its_envelope_before_it(tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    content = message(b"one\r\n.two\r\n\r\n.\r\n")
    what = claim(ANNA, BEN, content=content)
    async with outbound(into(folder)) as out:
        delivery = await out.send(what)
    (file,) = files(folder)
    assert file.name == f"{what.message.id}-0.eml"
    lines = b"x-sender: a@example.com\r\nx-receiver: anna@example.org\r\nx-receiver: Ben@Example.ORG\r\n"
    assert file.read_bytes() == lines + content.octets()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (attempt,) = delivery.attempts
    assert [(n, one.result, one.stage, one.reason) for n, one in attempt.outcomes] == [
        (0, Result.DELIVERED, Stage.CONTENT, DROPPED),
        (1, Result.DELIVERED, Stage.CONTENT, DROPPED),
    ]
    assert attempt.next_hop == f"drop:{folder}"
    # What is proved is the message; the lines before it are in the envelope.
    assert attempt.wire is not None
    assert (attempt.wire.mode, attempt.wire.size) == ("CRLF", len(content.octets()))
    assert (attempt.wire.head_sha256, attempt.wire.body_sha256) == (
        content.head_measure.sha256,
        content.body_measure.sha256,
    )
    assert attempt.suffix == ()


async def test_a_bare_message_has_trace_fields_and_one_recipient(tmp_path: Path) -> None:
    content = message(b"text\r\n")
    async with outbound(into(tmp_path, envelope=False)) as out:
        delivery = await out.send(claim(ANNA, BEN, content=content))
    trace = b"Return-Path: <a@example.com>\r\nDelivered-To: %s\r\n"
    assert [file.read_bytes() for file in files(tmp_path)] == [
        trace % ANNA + content.octets(),
        trace % BEN + content.octets(),
    ]
    for attempt in delivery.attempts:
        ((index, _),) = attempt.outcomes
        assert digests_of(fold(content, attempt.suffix, index)) == attempt.suffix[-1].after


async def test_a_message_cannot_name_recipients_by_its_own_first_field(tmp_path: Path) -> None:
    content = message(b"text\r\n", b"X-Receiver: victim@example.net\r\nFrom: a@example.com\r\n\r\n")
    async with outbound(into(tmp_path)) as out:
        delivery = await out.send(claim(ANNA, BEN, content=content))
    (file,) = files(tmp_path)
    read = read_start(file.read_bytes())
    assert [one.address.octets for one in read.envelope.recipients] == [ANNA, BEN]
    assert file.read_bytes()[read.content_at :] == b"Return-Path: <a@example.com>\r\n" + content.octets()
    (attempt,) = delivery.attempts
    for index in (0, 1):
        assert digests_of(fold(content, attempt.suffix, index)) == attempt.suffix[-1].after


_OWN_FIELD = st.sampled_from(
    [
        b"X-Sender: v@example.net",
        b"x-receiver : v@example.net",
        b"\tX-Receiver:v@example.net",
        b"From: b@c.example",
    ]
)


@given(st.lists(_OWN_FIELD, max_size=3), st.integers(1, 5), st.booleans())
def test_whatever_the_message_begins_with_its_envelope_is_read_back(
    fields: list[bytes], recipients: int, is_report: bool
) -> None:
    sender = NULL_REVERSE_PATH if is_report else Address(b"a@example.com")
    whom = tuple(Address(b"r%d@example.org" % number) for number in range(recipients))
    head = b"".join(field + b"\r\n" for field in [*fields, b"From: a@example.com", b""])
    if needs_trace(Drop(((1, Path()),)), head):
        head = b"Return-Path: <%s>\r\n" % sender.octets + head
    read = read_start(envelope_lines(sender, whom) + head)
    assert read.envelope.reverse_path == sender
    assert tuple(one.address for one in read.envelope.recipients) == whom
    assert read.content_at == len(envelope_lines(sender, whom))


async def test_many_recipients_are_several_files(tmp_path: Path) -> None:
    whom = [b"r%d@example.org" % number for number in range(DROP_RECIPIENTS + 1)]
    what = claim(*whom)
    async with outbound(into(tmp_path)) as out:
        await out.send(what)
    names = {file.name for file in files(tmp_path)}
    assert names == {f"{what.message.id}-0.eml", f"{what.message.id}-{DROP_RECIPIENTS}.eml"}


async def test_written_again_it_is_the_file_that_is_there(tmp_path: Path) -> None:
    what = claim(ANNA)
    (tmp_path / f".{what.message.id}-0.part").write_text("left by an attempt that was killed")
    async with outbound(into(tmp_path)) as out:
        for _ in range(2):
            delivery = await out.send(what)
            assert [one.result for _, one in delivery.outcomes] == [Result.DELIVERED]
    assert [file.name for file in files(tmp_path)] == [f"{what.message.id}-0.eml"]


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("kind", ["file", "longer", "link", "folder"])
async def test_nothing_that_is_there_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, has_links: bool
) -> None:
    what = claim(ANNA)
    assert what.arrival is not None
    there = tmp_path / f"{what.message.id}-0.eml"
    whole = b"x-sender: a@example.com\r\nx-receiver: anna@example.org\r\n" + what.arrival.octets()
    match kind:
        case "file":
            there.write_bytes(b"another's")
        case "longer":
            there.write_bytes(whole + b"more")
        case "link":
            there.symlink_to(tmp_path / "elsewhere")
        case _:
            there.mkdir()
    before = marks(there)
    if not has_links:

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
    async with outbound(into(tmp_path)) as out:
        delivery = await out.send(what)
    assert [one.result for _, one in delivery.outcomes] == [Result.DELIVERED]
    assert (tmp_path / f"{what.message.id}-0-2.eml").read_bytes() == whole
    assert marks(there) == before
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(("mode", "wanted"), [(0o750, 0o640), (0o770, 0o660), (0o755, 0o640), (0o700, 0o600)])
async def test_the_group_of_the_folder_may_do_as_much_with_its_files(
    tmp_path: Path, mode: int, wanted: int
) -> None:
    tmp_path.chmod(mode)
    async with outbound(into(tmp_path)) as out:
        await out.send(claim(ANNA))
    (file,) = files(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == wanted
    assert file.stat().st_gid == tmp_path.stat().st_gid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_where_the_relay_runs_as_root_files_belong_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    folder.mkdir(mode=0o750)
    os.chown(folder, 12345, 23456)
    async with outbound(into(folder)) as out:
        await out.send(claim(ANNA))
    (file,) = files(folder)
    status = file.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 23456, 0o640)


async def test_it_is_under_its_name_only_when_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, list[str]]] = []
    really = os.fsync

    def sync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        seen.append((kind, sorted(path.suffix for path in tmp_path.iterdir())))
        really(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    async with outbound(into(tmp_path)) as out:
        await out.send(claim(ANNA))
    assert seen == [("file", [".part"]), ("folder", [".eml"])]


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, "4.3.1"), (errno.EIO, "4.3.0")])
async def test_what_the_system_refuses_is_put_off_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: str
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    async with outbound(into(tmp_path)) as out:
        delivery = await out.send(claim(ANNA))
    ((_, outcome),) = delivery.outcomes
    assert (outcome.result, outcome.status) == (Result.DEFERRED, status)
    assert str(tmp_path) in outcome.reason
    assert files(tmp_path) == []


async def test_a_disk_that_is_not_there_puts_off(tmp_path: Path) -> None:
    async with outbound(into(tmp_path / "mnt" / "drop")) as out:
        delivery = await out.send(claim(ANNA))
    ((_, outcome),) = delivery.outcomes
    assert outcome.result is Result.DEFERRED
    assert not (tmp_path / "mnt").exists()

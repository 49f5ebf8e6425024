"""Maildirs: what is written, where it may be written, and what the system's refusals make of it."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.delivery import maildir
from lonedot.delivery.maildir import DELIVERED, UnsafeAddress, fault_of_path, folder_for
from lonedot.delivery.routing import LocalNames, Maildir, Route
from lonedot.message.content import Content, FileBody
from lonedot.message.filed import LineEnd
from lonedot.message.fold import digests_of, fold
from lonedot.message.measure import measure
from lonedot.terms.address import Address
from lonedot.terms.outcome import Result, Stage
from tests.unit.delivery.outbound import claim, message, outbound, route

ANNA, BEN = b"anna@example.org", b"Ben@Example.ORG"


def into(path: str, **changes: object) -> Route:
    line_end = changes.pop("line_end", LineEnd.LF)
    create = changes.pop("create", False)
    assert isinstance(line_end, LineEnd) and isinstance(create, bool)
    return route(0, target=Maildir(path, line_end, create), **changes)


def made(folder: Path) -> Path:
    for name in ("tmp", "new", "cur"):
        (folder / name).mkdir(parents=True)
    return folder


def files(folder: Path) -> list[Path]:
    return sorted((folder / "new").iterdir())


@pytest.mark.parametrize("line_end", [LineEnd.LF, LineEnd.CRLF])
async def test_a_message_is_filed_and_proved(tmp_path: Path, line_end: LineEnd) -> None:
    folder = made(tmp_path / "anna")
    content = message(b"one\r\n.two\r\n\r\n.\r\n")
    what = claim(ANNA, content=content)
    async with outbound(into(f"{tmp_path}/{{local}}", line_end=line_end)) as out:
        delivery = await out.send(what)
    (file,) = files(folder)
    octets = file.read_bytes()
    trace = b"Return-Path: <a@example.com>\r\nDelivered-To: anna@example.org\r\n"
    wanted = trace + content.octets()
    assert octets == (wanted.replace(b"\r\n", b"\n") if line_end is LineEnd.LF else wanted)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list((folder / "tmp").iterdir()) == []
    assert re.fullmatch(
        rf"\d+\.M\d+P{os.getpid()}Q\d+\.relay\.example\.com,S={len(octets)},W={len(wanted)}", file.name
    )
    (attempt,) = delivery.attempts
    ((index, outcome),) = attempt.outcomes
    assert (index, outcome.result, outcome.stage, outcome.reason) == (
        0,
        Result.DELIVERED,
        Stage.CONTENT,
        DELIVERED,
    )
    assert attempt.next_hop == f"maildir:{folder}"
    assert attempt.wire is not None
    head = octets[: len(octets) - len(content.body.octets().replace(b"\r\n", line_end_of(line_end)))]
    assert attempt.wire.head_sha256 == hashlib.sha256(head).digest()
    assert attempt.wire.body_sha256 == hashlib.sha256(octets[len(head) :]).digest()
    assert (attempt.wire.mode, attempt.wire.size, attempt.wire.tail) == (
        line_end.value,
        len(octets),
        octets[-64:],
    )
    # The ledger leads from what was queued to what was filed.
    assert digests_of(fold(content, attempt.suffix, 0)) == attempt.suffix[-1].after


def line_end_of(line_end: LineEnd) -> bytes:
    return b"\n" if line_end is LineEnd.LF else b"\r\n"


async def test_every_recipient_has_a_copy_of_its_own(tmp_path: Path) -> None:
    for name in ("anna", "ben"):
        made(tmp_path / "example.org" / name)
    async with outbound(into(f"{tmp_path}/{{domain}}/{{local}}")) as out:
        delivery = await out.send(claim(ANNA, BEN, sender=b""))
    assert [one.result for _, one in delivery.outcomes] == [Result.DELIVERED, Result.DELIVERED]
    (file,) = files(tmp_path / "example.org" / "ben")
    assert file.read_bytes().startswith(b"Return-Path: <>\nDelivered-To: Ben@Example.ORG\n")
    assert [attempt.suffix[-1].scope for attempt in delivery.attempts] == [(0,), (1,)]


async def test_a_large_message_from_a_file(tmp_path: Path) -> None:
    folder = made(tmp_path / "anna")
    body = b"x" * 77 + b"\r\n"
    body *= 20_000
    (tmp_path / "body").write_bytes(body)
    head = b"Subject: large\r\n\r\n"
    content = Content(head, FileBody(tmp_path / "body", len(body)), measure(head), measure(body))
    async with outbound(into(f"{tmp_path}/{{local}}")) as out:
        outcome = await out.outcome(claim(ANNA, content=content))
    assert outcome.result is Result.DELIVERED
    (file,) = files(folder)
    assert file.read_bytes().endswith(b"Subject: large\n\n" + body.replace(b"\r\n", b"\n"))


async def test_altered_octets_are_never_filed(tmp_path: Path) -> None:
    folder = made(tmp_path / "anna")
    (tmp_path / "body").write_bytes(b"paid\r\n")
    head = b"Subject: altered\r\n\r\n"
    content = Content(head, FileBody(tmp_path / "body", 6), measure(head), measure(b"owed\r\n"))
    async with outbound(into(f"{tmp_path}/{{local}}")) as out:
        delivery = await out.send(claim(ANNA, content=content))
    assert delivery.is_altered and delivery.hold and delivery.outcomes == ()
    assert files(folder) == [] and list((folder / "tmp").iterdir()) == []


async def test_a_missing_maildir_defers_and_says_what_to_do(tmp_path: Path) -> None:
    async with outbound(into(f"{tmp_path}/{{local}}")) as out:
        outcome = await out.outcome(claim(ANNA))
    assert outcome.result is Result.DEFERRED
    assert f"there is no Maildir {tmp_path}/anna: make it" in outcome.reason
    assert list(tmp_path.iterdir()) == []


async def test_a_maildir_is_made_where_the_route_says_so(tmp_path: Path) -> None:
    async with outbound(into(f"{tmp_path}/{{domain}}/{{local}}", create=True)) as out:
        assert (await out.outcome(claim(ANNA))).result is Result.DELIVERED
        assert (await out.outcome(claim(ANNA))).result is Result.DELIVERED
    folder = tmp_path / "example.org" / "anna"
    assert len(files(folder)) == 2
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_what_is_not_mounted_is_not_made(tmp_path: Path) -> None:
    async with outbound(into(f"{tmp_path}/disk/{{local}}", create=True)) as out:
        outcome = await out.outcome(claim(ANNA))
    assert outcome.result is Result.DEFERRED
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "status"), [(errno.ENOSPC, "4.3.1"), (errno.EDQUOT, "4.3.1"), (errno.EIO, "4.3.0")]
)
async def test_a_failing_disk_defers_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: str
) -> None:
    folder = made(tmp_path / "anna")

    def full(file: int, octets: bytes) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(maildir, "_write_all", full)
    async with outbound(into(f"{tmp_path}/{{local}}")) as out:
        outcome = await out.outcome(claim(ANNA))
    assert (outcome.result, outcome.status) == (Result.DEFERRED, status)
    assert os.strerror(number) in outcome.reason
    assert files(folder) == [] and list((folder / "tmp").iterdir()) == []


async def test_the_file_and_its_folder_are_synced_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path / "anna")
    seen: list[tuple[str, int]] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        seen.append((kind, len(files(folder))))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    async with outbound(into(f"{tmp_path}/{{local}}")) as out:
        await out.outcome(claim(ANNA))
    assert seen == [("file", 0), ("folder", 1)]


async def test_a_link_in_a_maildir_is_not_followed(tmp_path: Path) -> None:
    folder = made(tmp_path / "anna")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "new").rmdir()
    (folder / "new").symlink_to(elsewhere)
    async with outbound(into(f"{tmp_path}/{{local}}")) as out:
        outcome = await out.outcome(claim(ANNA))
    assert outcome.result is Result.DEFERRED
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    "address",
    [
        b"../../etc@example.org",
        b"..@example.org",
        b".ssh@example.org",
        b'"a/b"@example.org',
        b"a/b@example.org",
        b"postmaster",
        b"\xff@example.org",
        b"x" * 300 + b"@example.org",
    ],
)
async def test_an_address_leads_nowhere_else(tmp_path: Path, address: bytes) -> None:
    async with outbound(into(f"{tmp_path}/{{domain}}/{{local}}", create=True)) as out:
        outcome = await out.outcome(claim(address))
    assert (outcome.result, outcome.status) == (Result.FAILED, "5.1.3")
    assert list(tmp_path.iterdir()) == []


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_every_folder_is_below_the_fixed_part(local: bytes, domain: bytes) -> None:
    try:
        folder = folder_for("/srv/mail/{domain}/{local}/Maildir", Address(local + b"@" + domain))
    except UnsafeAddress:
        return
    assert folder.parts[:3] == ("/", "srv", "mail") and len(folder.parts) == 6
    assert folder.parts[5] == "Maildir"
    assert ".." not in folder.parts


NAMES = (LocalNames(b"example.org", "+"), LocalNames(b"sensitive.example", "-", is_case_sensitive=True))


@pytest.mark.parametrize(
    ("address", "folder"),
    [
        (b"anna+news@example.org", "anna"),
        (b"Anna+News+More@Example.org", "anna"),
        (b"anna+own@example.org", "anna+own"),
        (b'"anna"@example.org', "anna"),
        (b'"an\\na+x"@example.org', "anna"),
        (b"anna-x@example.org", "anna-x"),
        (b"Ben-x@sensitive.example", "Ben"),
        (b"anna+own@elsewhere.example", "anna+own"),
    ],
)
async def test_a_name_without_its_extension_is_a_folder_too(
    tmp_path: Path, address: bytes, folder: str
) -> None:
    for name in ("anna", "anna+own", "anna-x", "Ben", "ben"):
        made(tmp_path / name)
    over = route(0, target=Maildir(f"{tmp_path}/{{local}}", names=NAMES))
    async with outbound(over) as out:
        outcome = await out.outcome(claim(address))
    assert outcome.result is Result.DELIVERED
    assert outcome.next_hop == f"maildir:{tmp_path}/{folder}"
    (file,) = files(tmp_path / folder)
    assert b"Delivered-To: " + address in file.read_bytes()


@pytest.mark.parametrize("address", [b"+news@example.org", b"anna+news@example.org", b'"a/b+x"@example.org'])
async def test_a_stranger_makes_no_folder_by_an_extension(tmp_path: Path, address: bytes) -> None:
    over = route(0, target=Maildir(f"{tmp_path}/{{local}}", create=True, names=NAMES))
    async with outbound(over) as out:
        outcome = await out.outcome(claim(address))
    found = {path.name for path in tmp_path.iterdir()}
    if address.startswith(b"anna"):
        assert found == {"anna"}
    elif address.startswith(b"+"):
        assert found == {"+news"}, "there is no name before the sign"
    else:
        assert (outcome.result, found) == (Result.FAILED, set())


def test_a_value_is_not_read_again() -> None:
    assert folder_for("/m/{local}", Address(b"{domain}@x")) == Path("/m/{domain}")


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/srv/mail/{domain}/{local}", ""),
        ("/srv/mail/all", ""),
        ("mail/{local}", "must begin with /"),
        ("/srv/../{local}", "must not go up"),
        ("/srv/{user}", "{user} is not known"),
        ("/srv/{local", "without its }"),
    ],
)
def test_faults_of_a_path(path: str, fault: str) -> None:
    found = fault_of_path(path)
    assert fault in found and bool(found) == bool(fault)

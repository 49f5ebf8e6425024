"""`lonedot sendmail` as local programs call it: process, socket, relay, spool and next hop are real."""

from __future__ import annotations

import asyncio
import os
import pwd
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from lonedot.app import Relay
from lonedot.reception.recorder import Recorder
from lonedot.spool.interface import Filter, MessageState, Stored
from lonedot.terms.ids import MessageId
from lonedot.testing.relay import running_relay
from tests.need import need
from tests.system.talk import PATIENCE, first_config

ME = pwd.getpwuid(os.getuid()).pw_name
LONEDOT = Path(sys.executable).parent / "lonedot"


class Done(NamedTuple):
    """How the program ended."""

    code: int
    out: bytes
    err: str


class Scene(NamedTuple):
    """A relay with its next hop, and the folder it lives in."""

    relay: Relay
    hop: Recorder
    folder: Path

    @property
    def stored(self) -> list[Stored]:
        spool = self.relay.spool
        rows = spool.listing(Filter(states=tuple(MessageState)))
        return [spool.show(MessageId(row.id)) for row in rows]


async def called(
    program: Path, folder: Path, *words: str, text: bytes = b"", environment: Mapping[str, str] | None = None
) -> Done:
    process = await asyncio.create_subprocess_exec(
        str(program),
        *words,
        cwd=folder,
        env={
            "PATH": os.defpath,
            **(environment or {"LONEDOT_SUBMIT": str(folder / "spool" / "submit.sock")}),
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate(text)
    return Done(process.returncode or 0, out, err.decode())


async def sendmail(scene: Scene, *words: str, text: bytes = b"") -> Done:
    return await called(LONEDOT, scene.folder, "sendmail", *words, text=text)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with Recorder() as hop, running_relay(tmp_path, first_config(hop.port)) as relay:
        yield Scene(relay, hop, tmp_path)


LETTER = (
    b"From: a@office.example\nTo: anna@dest.example, Ben <ben@dest.example>\nSubject: hi\n\nfirst\n.\nlast\n"
)


async def test_cron_names_a_recipient_without_a_domain(scene: Scene) -> None:
    text = b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@host> job\n\nout\n"
    done = await sendmail(scene, "-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root", text=text)
    assert done == (0, b"", "")
    await scene.hop.wait_for(1, PATIENCE)
    (message,) = scene.hop.messages
    assert message.envelope.reverse_path.text == f"{ME}@relay.example.com"
    assert [one.address.text for one in message.envelope.recipients] == ["root@relay.example.com"]
    assert b"\r\nFrom: root@relay.example.com (Cron Daemon)\r\n" in message.content
    assert message.content.endswith(b"\r\n\r\nout\r\n")


async def test_recipients_from_the_header_and_no_word_of_bcc(scene: Scene) -> None:
    text = LETTER.replace(b"Subject", b"Bcc: secret@dest.example,\n hidden@dest.example\nSubject")
    assert (await sendmail(scene, "-t", "-i", "-f", "boss@office.example", text=text)).code == 0
    await scene.hop.wait_for(1, PATIENCE)
    got = {one.address.text for m in scene.hop.messages for one in m.envelope.recipients}
    assert got == {f"{name}@dest.example" for name in ("anna", "ben", "secret", "hidden")}
    for message in scene.hop.messages:
        assert b"bcc" not in message.content.lower()
        assert b"secret" not in message.content
        assert message.envelope.reverse_path.text == "boss@office.example"
        assert b"\r\nfirst\r\n.\r\nlast\r\n" in message.content  # -i: the dot is text
    (stored,) = scene.stored
    assert [entry.binding for entry in stored.ledger] == ["lonedot", "lonedot"]
    assert stored.facts.login == ME
    assert stored.facts.listener == "sendmail"
    assert stored.facts.trusted


async def test_a_lone_dot_ends_the_message(scene: Scene) -> None:
    assert (await sendmail(scene, "anna@dest.example", text=LETTER)).code == 0
    await scene.hop.wait_for(1, PATIENCE)
    assert scene.hop.messages[0].content.endswith(b"\r\n\r\nfirst\r\n")


async def test_a_bare_text_becomes_a_message(scene: Scene) -> None:
    assert (
        await sendmail(scene, "-F", 'Backup "nightly"', "ops@dest.example", text=b"disk full\n")
    ).code == 0
    await scene.hop.wait_for(1, PATIENCE)
    content = scene.hop.messages[0].content
    assert f'From: "Backup nightly" <{ME}@relay.example.com>\r\n'.encode() in content
    assert content.endswith(b"\r\n\r\ndisk full\r\n")


async def test_the_null_reverse_path_and_reports(scene: Scene) -> None:
    words = ("-f", "<>", "-N", "success,failure", "-R", "hdrs", "-V", "job 7+x")
    assert (await sendmail(scene, *words, "--", "anna@dest.example", text=LETTER)).code == 0
    await scene.hop.wait_for(1, PATIENCE)
    (stored,) = [one for one in scene.stored if not one.facts.parent]
    assert stored.envelope.reverse_path.is_null
    assert stored.envelope.envid == b"job+207+2Bx"


@pytest.mark.parametrize(
    ("words", "text", "code", "says"),
    [
        ((), LETTER, 64, "no recipient"),
        (("-Z", "anna@dest.example"), LETTER, 64, "-Z"),
        (("-bp",), b"", 64, "lonedot queue list"),
        (("-bd",), b"", 64, "lonedot serve"),
        (("-f",), b"", 64, "-f needs a value"),
        (("-N", "always", "anna@dest.example"), b"", 64, "-N"),
        (("-t",), b"From: a@office.example\n\nx\n", 65, "no recipient"),
        (("a@b@c@",), LETTER, 65, "no address"),
        (("anna@dest.example>\r\nRCPT TO:<x@dest.example",), LETTER, 65, "no address"),
        (("anna@dest.example\r\nQUIT",), LETTER, 65, "no address"),
        (("-t",), b"To: anna@dest.example (open, ben@dest.example\n\nx\n", 65, "comment"),
    ],
)
async def test_what_cannot_be_obeyed(
    scene: Scene, words: tuple[str, ...], text: bytes, code: int, says: str
) -> None:
    done = await sendmail(scene, *words, text=text)
    assert (done.code, done.out) == (code, b"")
    assert says in done.err
    assert done.err.startswith("sendmail: ")
    assert not scene.stored


async def test_aliases_have_nothing_to_build(scene: Scene) -> None:
    assert await sendmail(scene, "-bi") == (0, b"", "")


async def test_a_recipient_without_a_route(tmp_path: Path) -> None:
    toml = first_config(1).replace('to = "*"', 'to = "dest.example"')
    async with running_relay(tmp_path, toml) as relay:
        scene = Scene(relay, Recorder(), tmp_path)
        done = await sendmail(scene, "anna@dest.example", "ben@other.example", text=LETTER)
        assert done.code == 67
        assert "ben@other.example" in done.err
        assert not scene.stored  # all or none


async def test_a_message_that_is_too_large(tmp_path: Path) -> None:
    toml = first_config(1, server='max_size = "64 KiB"')
    async with running_relay(tmp_path, toml) as relay:
        scene = Scene(relay, Recorder(), tmp_path)
        done = await sendmail(scene, "-i", "anna@dest.example", text=LETTER + b"x" * 70000 + b"\n")
        assert (done.code, "65536" in done.err) == (65, True)
        done = await sendmail(scene, "anna@dest.example", text=b"X: " + b"y" * 1_100_000 + b"\n\nx\n")
        assert done.code == 65


async def test_a_relay_that_is_down(tmp_path: Path) -> None:
    done = await called(LONEDOT, tmp_path, "sendmail", "anna@dest.example", text=LETTER)
    assert done.code == 75
    assert "try again later" in done.err


async def test_with_the_relay_down_pickup_takes_it(tmp_path: Path) -> None:
    async with Recorder() as hop:
        toml = first_config(hop.port, more="[pickup]\npoll_seconds = 0.05\n")
        async with running_relay(tmp_path, toml):
            pass
        environment = {"LONEDOT_CONFIG": str(tmp_path / "lonedot.toml")}
        words = ("sendmail", "-t", "-i")
        text = LETTER.replace(b"Subject", b"Bcc: hidden@dest.example\nSubject")
        done = await called(LONEDOT, tmp_path, *words, text=text, environment=environment)
        assert done == (0, b"", "")
        # What a file could not say is not left there.
        done = await called(LONEDOT, tmp_path, *words, "-N", "never", text=text, environment=environment)
        assert done.code == 75
        async with running_relay(tmp_path, toml):
            await hop.wait_for(1, PATIENCE)
        (message,) = hop.messages
        assert len(message.envelope.recipients) == 3
        assert b"hidden" not in message.content
        assert message.content.endswith(b"\r\n\r\nfirst\r\n.\r\nlast\r\n")


async def test_smtp_on_standard_input(scene: Scene) -> None:
    process = await asyncio.create_subprocess_exec(
        str(LONEDOT),
        "sendmail",
        "-bs",
        env={"LONEDOT_SUBMIT": str(scene.folder / "spool" / "submit.sock")},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    said = (
        (b"", b"220"),
        (b"HELO mutt\r\n", b"250"),
        (b"MAIL FROM:<a@office.example>\r\n", b"250"),
        (b"RCPT TO:<anna@dest.example>\r\n", b"250"),
        (b"DATA\r\n", b"354"),
        (LETTER.replace(b"\n", b"\r\n").replace(b"\n.", b"\n..") + b".\r\n", b"250"),
        (b"QUIT\r\n", b"221"),
    )
    async with asyncio.timeout(PATIENCE):
        for words, code in said:
            process.stdin.write(words)
            assert (await process.stdout.readline())[:3] == code
        assert await process.wait() == 0  # also with an input that never ends
    await scene.hop.wait_for(1, PATIENCE)
    assert scene.hop.messages[0].content.endswith(b"first\r\n.\r\nlast\r\n")


async def test_called_by_its_old_names(scene: Scene) -> None:
    link = scene.folder / "sendmail"
    link.symlink_to(LONEDOT)
    done = await called(link, scene.folder, "-oi", "-t", text=LETTER)
    assert done == (0, b"", "")
    await scene.hop.wait_for(1, PATIENCE)
    queue = scene.folder / "mailq"
    queue.symlink_to(LONEDOT)
    assert (await called(queue, scene.folder)).code == 64


async def test_the_socket_is_closed_to_others_unless_a_group_is_named(tmp_path: Path) -> None:
    spool = tmp_path / "spool" / "submit.sock"
    async with running_relay(tmp_path, first_config(1)):
        assert spool.stat().st_mode & 0o777 == 0o600
    assert not spool.exists()
    outside = tmp_path / "submit.sock"
    for group, mode in (("*", 0o666), (_my_group(), 0o660)):
        toml = first_config(1, more=f'[sendmail]\nsocket = "{outside}"\ngroup = "{group}"\n')
        async with running_relay(tmp_path, toml):
            assert outside.stat().st_mode & 0o777 == mode


def _my_group() -> str:
    import grp

    return grp.getgrgid(os.getgid()).gr_name


async def test_a_socket_that_a_dead_relay_left(tmp_path: Path) -> None:
    async with running_relay(tmp_path, first_config(1)):
        pass
    import socket

    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "spool" / "submit.sock"))
    left.close()
    async with Recorder() as hop, running_relay(tmp_path, first_config(hop.port)) as relay:
        assert (await sendmail(Scene(relay, hop, tmp_path), "anna@dest.example", text=LETTER)).code == 0


async def test_mailx(scene: Scene) -> None:
    """A program that has called sendmail for forty years."""
    program = need("bsd-mailx", "bsd-mailx")
    link = scene.folder / "sendmail"
    link.symlink_to(LONEDOT)
    settings = scene.folder / "mailrc"
    settings.write_text(f"set sendmail={link}\n")
    done = await called(
        program,
        scene.folder,
        *("-s", "Nightly", "-c", "ben@dest.example", "anna@dest.example"),
        text=b"all is well\n",
        environment={"LONEDOT_SUBMIT": str(scene.folder / "spool" / "submit.sock"), "MAILRC": str(settings)},
    )
    assert done.code == 0, done.err
    await scene.hop.wait_for(1, PATIENCE)
    (message,) = scene.hop.messages
    assert {one.address.text for one in message.envelope.recipients} == {
        "anna@dest.example",
        "ben@dest.example",
    }
    assert b"\r\nSubject: Nightly\r\n" in message.content
    assert message.content.endswith(b"all is well\r\n")


PHP_MAIL = """
$fine = mail(
    'Anna <anna@dest.example>, ben@dest.example',
    "Gr\\u{00fc}\\u{00df}e",
    "first\\n.\\nlast",
    ['From' => 'Shop <shop@office.example>', 'Bcc' => 'books@dest.example'],
    '-fbounces@office.example'
);
exit($fine ? 0 : 1);
"""


async def test_php(scene: Scene) -> None:
    """`mail()` ends header fields with CR LF and leaves the lines of the text as they are."""
    program = need("php", "php-cli")
    link = scene.folder / "sendmail"
    link.symlink_to(LONEDOT)
    done = await called(program, scene.folder, "-n", "-d", f"sendmail_path={link} -t -i", "-r", PHP_MAIL)
    assert done == (0, b"", "")
    await scene.hop.wait_for(1, PATIENCE)
    whom = {one.address.text for message in scene.hop.messages for one in message.envelope.recipients}
    assert whom == {"anna@dest.example", "ben@dest.example", "books@dest.example"}
    for message in scene.hop.messages:
        assert message.envelope.reverse_path.text == "bounces@office.example"
        assert b"books" not in message.content
        head, _, text = message.content.partition(b"\r\n\r\n")
        assert text == b"first\r\n.\r\nlast\r\n"
        assert b"\r\nFrom: Shop <shop@office.example>\r\n" in head
        assert b"\r\r" not in head and b"Date: " in head


async def test_php_is_told_when_nobody_takes_it(tmp_path: Path) -> None:
    program = need("php", "php-cli")
    link = tmp_path / "sendmail"
    link.symlink_to(LONEDOT)
    done = await called(program, tmp_path, "-n", "-d", f"sendmail_path={link} -t -i", "-r", PHP_MAIL)
    assert done.code == 1
    assert "try again later" in done.err

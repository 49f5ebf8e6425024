"""Where recipients are looked up: yes, no, and "cannot be asked", which is never no."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lonedot.directory.faults import DirectoryFault
from lonedot.directory.probe import LmtpRecipients
from lonedot.directory.sources import UNKNOWN_SECONDS, FileRecipients, MaildirRecipients, Remembered
from tests.unit.delivery.peer import HANG_UP, Peer, running


async def test_a_maildir_is_a_folder_and_no_name_leads_out_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mail" / "anna").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    source = MaildirRecipients(str(tmp_path / "mail" / "{local}"), "here.example")
    assert await source.has("anna")
    for name in ("bert", "..", "../secret", ".", ".hidden", "a/../anna", "", "anna\0", "x" * 65):
        assert not await source.has(name), name


async def test_a_disk_that_is_not_there_makes_nobody_unknown(tmp_path: Path) -> None:
    source = MaildirRecipients(str(tmp_path / "gone" / "{local}"), "here.example")
    with pytest.raises(DirectoryFault):
        await source.has("anna")


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "people"
    path.write_text("anna\nBert@Here.example\nx@other.example\n")
    source = FileRecipients(path, "here.example")
    assert source.known("anna")
    assert source.known("bert")
    assert not source.known("x")
    path.write_text("carla\n")
    assert source.known("carla")
    assert not source.known("anna")
    path.write_text("not an address\n")
    for _ in range(2):
        with pytest.raises(DirectoryFault, match="line 1"):
            source.known("carla")


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        (b"250 2.1.5 Ok\r\n", True),
        (b"550 5.1.1 unknown\r\n", False),
        (b"550-5.1.1 unknown\r\n550 5.1.1 here\r\n", False),
        (b"550 nobody\r\n", False),
        (b"550 5.7.1 go away\r\n", None),
        (b"552 5.2.2 full\r\n", None),
        (b"451 4.3.0 later\r\n", None),
        (b"nonsense\r\n", None),
        (HANG_UP, None),
    ],
)
async def test_a_host_is_asked_by_rcpt(answer: bytes, known: bool | None) -> None:
    async with running(Peer(answers={b"RCPT": answer}, lmtp=True)) as peer:
        source = LmtpRecipients(f"127.0.0.1:{peer.port}", "here.example", "relay.example.com")
        if known is None:
            with pytest.raises(DirectoryFault):
                await source.has("anna")
        else:
            assert await source.has("anna") is known
    assert not peer.messages


async def test_a_host_that_is_not_there_makes_nobody_unknown(tmp_path: Path) -> None:
    with pytest.raises(DirectoryFault):
        await LmtpRecipients(f"unix:{tmp_path}/none", "here.example", "relay.example.com").has("anna")


async def test_answers_are_remembered_faults_are_not_and_one_question_serves_all() -> None:
    now = 0.0
    said: list[bool | None] = [None, False, True]
    asked: list[str] = []

    class Slow:
        def known(self, local: str) -> bool | None:
            return None

        async def has(self, local: str) -> bool:
            asked.append(local)
            await asyncio.sleep(0)
            answer = said.pop(0)
            if answer is None:
                raise DirectoryFault("down")
            return answer

    source = Remembered(Slow(), lambda: now)
    with pytest.raises(DirectoryFault):
        await source.has("anna")
    assert await asyncio.gather(*(source.has("anna") for _ in range(5))) == [False] * 5
    assert asked == ["anna", "anna"]
    assert source.known("anna") is False
    now = UNKNOWN_SECONDS + 1
    assert source.known("anna") is None
    assert await source.has("anna")
    assert source.known("anna") is True


async def test_a_question_has_its_time() -> None:
    class Mute:
        def known(self, local: str) -> bool | None:
            return None

        async def has(self, local: str) -> bool:
            await asyncio.Event().wait()
            return True

    with pytest.raises(DirectoryFault, match="no answer"):
        await Remembered(Mute(), lambda: 0.0, ask_seconds=0.01).has("anna")

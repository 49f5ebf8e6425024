"""The shipped example of the story, as it stands: real clamd and POP3 account, the old tool, and the guilty sink."""

from __future__ import annotations

import os
import re
import shutil
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import pytest

from lonedot.cli.samples import attached_scan, scan_message, scan_pdf
from lonedot.testing.process import RelayProcess
from tests.peers.clamd import SIGNATURE, Clamd, need_clamd
from tests.peers.dovecot_pop3 import PASSWORD, USER, DovecotPop3, need_dovecot_pop3
from tests.peers.filters import EICAR
from tests.peers.strict_sink import Arrival, StrictSink
from tests.system.talk import MESSAGE, PATIENCE
from tests.system.test_commands import Row, rows, run, send, value, wait_until

pytestmark = pytest.mark.peer

STORY = Path(__file__).resolve().parents[2] / "examples" / "story"
SCAN = scan_message(b"Thu, 02 Jul 2026 10:00:00 +0000")
READER = b"goods-in@example.com"
POP3 = "POP3 Connector Event Sink"
XEXCH50 = "Exchange Transport XEXCH50 Submission"
OFFER = "Exchange Transport XEXCH50 Offer"
ISM = "ISM SMTP Transport"
ANTIVIRUS = "Exchange Transport AntiVirus API"
DOOR = "AntiVirus at the door"
GUILTY = "XRecipientList"
CURE = "X-Recipient"
ISM_ADDRESS = "_IsmService@01234567-89ab-cdef-0123-456789abcdef._msdcs.example.com"
VIRUS = b"From: <c@office.example>\r\nTo: <goods-in@example.com>\r\nSubject: bill\r\n\r\n" + EICAR + b"\r\n"


class Peers(NamedTuple):
    """What the story has around it."""

    clamd: Clamd
    dovecot: DovecotPop3
    receiver: StrictSink


@pytest.fixture(scope="module")
def clamd() -> Iterator[Clamd]:
    need_clamd()
    with Clamd() as one:
        yield one


@pytest.fixture
def peers(clamd: Clamd) -> Iterator[Peers]:
    need_dovecot_pop3()
    with DovecotPop3() as dovecot, StrictSink() as receiver:
        yield Peers(clamd, dovecot, receiver)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The example, copied."""
    for name in ("lonedot.toml", "sinks.toml"):
        shutil.copy(STORY / name, tmp_path)
    (tmp_path / "copier.password").write_text(PASSWORD)
    (tmp_path / "copier.password").chmod(0o600)
    return tmp_path


@pytest.fixture
def story(folder: Path, peers: Peers) -> Iterator[RelayProcess]:
    """The example, running: nothing but places and names of the machine are others."""
    (folder / "intersite").mkdir()
    replace(
        folder / "sinks.toml",
        ("unix:/run/clamav/clamd.ctl", peers.clamd.address),
        ("/var/spool/intersite", str(folder / "intersite")),
    )
    replace(
        folder / "lonedot.toml",
        ("127.0.0.1:2525", "127.0.0.1:0"),
        ("127.0.0.1:2526", f"127.0.0.1:{peers.receiver.port}"),
        ("port = 110\n", f"port = {peers.dovecot.port}\n"),
        ('user = "scans"', f'user = "{USER}"'),
        ("[server]\n", "[server]\nworkers = 1\n"),
    )
    with RelayProcess(folder, (folder / "lonedot.toml").read_text()) as relay:
        yield relay


def replace(file: Path, *pairs: tuple[str, str]) -> None:
    text = file.read_text()
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    file.write_text(text)


def ledger(folder: Path, id: str) -> dict[str, Row]:
    """Binding to entry, in their order, without those of the relay itself."""
    entries = cast("list[Row]", value(folder, "queue", "show", id)["ledger"])
    return {str(entry["binding"]): entry for entry in entries if entry["binding"] != "lonedot"}


def only_id(folder: Path, *selected: str) -> str:
    """The one message that a listing has, as soon as it has one."""
    found: list[str] = []

    def there() -> bool:
        found[:] = rows(folder, *selected)
        return len(found) == 1

    wait_until(there)
    return found[0]


def check_scan(arrival: Arrival) -> None:
    """It is whole: octet for octet, with lines that end in CR LF, and without a word of the old connector."""
    assert arrival.recipients == (READER,)
    assert not arrival.bare_octets
    assert attached_scan(arrival.content) == scan_pdf()
    assert b"mspop3connector" not in arrival.content.lower()


def check_undone(folder: Path, id: str) -> None:
    """The guilty one added its field; its damage is undone, and named."""
    entry = ledger(folder, id)[GUILTY]
    assert entry["action"] == "reduced" and entry["findings"]
    said = run(folder, "why", id).decode()
    assert GUILTY in said and "damage" in said


def test_two_scans_and_the_guilty_one(story: RelayProcess, peers: Peers) -> None:
    """One by SMTP, one by POP3: both arrive whole although the guilty sink had them in its hands."""
    folder = story.folder
    id = send(story.ports["copiers"], SCAN, READER.decode())
    (by_smtp,) = peers.receiver.wait_for(1)
    check_scan(by_smtp)
    assert b"X-Handled-By: XRecipientList\r\n" in by_smtp.content
    assert list(ledger(folder, id)) == [DOOR, ANTIVIRUS, GUILTY]
    check_undone(folder, id)
    peers.dovecot.put([SCAN.replace(b"\r\n", b"\n")])
    run(folder, "pop3", "poll", "scans")
    arrivals = peers.receiver.wait_for(2)
    check_scan(arrivals[1])
    assert peers.dovecot.left() == 0
    other = next(found for found in rows(folder, "--state", "finished") if found != id)
    assert list(ledger(folder, other)) == [DOOR, ANTIVIRUS, GUILTY]
    check_undone(folder, other)


def test_a_file_of_the_old_connector(story: RelayProcess, peers: Peers) -> None:
    """All that have no other rule see it, in their order; what leaves has no marker."""
    folder = story.folder
    head = b"x-sender: c@office.example\r\nx-receiver: mspop3connector.goods-in@example.com\r\n"
    to = b'To: "IMB Recipient 1" <mspop3connector.goods-in@example.com>\r\n'
    drop(folder, head + SCAN.replace(b"To: <goods-in@example.com>\r\n", to))
    (arrival,) = peers.receiver.wait_for(1)
    check_scan(arrival)
    assert b'To: "IMB Recipient 1" <goods-in@example.com>\r\n' in arrival.content
    id = only_id(folder, "--state", "finished")
    assert list(ledger(folder, id)) == [POP3, ANTIVIRUS, GUILTY]
    check_undone(folder, id)


def test_the_cure(story: RelayProcess, peers: Peers) -> None:
    """The guilty one is switched off by its name, the real one on: the field of the recipient, and no damage."""
    folder = story.folder
    said = run(folder, "smtpreg", "/disable", "1", "OnArrival", GUILTY).decode()
    assert said.startswith(f"disabled {GUILTY!r} {{")
    run(folder, "smtpreg", "/enable", "1", "OnArrival", CURE)
    id = send(story.ports["copiers"], SCAN, READER.decode(), "hidden@example.com")
    arrivals = peers.receiver.wait_for(2)
    assert {arrival.recipients for arrival in arrivals} == {(READER,), (b"hidden@example.com",)}
    for arrival in arrivals:
        (to,) = arrival.recipients
        assert re.findall(rb"^X-Recipient: (.*)\r$", arrival.content, re.MULTILINE) == [to]
        assert attached_scan(arrival.content) == scan_pdf()
    assert GUILTY not in ledger(folder, id)
    assert not any(entry["findings"] for entry in ledger(folder, id).values())


def test_a_virus_is_refused_by_every_way(story: RelayProcess, peers: Peers) -> None:
    folder = story.folder
    with (
        smtplib.SMTP("127.0.0.1", story.ports["copiers"], timeout=PATIENCE) as client,
        pytest.raises(smtplib.SMTPDataError) as refused,
    ):
        client.sendmail("c@office.example", [READER.decode()], VIRUS)
    assert refused.value.smtp_code == 550
    assert SIGNATURE.encode() in cast(bytes, refused.value.smtp_error)
    # At the provider it stays; nobody is sent a report.
    peers.dovecot.put([VIRUS])
    run(folder, "pop3", "poll", "scans")
    assert peers.dovecot.left() == 1
    assert rows(folder) == {}
    # What an old program leaves in the folder is taken, and kept back.
    letter = b"x-sender: c@office.example\r\nx-receiver: goods-in@example.com\r\n" + VIRUS
    drop(folder, letter)
    id = only_id(folder, "--state", "held")
    assert SIGNATURE in run(folder, "why", id).decode()
    assert send(story.ports["copiers"], MESSAGE, READER.decode())
    (arrival,) = peers.receiver.wait_for(1)
    assert arrival.content.endswith(b"\r\n\r\nfirst\r\n.second\r\n")


def drop(folder: Path, octets: bytes) -> None:
    """A file for Pickup, put there whole."""
    place = folder / "spool" / "pickup"
    (folder / "letter").write_bytes(octets)
    os.replace(folder / "letter", place / "letter.eml")


def test_an_exact_address_is_consumed(story: RelayProcess, peers: Peers) -> None:
    """Its copy is a file, with a receipt in the ledger; the other recipient has the message."""
    folder = story.folder
    id = send(story.ports["copiers"], MESSAGE, ISM_ADDRESS, READER.decode())
    (arrival,) = peers.receiver.wait_for(1)
    assert arrival.recipients == (READER,)
    filed: list[Path] = []

    def is_there() -> bool:
        filed[:] = [path for path in (folder / "intersite").rglob("*") if path.is_file()]
        return len(filed) == 1

    wait_until(is_there)
    assert filed[0].read_bytes().endswith(b"\r\n\r\nfirst\r\n.second\r\n")
    wait_until(lambda: id in rows(folder, "--state", "finished"))
    entries = cast("list[Row]", value(folder, "queue", "show", id)["ledger"])
    (receipt,) = [entry for entry in entries if entry["binding"] == ISM]
    assert filed[0].name in str(receipt["words"])


def test_the_verb_and_its_group(story: RelayProcess, peers: Peers) -> None:
    folder, port = story.folder, story.ports["copiers"]
    keywords, reply = say_xexch50(port)
    assert "xexch50" in keywords and reply == 250
    (arrival,) = peers.receiver.wait_for(1)
    assert b"blob" not in arrival.content
    run(folder, "sinks", "set", XEXCH50, "sink_properties.networks", "192.0.2.0/28")
    assert say_xexch50(port)[1] == 504
    run(folder, "sinks", "disable", "--group", "XEXCH50")
    keywords, reply = say_xexch50(port)
    assert "xexch50" not in keywords and reply == 500
    statuses = listed(folder)
    assert {name for name, status in statuses.items() if status == "Disabled"} == {XEXCH50, OFFER, CURE}


def say_xexch50(port: int) -> tuple[set[str], int]:
    """A message with a blob before its content; what is offered, and the last reply to the verb."""
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
        client.ehlo("exchange.example")
        client.mail("c@office.example")
        client.rcpt(READER.decode())
        code, _ = client.docmd("XEXCH50", "4 1")
        if code == 354:
            client.send(b"blob")
            code, _ = client.getreply()
        taken, _ = client.data(MESSAGE)
        assert taken == 250
        return set(client.esmtp_features), code


def listed(folder: Path) -> dict[str, str]:
    """Display name to status, as the old tool prints them."""
    text = run(folder, "smtpreg", "/enum").decode()
    assert text.startswith("Source {1B3C0666-E470-11D0-AA67-80C04FA345F6} {\n  DisplayName = smtpsvc 1\n")
    assert text.count("{") == text.count("}")
    names = re.findall(r"^      DisplayName = (.*)$", text, re.MULTILINE)
    return dict(zip(names, re.findall(r"^      Status = (\w+)$", text, re.MULTILINE), strict=True))


def test_the_old_tool_lists_them_in_its_old_shape(story: RelayProcess) -> None:
    folder = story.folder
    assert listed(folder) == dict.fromkeys(ENABLED, "Enabled") | {CURE: "Disabled"}
    text = run(folder, "smtpreg", "/enum").decode()
    for name, (priority, rule) in OLD.items():
        block = text[text.index(f"DisplayName = {name}\n") :].partition("SinkProperties")[0]
        assert f"        Priority = {priority}\n" in block, name
        assert (f"        Rule = {rule}\n" in block) if rule else ("Rule = " not in block), name
    for name in ENABLED:
        event = {XEXCH50: "verb", OFFER: "helo", DOOR: "end-of-data"}.get(name, "OnArrival")
        run(folder, "smtpreg", "/disable", "1", event, name)
        assert listed(folder)[name] == "Disabled"


OLD = {
    POP3: (0, "RCPT TO=*mspop3connector.*"),
    XEXCH50: (100, "XEXCH50=*;X-LINK2STATE=*"),
    ISM: (8192, f"RCPT TO={ISM_ADDRESS}"),
    ANTIVIRUS: (28000, ""),
    GUILTY: (28010, ""),
}
"""Priority and rule of the five, as they were. The verb alone had no rule: its event was no event of verbs."""
ENABLED = (*OLD, OFFER, DOOR)

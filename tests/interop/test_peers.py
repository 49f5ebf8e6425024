"""Real clients in front of the relay, Postfix before and behind it, a strict receiver at the end."""

from __future__ import annotations

import smtplib
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from lonedot.reception.logins import hash_of
from lonedot.testing.process import RelayProcess
from lonedot.testing.relay import CONFIG
from tests.need import need
from tests.peers.postfix import Postfix, PostfixSettings, need_postfix
from tests.peers.strict_sink import Arrival, StrictSink

BODY = "".join(f"line {n}: .dot, 100 % and plain words\r\n" for n in range(200)) + ".\r\n..\r\nend\r\n"
MESSAGE = (
    "From: Copier <copier@office.example>\r\n"
    "To: <anna@dest.example>\r\n"
    "Subject: a test\r\n"
    "Date: Thu, 02 Jul 2026 10:00:00 +0000\r\n"
    "Message-ID: <peer@office.example>\r\n"
    "\r\n" + BODY
)


PASSWORD = "päss word"


@pytest.fixture
def sink() -> Iterator[StrictSink]:
    with StrictSink() as one:
        yield one


@pytest.fixture
def relay(tmp_path: Path, sink: StrictSink) -> Iterator[RelayProcess]:
    toml = CONFIG.format(server="", listener="", route="", port=sink.port)
    with RelayProcess(tmp_path, toml) as one:
        yield one


def arrived(sink: StrictSink, count: int = 1) -> list[Arrival]:
    found = sink.wait_for(count, 20.0)
    assert len(found) == count
    assert sink.faults == []
    for arrival in found:
        assert arrival.bare_octets == ()
    return found


def body_of(arrival: Arrival) -> bytes:
    return arrival.content.partition(b"\r\n\r\n")[2]


def test_smtplib(relay: RelayProcess, sink: StrictSink) -> None:
    with smtplib.SMTP("127.0.0.1", relay.ports["in"]) as client:
        client.sendmail("copier@office.example", ["anna@dest.example", "bob@dest.example"], MESSAGE.encode())
    found = arrived(sink)[0]
    assert found.reverse_path == b"copier@office.example"
    assert set(found.recipients) == {b"anna@dest.example", b"bob@dest.example"}
    assert body_of(found) == BODY.encode()


def test_swaks(relay: RelayProcess, sink: StrictSink, tmp_path: Path) -> None:
    swaks = need("swaks", "swaks")
    (tmp_path / "message.eml").write_bytes(MESSAGE.replace("\r\n", "\n").encode())
    command = [
        str(swaks),
        *("--server", f"127.0.0.1:{relay.ports['in']}", "--from", "copier@office.example"),
        *("--to", "anna@dest.example", "--data", f"@{tmp_path / 'message.eml'}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout
    # swaks reads the file as text: it ends it with a line end of its own.
    assert body_of(arrived(sink)[0]).startswith(BODY.encode())


def test_msmtp(relay: RelayProcess, sink: StrictSink) -> None:
    msmtp = need("msmtp", "msmtp")
    command = [
        str(msmtp),
        *("--host=127.0.0.1", f"--port={relay.ports['in']}", "--from=copier@office.example"),
        *("--auth=off", "--tls=off", "anna@dest.example"),
    ]
    text = MESSAGE.replace("\r\n", "\n").encode()
    done = subprocess.run(command, input=text, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert body_of(arrived(sink)[0]) == BODY.encode()


def test_curl(relay: RelayProcess, sink: StrictSink, tmp_path: Path) -> None:
    curl = need("curl", "curl")
    file = tmp_path / "message.eml"
    file.write_bytes(MESSAGE.encode())
    command = [
        str(curl),
        *("--silent", "--show-error", f"smtp://127.0.0.1:{relay.ports['in']}/office.example"),
        *("--mail-from", "copier@office.example", "--mail-rcpt", "anna@dest.example"),
        *("--upload-file", str(file)),
    ]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert body_of(arrived(sink)[0]) == BODY.encode()


@pytest.fixture
def guarded(tmp_path: Path, sink: StrictSink) -> Iterator[RelayProcess]:
    """A relay that trusts nobody but who logs in."""
    (tmp_path / "logins.txt").write_text(f"scanner:{hash_of(PASSWORD.encode())}\n")
    (tmp_path / "logins.txt").chmod(0o600)
    listener = 'logins = "logins.txt"\nallow_plaintext_login = true'
    toml = CONFIG.format(server="", listener=listener, route="", port=sink.port)
    with RelayProcess(tmp_path, toml.replace('relay_from = ["127.0.0.0/8"]', "")) as one:
        yield one


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_logs_in(guarded: RelayProcess, sink: StrictSink, mechanism: str) -> None:
    swaks = need("swaks", "swaks")
    command = [
        str(swaks),
        *("--server", f"127.0.0.1:{guarded.ports['in']}", "--from", "copier@office.example"),
        *("--to", "anna@dest.example", "--auth", mechanism, "--auth-user", "scanner"),
    ]
    done = subprocess.run(
        [*command, "--auth-password", "wrong"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode != 0 and "535 5.7.8" in done.stdout
    done = subprocess.run(
        [*command, "--auth-password", PASSWORD],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert b"with ESMTPA id" in arrived(sink)[0].content


def test_curl_logs_in(guarded: RelayProcess, sink: StrictSink, tmp_path: Path) -> None:
    curl = need("curl", "curl")
    file = tmp_path / "message.eml"
    file.write_bytes(MESSAGE.encode())
    command = [
        str(curl),
        *("--silent", "--show-error", f"smtp://127.0.0.1:{guarded.ports['in']}/office.example"),
        *("--mail-from", "copier@office.example", "--mail-rcpt", "anna@dest.example"),
        *("--upload-file", str(file), "--user", f"scanner:{PASSWORD}"),
    ]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert body_of(arrived(sink)[0]) == BODY.encode()


def test_smtplib_logs_in(guarded: RelayProcess, sink: StrictSink) -> None:
    with smtplib.SMTP("127.0.0.1", guarded.ports["in"]) as client:
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("copier@office.example", ["anna@dest.example"], MESSAGE.encode())
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("scanner", "wrong")
        # smtplib takes passwords in ASCII alone.
        code, _ = client.docmd("AUTH", "PLAIN " + b64encode(f"\0scanner\0{PASSWORD}".encode()).decode())
        assert code == 235
        client.sendmail("copier@office.example", ["anna@dest.example"], MESSAGE.encode())
    assert body_of(arrived(sink)[0]) == BODY.encode()


@pytest.mark.peer
def test_postfix_before_us(tmp_path: Path, sink: StrictSink) -> None:
    need_postfix()
    toml = CONFIG.format(server="", listener="", route="", port=sink.port)
    with RelayProcess(tmp_path, toml) as relay:
        settings = PostfixSettings(relayhost=f"[127.0.0.1]:{relay.ports['in']}")
        with Postfix(settings) as postfix, smtplib.SMTP("127.0.0.1", postfix.port) as client:
            client.sendmail("copier@office.example", ["anna@dest.example"], MESSAGE.encode())
            found = arrived(sink)[0]
    assert body_of(found) == BODY.encode()
    assert found.content.partition(b"\r\n\r\n")[0].count(b"Received: ") == 2


@pytest.mark.peer
def test_postfix_behind_us(tmp_path: Path, sink: StrictSink) -> None:
    need_postfix()
    with Postfix(PostfixSettings(relayhost=f"[127.0.0.1]:{sink.port}")) as postfix:
        toml = CONFIG.format(server="", listener="", route="", port=postfix.port)
        with RelayProcess(tmp_path, toml) as relay, smtplib.SMTP("127.0.0.1", relay.ports["in"]) as client:
            client.sendmail("copier@office.example", ["anna@dest.example"], MESSAGE.encode())
            found = arrived(sink)[0]
    assert body_of(found) == BODY.encode()


@pytest.mark.peer
def test_the_story_with_a_strict_postfix_behind_us(tmp_path: Path, sink: StrictSink) -> None:
    """A client sends `%%EOF LF . CR LF` and then the true end; what reaches Postfix is whole."""
    need_postfix()
    with Postfix(PostfixSettings(relayhost=f"[127.0.0.1]:{sink.port}")) as postfix:
        toml = CONFIG.format(server="", listener="", route="", port=postfix.port)
        with RelayProcess(tmp_path, toml) as relay, smtplib.SMTP("127.0.0.1", relay.ports["in"]) as client:
            client.ehlo()
            client.mail("copier@office.example")
            client.rcpt("anna@dest.example")
            assert client.docmd("DATA")[0] == 354
            client.send(b"From: <c@office.example>\r\nSubject: scan\r\n\r\n%PDF-1.4\n%%EOF\n.\r\n\r\n.\r\n")
            assert client.getreply()[0] == 250
            found = arrived(sink)[0]
    assert body_of(found) == b"%PDF-1.4\r\n%%EOF\r\n.\r\n\r\n"

"""The HTTP bridge against a service that a test writes, and the examples of its page."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin.http import HttpFilter, HttpSettings
from lonedot.sinks.calls import Decision, Failure
from lonedot.sinks.posting import Endpoint, Posted, Poster, endpoint_of, form, signed
from lonedot.testing import Ran, make_message, run_sink
from tests.need import need

LETTER = make_message(
    "Subject: a\n\tletter\nX-N: 1\n\ntext\n", recipients=("b@example.org", "c@example.org"), sender=""
)
PAGE = Path(__file__).parents[4] / "docs" / "sinks" / "http.md"
KEY = "a key that is long enough"


class Service:
    """Answers as told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.answer = b'{"verdict": "next"}'
        self.asked: list[tuple[dict[str, str], bytes]] = []
        self.drops = 0
        """Requests that are read and not answered before the next one is."""
        self.peers: set[tuple[str, int]] = set()
        self.url = ""


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as one:
        yield one


@contextlib.contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Service]:
    one = Service()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            one.peers.add(self.client_address)
            size = int(self.headers["Content-Length"])
            body = self.rfile.read(size)
            if len(body) < size:
                self.close_connection = True
                return
            one.asked.append((dict(self.headers.items()), body))
            if one.drops:
                one.drops -= 1
                self.close_connection = True
                return
            self.send_response(one.status)
            if one.status != 204:
                self.send_header("Content-Length", str(len(one.answer)))
            if one.status in (301, 307):
                self.send_header("Location", one.url + "other")
            self.end_headers()
            if one.status != 204:
                self.wfile.write(one.answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    one.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}/filter?a=b"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield one
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ran(url: str, octets: bytes = b"", **settings: Setting) -> Ran:
    message = make_message(octets, recipients="b@example.org") if octets else LETTER
    return run_sink(HttpFilter, message, settings={"url": url, **settings})


def test_it_is_told_of_the_message(service: Service) -> None:
    ran(service.url).assert_untouched()
    ((fields, body),) = service.asked
    told = json.loads(body)
    assert fields["Content-Type"] == "application/json"
    assert told["headers"] == [["Subject", "a\tletter"], ["X-N", "1"]]
    assert told["sender"] == ""
    assert [one["address"] for one in told["recipients"]] == ["b@example.org", "c@example.org"]
    assert (told["size"], told["body"]) == (len(LETTER.octets()), None)
    assert told["facts"]["source"] == LETTER.facts.source
    assert "X-Lonedot-Signature" not in fields


def test_the_body_goes_inline(service: Service) -> None:
    octets = b"Subject: x\r\n\r\n\xff\0 text\r\n"
    ran(service.url, octets, body="inline")
    assert base64.b64decode(json.loads(service.asked[0][1])["body"]) == b"\xff\0 text\r\n"


def test_a_large_body_goes_inline(service: Service) -> None:
    text = b"text\xff\r\n" * 20_000
    ran(service.url, b"Subject: x\r\n\r\n" + text, body="inline").assert_untouched()
    assert base64.b64decode(json.loads(service.asked[0][1])["body"]) == text


def test_a_body_that_is_too_large_to_go_inline_passes_nowhere(service: Service) -> None:
    done = ran(service.url, body="inline", largest_inline=5)
    assert done.decision is Decision.DEFER
    assert 'body = "form"' in done.words
    assert not service.asked


def test_the_whole_message_goes_in_a_form(service: Service) -> None:
    octets = b"Subject: x\r\n\r\n" + b"--text\xff\r\n" * 50_000
    ran(service.url, octets, body="form")
    ((fields, body),) = service.asked
    boundary = b"--" + fields["Content-Type"].partition("boundary=")[2].encode()
    before, told, content, end = body.split(boundary)
    assert (before, end) == (b"", b"--\r\n")
    head, _, text = told.removesuffix(b"\r\n").partition(b"\r\n\r\n")
    assert b'name="message"' in head
    assert json.loads(text)["size"] == len(octets)
    head, _, text = content.removesuffix(b"\r\n").partition(b"\r\n\r\n")
    assert b'name="content"; filename="message.eml"\r\nContent-Type: message/rfc822' in head
    assert text == octets


def test_requests_are_signed(service: Service, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    for how in ("none", "inline", "form"):
        ran(service.url, body=how, key_file=str(tmp_path / "key")).assert_untouched()
    for fields, body in service.asked:
        found = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", fields["X-Lonedot-Signature"])
        assert found
        wanted = hmac.new(KEY.encode(), found[1].encode() + b"." + body, hashlib.sha256).hexdigest()
        assert found[2] == wanted


@pytest.mark.parametrize(("text", "words"), [(None, "cannot be read"), ("short", "shorter than 16")])
def test_without_its_key_nothing_is_asked(
    service: Service, tmp_path: Path, text: str | None, words: str
) -> None:
    if text is not None:
        (tmp_path / "key").write_text(text)
    done = ran(service.url, key_file=str(tmp_path / "key"))
    assert done.decision is Decision.DEFER
    assert words in done.words
    assert not service.asked


async def test_a_signature_is_of_its_time(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    posted = Posted(3, lambda: iter((b"a", b"bc")))
    wanted = hmac.new(KEY.encode(), b"1700000000.abc", hashlib.sha256).hexdigest()
    assert await signed(posted, str(tmp_path / "key"), 1_700_000_000.9) == f"t=1700000000,v1={wanted}"


@pytest.mark.parametrize(
    ("status", "decision", "is_fault"),
    [
        (204, Decision.ACCEPT, False),
        (301, Decision.DEFER, True),
        (307, Decision.DEFER, True),
        (403, Decision.DEFER, True),
        (429, Decision.DEFER, False),
        (500, Decision.DEFER, True),
        (503, Decision.DEFER, False),
    ],
)
def test_what_a_status_says(service: Service, status: int, decision: Decision, is_fault: bool) -> None:
    service.status, service.answer = status, b"why\x1b[2J it is so"
    done = ran(service.url)
    assert done.decision is decision
    assert done.entry is not None
    assert bool(done.entry.fault) is is_fault
    assert len(service.asked) == 1
    if is_fault:
        assert f"answers {status}: why [2J it is so" in done.words
        assert "a=b" not in done.words, "a query may hold a secret"


def test_edits_and_verdicts(service: Service) -> None:
    edits = [
        {"edit": "replace-field", "name": "X-N", "value": "2"},
        {"edit": "remove-field", "name": "Subject"},
    ]
    service.answer = json.dumps({"verdict": "next", "edits": edits}).encode()
    assert ran(service.url).octets == b"X-N: 2\r\n\r\ntext\r\n"
    service.answer = b'{"verdict": "reject", "words": "no", "code": 554, "enhanced": "5.7.0"}'
    done = ran(service.url)
    assert (done.decision, done.words) == (Decision.REJECT, "no")


@pytest.mark.parametrize("answer", [b"", b"OK", b"{}", b'{"verdict": "accept"}', b"\xff"])
def test_an_answer_that_is_no_verdict_lets_nothing_pass(service: Service, answer: bytes) -> None:
    service.answer = answer
    done = ran(service.url)
    assert done.decision is Decision.DEFER
    assert "no verdict in JSON" in done.words


def test_an_answer_is_bounded(service: Service) -> None:
    service.answer = b" " * 2000 + b'{"verdict": "next"}'
    done = ran(service.url, largest_answer=1000)
    assert done.decision is Decision.DEFER
    assert "more than 1000 octets" in done.words


def test_every_try_has_the_same_key(service: Service) -> None:
    service.drops = 2
    ran(service.url).assert_untouched()
    keys = {fields["Idempotency-Key"] for fields, _ in service.asked}
    assert (len(service.asked), len(keys)) == (3, 1)


def test_tries_have_an_end(service: Service) -> None:
    service.drops = 100
    done = ran(service.url)
    assert done.decision is Decision.DEFER
    assert len(service.asked) == 3


async def test_connections_are_used_again(service: Service) -> None:
    one = HttpFilter(HttpSettings(service.url))
    for _ in range(5):
        await one(LETTER)
    assert len(service.peers) == 1
    await asyncio.gather(*(one(LETTER) for _ in range(12)))
    await one.close()
    assert len(service.asked) == 17


async def test_a_connection_that_was_closed_meanwhile_costs_no_try(service: Service) -> None:
    one = HttpFilter(HttpSettings(service.url))
    await one(LETTER)
    service.drops = 1  # as a service does that closes just now
    await one(LETTER)
    await one.close()
    assert len(service.peers) == 2
    assert service.drops == 0


async def test_one_that_answers_early_is_heard() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await writer.drain()
        await gone.wait()
        writer.close()

    gone = asyncio.Event()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    poster = Poster(Endpoint(False, "127.0.0.1", port, "/", "x"), "", 1000)
    endless = Posted(1 << 40, lambda: iter(lambda: b"x" * 65536, b""))
    reply = await poster.post(endless, ())
    assert (reply.status, reply.body) == (413, b"big")
    poster.close()
    gone.set()
    server.close()


async def test_what_cannot_be_read_is_no_fault_of_the_service(service: Service) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x"
        raise ValueError("the file is gone")

    poster = Poster(endpoint_of(service.url), "", 1000)
    with pytest.raises(Failure, match="could not be read: the file is gone"):
        await poster.post(Posted(100_000, broken), ())
    assert not service.asked


def test_its_certificate_is_checked(tmp_path: Path) -> None:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "none.pem").write_text("none")
    with serving(context) as service:
        ran(service.url, ca_file=str(tmp_path / "ca.pem")).assert_untouched()
        assert "certificate is not accepted" in ran(service.url).words
        assert "no certificates" in ran(service.url, ca_file=str(tmp_path / "none.pem")).words
        assert len(service.asked) == 1


def test_a_form_says_its_length() -> None:
    kind, posted = form([("a", "", "text/plain", Posted(2, lambda: iter((b"1", b"2"))))])
    octets = b"".join(posted.pieces())
    assert len(octets) == posted.size
    assert kind.partition("boundary=")[2].encode() in octets


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "ftp://x/"}, "write https"),
        ({"url": "https:///x"}, "write https"),
        ({"url": "https://a:b@x/"}, "password"),
        ({"url": "https://x/ä"}, "ASCII"),
        ({"url": "https://x:99999/"}, "url"),
        ({"url": "https://x/", "largest_answer": 0}, "write octets"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        HttpSettings(**settings)  # type: ignore[arg-type]  # some are numbers


# --- the examples of the page -------------------------------------------------------------------------


def example(folder: Path, name: str) -> Path:
    text = PAGE.read_text().split(f"`{name}`:\n\n```", 1)[1]
    path = folder / name
    path.write_text(text.split("\n", 1)[1].split("```", 1)[0])
    return path


@contextlib.contextmanager
def running(command: list[str], port_of: Callable[[bytes], int], **variables: str) -> Iterator[str]:
    """The address of a service once it says its port."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **variables}
    )
    assert process.stdout is not None
    try:
        port = 0
        while not port:
            line = process.stdout.readline()
            assert line, "it ended"
            port = port_of(line)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.peer
def test_the_example_in_node(tmp_path: Path) -> None:
    node = need("node", "nodejs")
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "other").write_text("k" * 20)
    command = [str(node), str(example(tmp_path, "service.js"))]
    with running(command, int, PORT="0", FILTER_KEY=KEY) as url:
        key_file = str(tmp_path / "key")
        ran(url, body="inline", key_file=key_file).assert_added("X-Body-Octets", "6")
        done = ran(url, b"X: y\r\n\r\n", body="inline", key_file=key_file)
        assert (done.decision, done.words) == (Decision.REJECT, "mail without a subject is not taken")
        assert "403: not signed" in ran(url, body="inline", key_file=str(tmp_path / "other")).words


@pytest.mark.peer
def test_the_example_in_php(tmp_path: Path) -> None:
    php = need("php", "php-cli")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [str(php), "-S", f"127.0.0.1:{port}", str(example(tmp_path, "service.php"))]
    with running(command, lambda line: port if b"started" in line else 0) as url:
        large = b"Subject: x\r\n\r\n" + b"text\xff\r\n" * 5000
        ran(url, large, body="form").assert_added("X-Large", str(len(large)))
        ran(url, body="form").assert_untouched()

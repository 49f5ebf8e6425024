"""The framing vectors against the machine alone: framing is judged here, policy (line ends, NUL, long lines) is not.

The machine hands out the text as it came, so a permitted content is compared with the text as it is and with its line
ends repaired; contents that need another repair are judged by the relay's own tests over sockets.
"""

from __future__ import annotations

import re

import msgspec
import pytest

from lonedot.protocol.server import ServerLimits, ServerOptions
from tests.unit.protocol.driver import Driver
from tests.vectors.framing import Vector, Wanted, load_framing, octets_of, pieces_of

VECTORS = load_framing()
OPTIONS = ServerOptions(b"mx.example.org", tls_available=True, limits=ServerLimits(size=2_000_000))
SENDER = "s@sender.test"
COMPARED = {"as-is", "lf>crlf", "cr>crlf", "empty"}


class Client:
    """Takes the steps of a vector against a driver."""

    def __init__(self, vector: Vector, *, octet_by_octet: bool) -> None:
        self.vector = vector
        self.driver = Driver(OPTIONS)
        self.replies: list[bytes] = []
        self.content_replies: list[bytes] = []
        self.octet_by_octet = octet_by_octet
        self.unread = b""

    def send(self, octets: bytes, split: str | list[int] | None = None) -> None:
        pieces = pieces_of(octets, "each" if self.octet_by_octet else split)
        self.unread += self.driver.feed_pieces(pieces)

    def read(self) -> bytes:
        """The next reply; empty when there is none."""
        found = re.match(rb"(?:[0-9]{3}-[^\r\n]*\r\n)*[0-9]{3} [^\r\n]*\r\n", self.unread)
        if found is None:
            assert not self.unread
            return b""
        self.unread = self.unread[found.end() :]
        return found[0]

    def open(self, how: str, mail: str) -> None:
        dialogue = ["EHLO client.test"]
        if how in {"rcpt", "data"}:
            dialogue += [f"MAIL FROM:<{SENDER}>{mail}", f"RCPT TO:<{self.vector.id}.a@dest.test>"]
        if how == "data":
            dialogue.append("DATA")
        for command in dialogue:
            self.send(command.encode() + b"\r\n")
            assert self.read()[:1] in {b"2", b"3"}, command

    def run(self) -> None:
        for step in self.vector.steps:
            if step.open:
                self.open(step.open, step.mail)
            elif step.send is not None:
                self.send(octets_of(step.send, sender=SENDER, size_limit=OPTIONS.limits.size), step.split)
            elif step.read:
                for _ in range(step.read):
                    answer = self.read()
                    if not answer:
                        assert step.optional or self.driver.is_closed, f"{self.vector.id} hangs"
                        return
                    if step.content:
                        self.content_replies.append(answer)
                    if step.want and answer[:1].decode() not in step.want:
                        return
            elif step.silence_ms:
                assert not self.unread, f"{self.vector.id}: {self.unread!r} out of turn"
            elif step.starttls:
                self.unread += self.driver.start_tls()


def is_permitted(content: bytes, wanted: list[Wanted], match: str) -> bool:
    """Whether one of the permitted contents is this text, as it came or with its line ends repaired."""
    judged = [one for one in wanted if one.any or one.label in COMPARED]
    if not judged:
        return True  # only other repairs are permitted: not the machine's business
    if re.search(rb"\0", content) or re.search(rb"[^\r\n]{999}", content):
        return True  # likewise
    repaired = re.sub(rb"\r\n|\r|\n", b"\r\n", content)
    for form in (content, repaired, repaired + b"\r\n"):
        _, _, body = form.partition(b"\r\n\r\n")
        if match == "tail":
            if any(one.any or form.endswith(one.text.encode("latin-1")) for one in judged):
                return True
        elif any(one.matches(body) or one.matches(form if match != "body" else body) for one in judged):
            return True
    return False


@pytest.mark.parametrize("octet_by_octet", [False, True], ids=["as-split", "each"])
@pytest.mark.parametrize("vector", VECTORS, ids=[vector.id for vector in VECTORS])
def test_vector(vector: Vector, octet_by_octet: bool) -> None:
    if octet_by_octet and vector.id in {"F009", "F096"}:
        pytest.skip("over 1 MB in single octets: the same code as in the others, for seconds")
    client = Client(vector, octet_by_octet=octet_by_octet)
    client.run()
    messages = client.driver.messages
    assert not client.unread or client.driver.is_closed, f"unasked: {client.unread!r}"
    for message in messages:
        assert b".smug" not in message.mail.reverse_path.octets
        assert not any(b".smug" in recipient.address.octets for recipient in message.recipients)
    found = {
        m.recipients[0].address.octets.removeprefix(f"{vector.id}.".encode())[:1].decode(): m
        for m in messages
    }
    assert len(found) == len(messages)
    if vector.default == "nothing":
        assert not messages
    if vector.default == "delivered":
        assert set(found) == set(vector.allow[0].msgs)
    if not found:
        return
    fitting = [outcome for outcome in vector.allow if set(outcome.msgs) == set(found)]
    if not fitting:
        # Every outcome with a message is refused by policy (NUL, line ends); the frame must be right all the same.
        assert vector.default == "refused" and len(found) == 1
        return
    assert any(
        all(is_permitted(found[key].content, outcome.msgs[key], vector.match) for key in found)
        for outcome in fitting
    ), [message.content[-200:] for message in messages]


def test_the_vectors_are_all_there() -> None:
    assert len(VECTORS) == 97
    assert msgspec.json.decode(msgspec.json.encode(VECTORS[0]), type=Vector) == VECTORS[0]

"""A capture that holds anything at all: the reading ends, with reports or with a fault, and stays bounded."""

from __future__ import annotations

from io import BytesIO

from hypothesis import given
from hypothesis import strategies as st

from lonedot.diagnosis.capture.files import CaptureFault, Frame, read_frames
from lonedot.diagnosis.capture.packets import PacketReader
from lonedot.diagnosis.sniffing import Sniffer
from lonedot.diagnosis.sniffing_tell import page, tell_session
from lonedot.diagnosis.sniffing_values import SessionReport
from tests.unit.diagnosis.capture.wire import Packet, Talk, pcap, pcapng

LINKS = st.sampled_from([0, 1, 12, 101, 108, 113, 228, 276, 999])
WORDS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"220 mx\r\n", b"EHLO c\r\n", b"250-mx\r\n", b"250 PIPELINING\r\n", b"MAIL FROM:<a@b>\r\n", b"250 ok\r\n",
            b"RCPT TO:<a@b>\r\n", b"DATA\r\n", b"354 go\r\n", b"text\r\n.\r\n", b"text\n.\r\n", b"\r\n.", b"\r",
            b"STARTTLS\r\n", b"\x16\x03\x01", b"\x15\x03\x01\x00\x02\x02", b"BDAT 3\r\n", b"XEXCH50 4 2\r\n",
            b"QUIT\r\n", b"AUTH LOGIN\r\n", b"334 x\r\n", b"LHLO c\r\n", b"BDAT 999999999999 LAST\r\n", b"\n", b".",
        ]
    ),
)  # fmt: skip
SAYINGS = st.lists(st.tuples(st.integers(0, 1), WORDS, st.integers(-40, 40)), max_size=40)


def sound(reports: list[SessionReport]) -> None:
    for report in reports:
        assert list(tell_session(report))
        assert "".join(page([report], "t"))
        assert len(report.steps) <= 200
        assert len(report.findings) <= 40


def talked(sayings: list[tuple[int, bytes, int]], *, connected: bool) -> Talk:
    talk = Talk()
    if connected:
        talk.connect()
    for side, words, slip in sayings:
        # A slip: the segment stands elsewhere than it should, so there are holes, overlaps and doubles.
        talk.segment(side, 0x10, words, sequence=talk.numbers[side] + (slip if abs(slip) > 30 else 0))
        talk.numbers[side] += len(words)
    return talk


@given(st.binary(max_size=400), st.sampled_from([b"", pcap([]), pcapng([])]))
def test_any_file(octets: bytes, start: bytes) -> None:
    try:
        sound(list(Sniffer().read(read_frames(BytesIO(start + octets)))))
    except CaptureFault:
        pass


@given(LINKS, st.lists(st.binary(max_size=120), max_size=8))
def test_any_frame(link: int, frames: list[bytes]) -> None:
    reader = PacketReader()
    for number, octets in enumerate(frames, 1):
        reader.read(Frame(number, 0.0, link, octets, len(octets)))


@given(SAYINGS, st.booleans(), st.booleans())
def test_any_conversation(sayings: list[tuple[int, bytes, int]], connected: bool, closed: bool) -> None:
    talk = talked(sayings, connected=connected)
    if closed:
        talk.close(1)
    sound(list(Sniffer().read(read_frames(BytesIO(pcap(talk.packets))))))


@given(SAYINGS, st.data())
def test_octets_that_were_changed(sayings: list[tuple[int, bytes, int]], data: st.DataObject) -> None:
    packets = talked(sayings, connected=True).packets
    changed: list[Packet] = []
    for packet in packets:
        octets = bytearray(packet.ip)
        if data.draw(st.booleans()):
            octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
        changed.append(Packet(at=packet.at, ip=bytes(octets)))
    sound(list(Sniffer().read(read_frames(BytesIO(pcap(changed))))))


@given(SAYINGS)
def test_what_is_given_is_what_was_said(sayings: list[tuple[int, bytes, int]]) -> None:
    """Without slips nothing is missing, whatever is said."""
    talk = talked([(side, words, 0) for side, words, _ in sayings], connected=True).close(0)
    (report,) = Sniffer().read(read_frames(BytesIO(pcap(talk.packets))))
    assert report.octets_missing == 0
    assert report.retransmissions == 0

"""Every container and link layer tells the same session; fragments, order, loss and wrap-around are undone."""

from __future__ import annotations

import random
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.diagnosis.capture.files import CaptureFault, read_frames
from lonedot.diagnosis.sniffing_values import Code
from tests.unit.diagnosis.capture.wire import (
    CLIENT,
    SERVER,
    Packet,
    Talk,
    ip_packet,
    judged,
    pcap,
    pcapng,
    sniffed,
)

TEXT = b"Subject: t\r\n\r\n" + b"".join(b"line %d of the text\r\n" % n for n in range(400)) + b".\r\n"


def clean(*, v6: bool = False) -> Talk:
    return Talk(v6=v6).hello().envelope().c(TEXT).s(b"250 ok\r\n").bye()


LINKS = [0, 1, 101, 108, 113, 228, 276, 1000]


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("link", LINKS)
def test_link_layers(link: int, v6: bool) -> None:
    (report,) = sniffed(pcap(clean(v6=v6).packets, link=link))
    assert (report.code, report.messages, report.protocol) == (None, 1, "ESMTP")


@pytest.mark.parametrize("order", ["<", ">"])
def test_containers(order: str) -> None:
    packets = clean().packets
    stored = (
        pcap(packets, order=order),
        pcap(packets, order=order, nano=True),
        pcapng(packets, order=order),
        pcapng(packets, order=order, power=6),
    )
    for capture in stored:
        (report,) = sniffed(capture)
        assert (report.code, report.messages) == (None, 1)
        assert report.began_at == pytest.approx(1_800_000_000.0, abs=0.01)


@pytest.mark.parametrize(
    "octets",
    [b"", b"not a capture", pcap([])[:10], pcap([]) + b"\xff" * 16, pcapng([])[:30], pcapng([]) + b"\1" * 9],
)
def test_no_capture(octets: bytes) -> None:
    with pytest.raises(CaptureFault):
        list(read_frames(BytesIO(octets)))


@given(st.integers(0, 2**32))
def test_any_order_and_doubles_change_nothing(seed: int) -> None:
    """Neighbours swapped and segments sent twice: reordering as networks and captures do it."""
    chance = random.Random(seed)
    packets = clean().packets
    for place in range(3, len(packets) - 4):
        if chance.random() < 0.3:
            packets[place], packets[place + 1] = packets[place + 1], packets[place]
    packets = [p for packet in packets for p in ([packet, packet] if chance.random() < 0.1 else [packet])]
    (report,) = sniffed(pcap(packets))
    assert (report.code, report.messages, report.octets_missing) == (None, 1, 0)


@pytest.mark.parametrize("v6", [False, True])
def test_fragments(v6: bool) -> None:
    talk = clean(v6=v6)
    ends = talk.ends
    head = 40 if v6 else 20
    packets: list[Packet] = []
    for packet in talk.packets:
        payload = packet.ip[head:]
        if len(payload) < 600:
            packets.append(packet)
            continue
        cut = 400
        pieces = [
            ip_packet(*ends, 6, payload[:cut], more=True),
            ip_packet(*ends, 6, payload[cut:], fragment=cut),
        ]
        packets += [Packet(at=packet.at, ip=piece) for piece in reversed(pieces)]
    (report,) = sniffed(pcap(packets))
    assert (report.code, report.messages, report.octets_missing) == (None, 1, 0)


def test_a_lost_packet_is_a_hole_and_no_fault() -> None:
    packets = clean().packets
    largest = max(packets, key=lambda packet: len(packet.ip))
    packets.remove(largest)
    (report,) = sniffed(pcap(packets))
    assert (report.code, report.is_fault, report.messages) == (Code.LOSS, False, 1)
    assert report.octets_missing == len(largest.ip) - 40


@given(st.integers(3, 22))
def test_whatever_packet_is_lost_nobody_is_accused(place: int) -> None:
    packets = clean().packets
    del packets[min(place, len(packets) - 1)]
    assert not any(report.is_fault for report in sniffed(pcap(packets)))


@given(st.integers(1, 24))
def test_a_start_in_mid_stream_accuses_nobody(place: int) -> None:
    for report in sniffed(pcap(clean().packets[place:])):
        assert not report.is_fault


@given(st.integers(54, 600))
def test_a_snap_length_accuses_nobody(snap: int) -> None:
    (report,) = sniffed(pcap(clean().packets, snap=snap))
    assert not report.is_fault


def test_other_ports_are_found_and_other_protocols_left_alone() -> None:
    found = Talk(port=10025).hello().envelope().c(TEXT).s(b"250 ok\r\n").bye()
    web = (
        Talk(port=80, sport=40001)
        .connect()
        .c(b"GET / HTTP/1.1\r\n\r\n")
        .s(b"HTTP/1.1 200 OK\r\n\r\n")
        .close()
    )
    (report,) = sniffed(pcap(found.packets + web.packets))
    assert report.server == f"{SERVER}:10025"
    assert report.client.startswith(CLIENT)
    assert sniffed(pcap(found.packets), 25) == []


def test_a_port_used_again_is_a_new_session() -> None:
    one, two = clean(), clean()
    assert [report.messages for report in sniffed(pcap(one.packets + two.packets))] == [1, 1]


def test_a_capture_that_breaks_off_is_told_behind_what_it_holds() -> None:
    capture = pcap(clean().packets)
    frames = read_frames(BytesIO(capture[:-5]))
    count = 0
    with pytest.raises(CaptureFault, match="ends in the middle"):
        for _ in frames:
            count += 1
    assert count == len(clean().packets) - 1


def test_clean_is_clean() -> None:
    assert judged(clean()).verdict == "clean, 1 message taken"

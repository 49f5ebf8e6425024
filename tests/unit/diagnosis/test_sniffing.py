"""Each fault of a session is recognised, and nothing else is."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from lonedot.diagnosis.sniffing_tell import page, tell_session, verdict_line
from lonedot.diagnosis.sniffing_values import VERDICTS, Code
from tests.unit.diagnosis.capture.wire import CLIENT, SERVER, Packet, Talk, ip_packet, judged, pcap, sniffed

HEAD = b"Subject: t\r\n\r\n"


def started() -> Talk:
    return Talk().hello().envelope()


def codes(talk: Talk) -> set[Code]:
    return {finding.code for finding in judged(talk).findings}


def test_the_story() -> None:
    text = HEAD + b"%PDF-1.4\r\n" + b"x" * 3000 + b"\r\n%%EOF\n.\r\n"
    report = judged(started().c(text).wait(600).close(1))
    assert report.code is Code.END_WRONG
    finding = report.findings[0]
    assert "%%EOF LF . CR LF" in finding.words
    assert finding.offset == len(text) - 4
    assert text[finding.offset :] == b"\n.\r\n"
    assert report.end_octets.endswith("%%EOF LF . CR LF")
    assert report.last_wait is not None
    assert report.last_wait.waiting == "both"
    assert report.last_wait.seconds == pytest.approx(600, abs=1)
    assert "server closed" in report.verdict


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (b"\n.\r\n", "LF . CR LF"),
        (b"\n.\n", "LF . LF"),
        (b"\r\n.\n", "CR LF . LF"),
        (b"\r.\r\n", "CR . CR LF"),
        (b"\r.\r", "CR . CR"),
        (b"\r\n.\r", "CR LF . CR"),
        (b"\r\n.", "CR LF ."),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 1400])
def test_every_wrong_end(end: bytes, told: str, size: int) -> None:
    finishes: tuple[Callable[[Talk], Talk], ...] = (
        lambda talk: talk.wait(60).close(1),
        lambda talk: talk.wait(60),
        lambda talk: talk.reset(0),
    )
    for finish in finishes:
        report = judged(finish(started().c(HEAD + b"text" + end, size)))
        assert report.code is Code.END_WRONG, report.verdict
        assert f"text {told} at octet 18" in report.verdict


def test_a_server_that_gives_up_with_a_reply() -> None:
    report = judged(started().c(HEAD + b"text\n.\r\n").wait(300).s(b"421 4.4.2 timeout\r\n").close(1))
    assert report.code is Code.END_WRONG
    assert "421 4.4.2 timeout" in report.verdict


def test_a_lax_server() -> None:
    report = judged(started().c(HEAD + b"text\n.\n").s(b"250 ok\r\n").bye())
    assert report.code is Code.END_ACCEPTED
    assert report.messages == 1


@pytest.mark.parametrize("size", [1, 3, 1400])
@pytest.mark.parametrize("end", [b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r"])
def test_smuggling(end: bytes, size: int) -> None:
    hidden = b"MAIL FROM:<x@evil.example>\r\nRCPT TO:<y@mx.example>\r\nDATA\r\nboo\r\n.\r\n"
    report = judged(started().c(HEAD + b"text" + end + hidden, size).s(b"250 ok\r\n").bye())
    assert report.code is Code.SMUGGLING


@pytest.mark.parametrize("size", [1, 1400])
def test_bare_line_ends_are_counted_with_the_first_offset(size: int) -> None:
    report = judged(started().c(HEAD + b"one\ntwo\rthree\r\n.\r\n", size).s(b"250 ok\r\n").bye())
    assert report.code is Code.BARE_LINE_END
    assert report.findings[0].offset == len(HEAD) + 3
    assert "2 times" in report.findings[0].words


@pytest.mark.parametrize("size", [1, 2, 1400])
def test_dots_that_were_not_doubled(size: int) -> None:
    report = judged(started().c(HEAD + b"one\r\n.two\r\n.\r\n", size).s(b"250 ok\r\n").bye())
    assert report.code is Code.NOT_STUFFED
    assert report.findings[0].offset == len(HEAD) + 3


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 1400])
def test_stuffed_text_is_clean_however_it_is_cut(size: int) -> None:
    text = b"..first\r\nSubject: t\r\n\r\n..\r\n...\r\n\r\n..x\r\nend.\r\n.\r\n"
    assert codes(started().c(text, size).s(b"250 ok\r\n").bye()) == set()


def test_a_lone_dot_ends_the_message_early() -> None:
    talk = (
        started().c(HEAD + b"one\r\n.\r\nthe rest of the text\r\n.\r\n").s(b"250 ok\r\n500 what\r\n").close()
    )
    assert judged(talk).code is Code.END_EARLY


def test_an_end_in_pieces_that_is_never_answered() -> None:
    talk = started().c(HEAD + b"text\r\n").c(b".\r\n").wait(300).close(0)
    assert judged(talk).code is Code.END_SPLIT
    assert codes(started().c(HEAD + b"text\r\n").c(b".\r\n").s(b"250 ok\r\n").bye()) == set()


def test_pipelining_that_was_not_offered() -> None:
    both = b"MAIL FROM:<a@c.example>\r\nRCPT TO:<b@mx.example>\r\n"
    answers = b"250 ok\r\n250 ok\r\n"
    assert codes(Talk().hello(b"250 HELP\r\n").c(both).s(answers).bye()) == {Code.PIPELINING}
    assert codes(Talk().hello().c(both).s(answers).bye()) == set()


def test_text_before_the_354_and_words_before_the_banner() -> None:
    talk = (
        Talk().hello().c(b"MAIL FROM:<a@c.example>\r\nRCPT TO:<b@mx.example>\r\nDATA\r\n" + HEAD + b".\r\n")
    )
    report = judged(talk.s(b"250 ok\r\n250 ok\r\n354 go\r\n").s(b"250 ok\r\n").bye())
    assert report.code is Code.PIPELINING
    assert report.messages == 1
    talk = Talk().connect().c(b"EHLO c.example\r\n").s(b"220 mx\r\n").s(b"250 mx\r\n").bye()
    assert codes(talk) == {Code.PIPELINING}


def test_nobody_answers() -> None:
    report = judged(Talk().hello().c(b"MAIL FROM:<a@c.example>\r\n").wait(300).close(0))
    assert report.code is Code.UNANSWERED
    assert report.last_wait is not None
    assert report.last_wait.waiting == "client"
    assert judged(Talk().connect().wait(60).close(0)).code is Code.UNANSWERED
    assert judged(started().c(HEAD + b"x\r\n.\r\n").wait(2).reset(1)).code is Code.RESET


def test_a_text_that_stops() -> None:
    report = judged(started().c(HEAD + b"half a li").wait(300).close(0))
    assert report.code is Code.END_MISSING
    assert judged(started().c(HEAD + b"half a li").wait(1)).code is Code.OPEN


def test_a_slow_answer_is_a_notice() -> None:
    report = judged(started().c(HEAD + b".\r\n").wait(45).s(b"250 ok\r\n").bye())
    assert (report.code, report.is_fault) == (Code.SLOW, False)
    assert report.longest_wait is not None
    assert report.longest_wait.waiting == "client"


def test_firewalls_that_blot_out() -> None:
    stars = Talk().connect().s(b"220 *****************2***0*****\r\n").c(b"HELO c\r\n").s(b"250 ok\r\n").bye()
    assert judged(stars).code is Code.BANNER_MANGLED
    assert judged(Talk().hello(b"250-XXXXXXXA\r\n250 HELP\r\n").bye()).code is Code.BANNER_MANGLED
    verb = Talk().connect().s(b"220 mx\r\n").c(b"XXXX c.example\r\n").s(b"500 what\r\n").bye()
    assert judged(verb).code is Code.BANNER_MANGLED


def test_no_reply_and_no_command() -> None:
    assert judged(Talk().connect().s(b"SSH-2.0-x\r\n").close(0)).code is Code.REPLY_MALFORMED
    odd = Talk().hello().c(b"\x01\x02\x03\r\n").s(b"500 what\r\n").bye()
    assert judged(odd).code is Code.COMMAND_MALFORMED


def test_the_verbs_of_exchange() -> None:
    talk = Talk().hello().c(b"X-LINK2STATE FIRST CHUNK={x}\r\n").s(b"500 5.5.1 what\r\n").bye()
    assert judged(talk).code is Code.EXCHANGE_VERB
    blob = Talk().hello().c(b"XEXCH50 6 2\r\n").s(b"354 go\r\n").c(b"\0\1\n\r.\r").s(b"250 ok\r\n").bye()
    assert codes(blob) == set()


def test_size() -> None:
    told = Talk().hello().c(b"MAIL FROM:<a@c.example> SIZE=2000000\r\n").s(b"552 5.3.4 too big\r\n").bye()
    assert judged(told).code is Code.SIZE
    full = Talk().hello().c(b"MAIL FROM:<a@c.example>\r\n").s(b"452 4.2.2 full\r\n").bye()
    assert judged(full).code is Code.REFUSED


def test_tls() -> None:
    talk = Talk().hello().c(b"STARTTLS\r\n").s(b"220 go\r\n")
    ok = (
        talk.c(b"\x16\x03\x01\x00\x05hello")
        .s(b"\x16\x03\x03\x00\x05hello")
        .c(b"\x17\x03\x03\x00\x01x")
        .close()
    )
    assert (judged(ok).code, judged(ok).is_fault) == (Code.TLS, False)
    talk = Talk().hello().c(b"STARTTLS\r\n").s(b"220 go\r\n")
    broken = talk.c(b"\x16\x03\x01\x00\x05hello").s(b"\x15\x03\x03\x00\x02\x02\x28").close(1)
    assert judged(broken).code is Code.TLS_FAILED
    assert "alert 40" in judged(broken).verdict
    assert (
        judged(Talk(port=465).connect().c(b"\x16\x03\x01\x00\x02hi").s(b"\x16\x03\x03\x00\x01x").close()).code
        is Code.TLS
    )


def test_a_black_hole_is_no_fault_of_the_protocol() -> None:
    talk = started()
    number = talk.numbers[0]
    for _ in range(4):
        talk.wait(3).segment(0, 0x10, b"x" * 1400, sequence=number)
    router = ip_packet(
        "198.51.100.1", CLIENT, 1,
        struct.pack("!BBHHH", 3, 4, 0, 0, 1300) + ip_packet(CLIENT, SERVER, 6, struct.pack("!HHI", 40000, 25, 0)),
    )  # fmt: skip
    talk.packets.append(Packet(at=talk.at, ip=router))
    report = judged(talk.wait(300).reset(0))
    assert report.code is Code.BLACK_HOLE
    assert "1400" in report.verdict
    assert "1300" in report.verdict


def test_no_connection() -> None:
    talk = Talk()
    for _ in range(3):
        talk.segment(0, 2)
        talk.wait(3)
    assert judged(talk).code is Code.NO_CONNECTION


def test_lmtp_answers_for_each_recipient() -> None:
    talk = Talk(port=24).connect().s(b"220 mx LMTP\r\n").c(b"LHLO c\r\n").s(b"250-mx\r\n250 PIPELINING\r\n")
    talk.c(b"MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
    talk.s(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n").c(HEAD + b".\r\n").s(b"250 ok\r\n250 ok\r\n").bye()
    report = judged(talk)
    assert (report.code, report.protocol) == (None, "LMTP")


def test_chunks() -> None:
    talk = (
        Talk().hello(b"250-CHUNKING\r\n250 PIPELINING\r\n").c(b"MAIL FROM:<a@c.example>\r\n").s(b"250 ok\r\n")
    )
    talk.c(b"RCPT TO:<b@d.example>\r\n").s(b"250 ok\r\n").c(b"BDAT 6\r\na\nb\r\n.BDAT 1 LAST\r\n\n")
    report = judged(talk.s(b"250 ok\r\n").s(b"250 ok\r\n").bye())
    assert (report.code, report.messages) == (None, 1)


def test_no_secret_is_shown() -> None:
    talk = Talk().hello(b"250 AUTH PLAIN LOGIN\r\n").c(b"AUTH PLAIN c2VjcmV0\r\n").s(b"535 no\r\n")
    talk.c(b"AUTH LOGIN\r\n").s(b"334 VXNlcg==\r\n").c(b"c2VjcmV0\r\n").s(b"334 UGFzcw==\r\n").c(
        b"c2VjcmV0\r\n"
    )
    report = judged(talk.s(b"235 ok\r\n").bye())
    assert not report.is_fault
    assert "c2VjcmV0" not in repr(report)


@pytest.mark.parametrize("answer", [b"535 no\r\n", b"334 VXNlcg==\r\n", b"235 ok\r\n"])
def test_no_secret_is_shown_of_a_client_that_does_not_wait(answer: bytes) -> None:
    hasty = Talk().hello(b"250 AUTH PLAIN LOGIN\r\n").c(b"AUTH LOGIN\r\nc2VjcmV0\r\nc2VjcmV0\r\n").s(answer)
    report = judged(hasty.s(b"535 no\r\n").bye())
    assert report.code is Code.PIPELINING
    assert "c2VjcmV0" not in repr(report)
    early = (
        Talk().connect().c(b"EHLO c\r\nAUTH PLAIN c2VjcmV0\r\n").s(b"220 mx\r\n250 mx\r\n535 no\r\n").bye()
    )
    assert "c2VjcmV0" not in repr(judged(early))


def test_refusals_are_told_in_the_words_of_the_server() -> None:
    closed = Talk().connect().s(b"554 no\r\n").c(b"QUIT\r\n").s(b"221 bye\r\n").close(1)
    assert judged(closed).verdict == "the server refused: the connection was answered with 554 no"
    idle = Talk().hello().wait(20).s(b"421 4.4.2 idle\r\n").close(1)
    assert judged(idle).verdict == "the server refused: the server said 421 4.4.2 idle"
    assert not judged(idle).is_fault
    gone = Talk().hello().c(b"QUIT\r\n").reset(0)
    assert judged(gone).code is None


def test_every_verdict_has_a_row() -> None:
    assert set(VERDICTS) == set(Code)


def test_told_and_written() -> None:
    (report,) = sniffed(pcap(started().c(HEAD + b"<b>\n.\r\n").wait(60).close(1).packets))
    assert "FAULT" in verdict_line(report)
    assert any("server for CR LF . CR LF" in line.text for line in tell_session(report))
    text = "".join(page([report], "<x>"))
    assert "&lt;x&gt;" in text
    assert "<b>\n" not in text.replace("<b>end", "")
    assert "http" not in text.replace("http-equiv", "")

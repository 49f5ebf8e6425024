"""What a capture says of one session, as values, and the table of verdicts.

A verdict is a row of `VERDICTS`: to add one, add a member of `Code`, its row, and the place in `sniffing_dialogue` or
`sniffing` that sees it. The rows stand in order of weight: the first that holds is the verdict of the session.
"""

from __future__ import annotations

import enum

import msgspec

__all__ = ["VERDICTS", "Code", "Finding", "SessionReport", "Step", "Verdict", "Wait", "Weight"]


class Weight(enum.Enum):
    """How bad it is."""

    FAULT = "fault"
    """The cause of trouble, or trouble."""
    NOTICE = "notice"
    """Worth knowing; no fault of either side by itself."""


class Code(enum.Enum):
    """What was recognised."""

    END_WRONG = "end-of-data-wrong"
    SMUGGLING = "smuggling"
    END_EARLY = "end-of-data-early"
    END_SPLIT = "end-of-data-split"
    END_ACCEPTED = "wrong-end-of-data-accepted"
    NOT_STUFFED = "dot-not-stuffed"
    BARE_LINE_END = "bare-line-end"
    EXCHANGE_VERB = "exchange-verb"
    BLACK_HOLE = "mtu-black-hole"
    BANNER_MANGLED = "mangled-by-firewall"
    REPLY_MALFORMED = "reply-malformed"
    COMMAND_MALFORMED = "command-malformed"
    TLS_FAILED = "tls-failed"
    SIZE = "size-over-limit"
    PIPELINING = "pipelining"
    END_MISSING = "end-of-data-missing"
    NO_CONNECTION = "no-connection"
    UNANSWERED = "unanswered"
    RESET = "reset"
    SLOW = "slow-answer"
    REFUSED = "refused"
    TLS = "tls"
    LOSS = "capture-incomplete"
    MID_STREAM = "began-before-capture"
    OPEN = "still-open"


class Verdict(msgspec.Struct, frozen=True):
    """A row of the table."""

    weight: Weight
    title: str
    cause: str
    """Why it happens, as far as it is known."""
    action: str
    """What to do."""


_F, _N = Weight.FAULT, Weight.NOTICE

VERDICTS: dict[Code, Verdict] = {
    Code.END_WRONG: Verdict(
        _F,
        "the end of data is wrong",
        "Text whose last line does not end in CR LF was followed by `. CR LF`: the sender did not end the line. "
        "RFC 5321 §4.1.1.4 ends a message at CR LF . CR LF and at nothing else.",
        "Mend the sender, or the sink that changed the text before it: the last line must end in CR LF.",
    ),
    Code.SMUGGLING: Verdict(
        _F,
        "a message is hidden behind a wrong end of data",
        "Inside the text stands what a lax server takes for the end of data, and commands behind it.",
        "Refuse bare CR and bare LF at the border; treat the sender as hostile until it is explained.",
    ),
    Code.END_EARLY: Verdict(
        _F,
        "a line of one dot ended the message before its end",
        "The sender does not double the dot of a line that begins with one (RFC 5321 §4.5.2).",
        "Mend the sender: it must put a second dot before each dot that begins a line.",
    ),
    Code.END_SPLIT: Verdict(
        _F,
        "the end of data came in pieces and was not recognised",
        "A middlebox, or the server, looks for CR LF . CR LF within one segment.",
        "Switch the inspection of SMTP off on the firewall between the two, or mend the server.",
    ),
    Code.END_ACCEPTED: Verdict(
        _F,
        "the server took a wrong end of data for the end",
        "A lax server: what is text for one server is a new message for it.",
        "Mend the sender, and make the server strict: this is the hole that smuggling uses.",
    ),
    Code.NOT_STUFFED: Verdict(
        _F,
        "dots that begin a line are not doubled",
        "The sender leaves dot transparency out (RFC 5321 §4.5.2): the receiver removes a dot of the text.",
        "Mend the sender.",
    ),
    Code.BARE_LINE_END: Verdict(
        _F,
        "lines end in a bare CR or a bare LF",
        "The sender, or something that changed the text before it, wrote line ends of a file (RFC 5321 §2.3.8).",
        "Mend the sender; a relay in between can make the text canonical.",
    ),
    Code.EXCHANGE_VERB: Verdict(
        _F,
        "the verbs of Exchange servers cause trouble",
        "XEXCH50 and X-LINK2STATE are meant for servers of one organisation, and were refused here.",
        "Let the sender not use them towards this server, or let the server not offer them.",
    ),
    Code.BLACK_HOLE: Verdict(
        _F,
        "large packets do not get through (MTU black hole)",
        "Small segments were acknowledged and large ones were sent again and again: no fault of SMTP. A peer that "
        "vanished in this moment looks the same.",
        "Let ICMP `fragmentation needed` through, or lower the MSS on the way (a VPN, PPPoE).",
    ),
    Code.BANNER_MANGLED: Verdict(
        _F,
        "a firewall changes what is said",
        "Banners and verbs are blotted out with `*` or `X`: an inspection of SMTP (`fixup`, `inspect esmtp`).",
        "Switch that inspection off on the firewall.",
    ),
    Code.REPLY_MALFORMED: Verdict(
        _F,
        "what the server said is no reply",
        "No SMTP server listens there, or something in between writes into the stream (RFC 5321 §4.2).",
        "Look at the octets and at who listens at that port.",
    ),
    Code.COMMAND_MALFORMED: Verdict(
        _F,
        "what the client said is no command",
        "A client that speaks something else, or text that it took for commands.",
        "Look at the octets.",
    ),
    Code.TLS_FAILED: Verdict(
        _F,
        "TLS did not start",
        "The handshake was broken off: versions, ciphers or a certificate that one side does not take.",
        "Look at the alert, and at the certificate and the versions of both sides.",
    ),
    Code.SIZE: Verdict(
        _F,
        "the message is larger than the server takes",
        "The server's limit (SIZE, RFC 1870) is below the size of the message.",
        "Raise the limit, or send less in one message.",
    ),
    Code.PIPELINING: Verdict(
        _F,
        "the client spoke before it might",
        "Commands were sent before the answer to the one before, where the server had not offered PIPELINING, or "
        "behind a command that must be the last of its group (RFC 2920 §3.1).",
        "Switch pipelining off on the client.",
    ),
    Code.END_MISSING: Verdict(
        _F,
        "the end of data never came",
        "The client stopped in the middle of the message.",
        "Look at the client, and at what it waited for.",
    ),
    Code.NO_CONNECTION: Verdict(
        _F,
        "no connection",
        "Nobody listens there, or a firewall drops the packets.",
        "Look at the server's listeners and the firewalls between.",
    ),
    Code.UNANSWERED: Verdict(
        _F,
        "the server never answered",
        "The server hangs, or its answer was lost on the way.",
        "Look at the server at this moment: a slow check, a full disk, a resolver.",
    ),
    Code.RESET: Verdict(
        _F,
        "the connection was broken off",
        "One side, or a middlebox in its name, sent RST in the middle of the session.",
        "Look at the side that did, and at firewalls with short time-outs.",
    ),
    Code.SLOW: Verdict(
        _N,
        "an answer took long",
        "A slow check on the server, or a deliberate delay.",
        "Look at what the server does at this stage.",
    ),
    Code.REFUSED: Verdict(
        _N, "the server refused", "The reply says it in the server's own words.", "Read it."
    ),
    Code.TLS: Verdict(
        _N,
        "TLS begins",
        "What follows cannot be read in a capture.",
        "Use the transcript of one of the sides.",
    ),
    Code.LOSS: Verdict(
        _N,
        "the capture has holes",
        "Packets were not caught, or the snap length cut them; what stands in them is not judged.",
        "Capture again with `-s 0` and a larger buffer.",
    ),
    Code.MID_STREAM: Verdict(
        _N, "the session began before the capture", "Its first part is unknown.", "Begin the capture earlier."
    ),
    Code.OPEN: Verdict(
        _N, "the capture ends before the session", "What came later is unknown.", "Capture longer."
    ),
}

WEIGHT_ORDER = {code: place for place, code in enumerate(VERDICTS)}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was recognised, and where."""

    code: Code
    weight: Weight
    words: str
    at: float
    """Seconds since the epoch."""
    frame: int
    """Number of the frame in the capture; 0: none in particular."""
    offset: int | None = None
    """Octets before it: in the message, or in what its side said when it is no message."""
    octets: str = ""
    """The octets themselves with what stands around them, line ends by name."""


class Step(msgspec.Struct, frozen=True):
    """One line of the sequence picture."""

    at: float
    side: str
    """`client` or `server`: who said it; empty for what is no saying."""
    text: str
    is_fault: bool = False


class Wait(msgspec.Struct, frozen=True):
    """Who waited for whom."""

    seconds: float
    waiting: str
    """Who waited: `client` or `server`; `both` when each took it that the other's turn had come."""
    for_what: str


class SessionReport(msgspec.Struct, frozen=True, kw_only=True):
    """One session."""

    number: int
    client: str
    server: str
    protocol: str
    """`SMTP`, `ESMTP` or `LMTP`."""
    began_at: float
    ended_at: float
    verdict: str
    """One line."""
    code: Code | None
    """Of the verdict; None when nothing was found."""
    is_fault: bool
    findings: tuple[Finding, ...]
    steps: tuple[Step, ...]
    steps_left_out: int
    """Steps in the middle that were not kept."""
    messages: int
    """Messages that the server took."""
    longest_wait: Wait | None
    last_wait: Wait | None
    """What was waited for when the session ended; None when nothing was owed."""
    end_octets: str
    """The last octets of the last text that the client sent, line ends by name."""
    retransmissions: int
    octets_missing: int
    """Octets that the capture does not hold."""

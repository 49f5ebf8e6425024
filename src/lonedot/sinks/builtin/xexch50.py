"""XEXCH50 and X-LINK2STATE: what Exchange servers say to each other is taken from peers that may, and dropped.

Two sinks with the same settings: `xexch50_offer` at `helo` tells peers of the verbs, `xexch50` at `verb` answers them.

Rules a change here must keep:
1. Nothing of a peer that may not is parsed: the length of an unauthenticated XEXCH50 was how such servers were taken
   over (CVE-2003-0714), as was the chunk of X-LINK2STATE (CVE-2005-0560).
2. A length is a number of a few digits, judged before anything is read; what is read is dropped as it comes.
3. A length that a line declares of itself is compared and never trusted.

Settings: see `ExchangeSettings`.
"""

from __future__ import annotations

import enum
import re

import msgspec

from lonedot.protocol.exchange_verbs import LINK_STATE_LINE
from lonedot.sinks.peers import Network, is_client_in, listed, networks
from lonedot.sinks.protocol import Session
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import READ_LIMIT, Accept, Next, Reject, Verdict

__all__ = ["ExchangeSettings", "Offer", "xexch50", "xexch50_offer"]

MOST_OCTETS = 1 << 30
"""No peer sends more (Microsoft KB 812455): what says so is no length."""
VERBS = ("XEXCH50", "X-LINK2STATE")
NEED_LOGIN = Reject("Need to authenticate first", code=504, enhanced="5.7.0")

_LENGTHS = re.compile(rb"([0-9]{1,10}) +([0-9]{1,10})")
_CHUNK = re.compile(rb"(?:FIRST|NEXT|LAST) +CHUNK=(?:\{([0-9a-f]{1,8})\})?.*", re.IGNORECASE | re.DOTALL)


class Offer(enum.Enum):
    """Who is told of the verbs."""

    PEERS = "peers"
    """Those who may use them."""
    ALL = "all"
    """Everybody; who may not is answered 504."""
    NONE = "none"


class ExchangeSettings(msgspec.Struct, frozen=True):
    """The settings of both bindings. Who may: see `admits`."""

    offer: Offer = Offer.PEERS
    verbs: str = " ".join(VERBS)
    """Those that are offered and taken."""
    networks: str = ""
    """Clients from there may."""
    logins: str = ""
    """Who has logged in under one of these names may; `*`: any."""
    listeners: str = ""
    """Only on these; empty: on all."""
    max_octets: int = 1 << 20
    """Octets that one XEXCH50 may bring."""

    def __post_init__(self) -> None:
        if not 0 < self.max_octets <= READ_LIMIT:
            raise ValueError(f"max_octets: {self.max_octets}; write 1 to {READ_LIMIT}")
        if unknown := self.offered() - set(VERBS):
            raise ValueError(f"verbs: {', '.join(sorted(unknown))}; write some of {', '.join(VERBS)}")
        self.clients()

    def offered(self) -> frozenset[str]:
        return frozenset(verb.upper() for verb in listed(self.verbs))

    def clients(self) -> tuple[Network, ...]:
        return networks(self.networks)

    def admits(self, session: Session) -> bool:
        """This client may: by network or login, or where neither is set because it may relay."""
        if self.listeners and session.listener not in listed(self.listeners):
            return False
        if not self.networks and not self.logins:
            return session.trusted
        if session.login and {session.login, "*"} & listed(self.logins):
            return True
        return is_client_in(session.client, self.clients())


@sink("Exchange verbs offered", on="helo", settings=ExchangeSettings)
def xexch50_offer(session: Session, settings: ExchangeSettings) -> Verdict:
    """Add the verbs to the reply to EHLO, for those who are to be told."""
    if session.command.verb != b"EHLO" or settings.offer is Offer.NONE:
        return Next()
    if settings.offer is Offer.PEERS and not settings.admits(session):
        return Next()
    return Accept(keywords=tuple(verb for verb in VERBS if verb in settings.offered()))


@sink("Exchange verbs", on="verb", rule="XEXCH50=*;X-LINK2STATE=*", settings=ExchangeSettings)
def xexch50(session: Session, settings: ExchangeSettings) -> Verdict:
    """Take what the peer brings, and drop it."""
    command = session.command
    if command.verb.decode("ascii", "replace") not in settings.offered():
        return Next()
    if not session.helo:
        return Reject("EHLO first", code=503, enhanced="5.5.1")
    if not settings.admits(session):
        return NEED_LOGIN
    if command.verb == b"XEXCH50":
        return _take_octets(command.argument, settings.max_octets)
    return _take_chunk(command.argument)


def _take_octets(argument: bytes, most: int) -> Verdict:
    found = _LENGTHS.fullmatch(argument)
    octets = int(found[1]) if found else 0
    if not 0 < octets <= MOST_OCTETS:
        return Reject("Syntax: XEXCH50 octets recipients", code=501, enhanced="5.5.4")
    if octets > most:
        return Reject(f"At most {most} octets are taken", code=552, enhanced="5.3.4")
    return Accept(f"{octets} octets received", read=octets)


def _take_chunk(argument: bytes) -> Verdict:
    found = _CHUNK.fullmatch(argument)
    if found is None or int(found[1] or b"0", 16) > LINK_STATE_LINE:
        return Reject("Syntax: X-LINK2STATE LAST CHUNK={length} text", code=501, enhanced="5.5.4")
    return Accept()

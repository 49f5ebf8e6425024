"""The mail server's side of a session with a milter, without input or output.

A session with a milter goes along with one with a client: connection, EHLO, and any number of transactions. What is to
be said next is a generator: it yields what to send and whether a reply is waited for, and is sent the reply.

Rules a change here must keep:
1. What was agreed at the beginning is obeyed to the flag: no step that is not wanted, no wait where no reply comes.
2. A milter changes nothing that was not offered to it and wanted by it: whatever else it tries is a `MilterFault`.
3. An answer about a session holds until its end, one about a message until the next MAIL: nobody is asked again.
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from lonedot.message.header import Field
from lonedot.sinks.builtin.milter_wire import (
    CHUNK_LIMIT,
    Action,
    AddHeader,
    AddRecipient,
    AnyReply,
    ChangeHeader,
    ChangeSender,
    Command,
    DeleteRecipient,
    InsertHeader,
    MilterFault,
    Modification,
    Negotiated,
    Quarantine,
    ReplaceBody,
    Reply,
    ReplyText,
    Stage,
    Step,
    connect,
    header,
    macros,
    negotiation,
    packet,
    texts,
)
from lonedot.terms.envelope import Envelope, Notify, Recipient

__all__ = ["MODIFICATIONS_LIMIT", "Ended", "MilterClient", "Peer", "Said", "Say", "Talk", "Word"]

MODIFICATIONS_LIMIT = 10_000
"""Changes to one message, the pieces of a body aside."""
HEADERS_LIMIT = 1024 * 1024
"""Octets of all fields that are added or changed."""

T = TypeVar("T")

USUAL: Mapping[Stage, tuple[str, ...]] = {
    Stage.CONNECT: ("j", "daemon_name", "v", "_", "client_addr", "client_name", "client_ptr"),
    Stage.HELO: ("tls_version", "cipher"),
    Stage.MAIL: ("i", "auth_type", "auth_authen", "mail_addr", "mail_host", "mail_mailer"),
    Stage.RCPT: ("i", "rcpt_addr", "rcpt_host", "rcpt_mailer"),
    Stage.DATA: ("i",),
    Stage.END_OF_HEADERS: ("i",),
    Stage.END_OF_MESSAGE: ("i", "auth_type", "auth_authen"),
}
"""What is told to a milter that does not ask for others."""


class Word(enum.Enum):
    """What a milter decides."""

    ACCEPT = "accept"
    """It wants to see no more of it."""
    REJECT = "reject"
    DEFER = "defer"
    DISCARD = "discard"


class Said(msgspec.Struct, frozen=True):
    """A decision of a milter."""

    word: Word
    code: int = 0
    """0: the usual one."""
    enhanced: str = ""
    words: str = ""

    @property
    def refuses(self) -> bool:
        return self.word is Word.REJECT or self.word is Word.DEFER


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Who brings the mail, and what the relay calls itself."""

    hostname: str
    """Of the relay."""
    daemon: str
    """What the macro `{daemon_name}` says."""
    client: str = ""
    """Its address; empty when it has none."""
    helo: str = ""
    """Empty before EHLO."""
    tls: str = ""
    """`TLSv1.3 TLS_AES_256_GCM_SHA384`, or empty."""
    login: str = ""

    @property
    def name(self) -> bytes:
        """Of the client. No name was looked up: its address in brackets stands for it."""
        if self.client in ("127.0.0.1", "::1"):
            return b"localhost"
        return f"[{self.client}]".encode() if self.client else b"localhost"


class Say(msgspec.Struct, frozen=True):
    """What is to be sent next, which may be nothing, and whether a reply is waited for."""

    octets: bytes
    waits: bool
    what: str
    """What is being said, for a person who reads that no reply came."""
    is_end: bool = False
    """It is the whole message that the milter thinks about."""


Talk = Generator[Say, AnyReply | None, T]


class Ended(msgspec.Struct, frozen=True):
    """What a milter says of a whole message."""

    said: Said | None
    modifications: tuple[Modification, ...] = ()


class Transaction(msgspec.Struct):
    """What a milter has heard of a message."""

    sender: bytes
    told: dict[bytes, Said | None] = {}
    """Recipients, each with the refusal of it."""
    is_begun: bool = False
    """DATA was said."""

    @property
    def taken(self) -> list[bytes]:
        return [address for address, refusal in self.told.items() if refusal is None]


class MilterClient:
    """One session with a milter. `body_limit`: octets of a body that it may hand back."""

    def __init__(self, offered: Action, body_limit: int) -> None:
        self._offered = offered
        self._body_limit = body_limit
        self._is_connected = False
        self._greeting: tuple[str, str] | None = None
        self._skips_body = False
        self.agreed: Negotiated | None = None
        self.session: Said | None = None
        """What holds for all of the session."""
        self.message: Said | None = None
        """What holds for this message."""
        self.transaction: Transaction | None = None

    @property
    def said(self) -> Said | None:
        """What is decided already."""
        return self.session or self.message

    @property
    def leads_with_space(self) -> bool:
        """Values of header fields are told with the space behind the colon."""
        return self._has(Step.LEADING_SPACE)

    def takes_body(self) -> bool:
        """It wants to see the body, or more of it."""
        return self.said is None and not self._skips_body and not self._has(Step.NO_BODY)

    def _has(self, step: Step) -> bool:
        return self.agreed is not None and bool(self.agreed.steps & step)

    # -- the session -------------------------------------------------------------------------------

    def greet(self, peer: Peer) -> Talk[None]:
        """Tell what it has not heard yet of the session: who is there, and the name in EHLO once there is one."""
        if self.agreed is None:
            reply = yield Say(negotiation(self._offered), True, "the negotiation")
            if not isinstance(reply, Negotiated):
                raise MilterFault(f"answered the negotiation with {_named(reply)}")
            # Some want all there is whatever is offered: what they then do of it is a fault.
            self.agreed = msgspec.structs.replace(reply, actions=reply.actions & self._offered)
        if not self._is_connected:
            self._is_connected = True
            if not self._has(Step.NO_CONNECT):
                known = self._macros(Stage.CONNECT, Command.CONNECT, _of_connection(peer))
                octets = known + connect(peer.name, peer.client)
                self.session = yield from self._ask(octets, Step.SILENT_CONNECT, "CONNECT", False)
        greeting = (peer.helo, peer.tls)
        if peer.helo and self._greeting != greeting and self.session is None:
            if self.transaction is not None:
                yield from self.abort()
            self._greeting = greeting
            if not self._has(Step.NO_HELO):
                known = self._macros(Stage.HELO, Command.HELO, _of_tls(peer))
                octets = known + packet(Command.HELO, texts(_octets(peer.helo)))
                self.session = yield from self._ask(octets, Step.SILENT_HELO, "HELO", False)

    # -- a transaction -----------------------------------------------------------------------------

    def abort(self) -> Talk[None]:
        """Nothing comes of the message that it was told of."""
        self.transaction = None
        self.message = None
        yield Say(packet(Command.ABORT), False, "ABORT")

    def mail(self, peer: Peer, envelope: Envelope, id: str) -> Talk[None]:
        """A message begins; one that was under way is given up."""
        if self.transaction is not None:
            yield from self.abort()
        self.message = None
        self._skips_body = False
        sender = envelope.reverse_path
        self.transaction = Transaction(sender.octets)
        if self._has(Step.NO_MAIL):
            return
        values = {
            **_of_message(peer, id),
            "mail_addr": sender.octets,
            "mail_host": sender.domain,
            "mail_mailer": b"esmtp",
        }
        known = self._macros(Stage.MAIL, Command.MAIL, values)
        octets = texts(b"<" + sender.octets + b">", *_of_mail(envelope))
        self.message = yield from self._ask(known + packet(Command.MAIL, octets), Step.SILENT_MAIL, "MAIL")

    def rcpt(self, peer: Peer, recipient: Recipient, id: str) -> Talk[Said | None]:
        """A recipient. What refuses it concerns no other; the rest is said of the message."""
        transaction = self._of_now()
        address = recipient.address
        transaction.told[address.octets] = None
        if self._has(Step.NO_RCPT):
            return None
        values = {
            **_of_message(peer, id),
            "rcpt_addr": address.octets,
            "rcpt_host": address.domain,
            "rcpt_mailer": b"esmtp",
        }
        known = self._macros(Stage.RCPT, Command.RCPT, values)
        octets = texts(b"<" + address.octets + b">", *_of_rcpt(recipient))
        said = yield from self._ask(known + packet(Command.RCPT, octets), Step.SILENT_RCPT, "RCPT")
        if said is None or not said.refuses:
            self.message = said
            return None
        transaction.told[address.octets] = said
        return said

    def data(self, peer: Peer, id: str) -> Talk[None]:
        """The content follows."""
        transaction = self._of_now()
        if transaction.is_begun:
            return
        transaction.is_begun = True
        # Version 4 of the protocol has brought this step.
        if self._has(Step.NO_DATA) or (self.agreed is not None and self.agreed.version < 4):
            return
        known = self._macros(Stage.DATA, Command.DATA, _of_message(peer, id))
        self.message = yield from self._ask(known + packet(Command.DATA), Step.SILENT_DATA, "DATA")

    def headers(self, peer: Peer, fields: Iterable[Field], id: str) -> Talk[None]:
        """The header section and its end."""
        leads = self.leads_with_space
        for field in () if self._has(Step.NO_HEADERS) else fields:
            octets = header(field.name, field.raw, leads)
            self.message = yield from self._ask(octets, Step.SILENT_HEADER, "a header field")
            if self.message is not None:
                return
        if not self._has(Step.NO_END_OF_HEADERS):
            known = self._macros(Stage.END_OF_HEADERS, Command.END_OF_HEADERS, _of_message(peer, id))
            octets = known + packet(Command.END_OF_HEADERS)
            self.message = yield from self._ask(octets, Step.SILENT_END_OF_HEADERS, "the end of the header")

    def body(self, octets: bytes) -> Talk[None]:
        """A piece of the body, while it is wanted."""
        for start in range(0, len(octets), CHUNK_LIMIT):
            if not self.takes_body():
                return
            piece = packet(Command.BODY, octets[start : start + CHUNK_LIMIT])
            self.message = yield from self._ask(piece, Step.SILENT_BODY, "a piece of the body")

    def end(self, peer: Peer, id: str) -> Talk[Ended]:
        """The end of the message: the changes, and the word on it."""
        self.transaction = None
        known = self._macros(Stage.END_OF_MESSAGE, Command.END_OF_BODY, _of_message(peer, id))
        octets = known + packet(Command.END_OF_BODY)
        wanted: list[Modification] = []
        header_octets = body_octets = 0
        while True:
            reply = yield Say(octets, True, "the end of the message", True)
            octets = b""
            if reply is None or isinstance(reply, Reply | ReplyText | Negotiated):
                said = _decided(reply, "the end of the message")
                return Ended(said, () if said is not None and said.word is not Word.ACCEPT else tuple(wanted))
            self._check_allowed(reply)
            match reply:
                case ReplaceBody(piece):
                    body_octets += len(piece)
                case AddHeader() | InsertHeader() | ChangeHeader():
                    header_octets += len(reply.name) + len(reply.value) + 4
                case _:
                    pass
            wanted.append(reply)
            if body_octets > self._body_limit:
                raise MilterFault(f"hands back a body of more than {self._body_limit} octets")
            if header_octets > HEADERS_LIMIT:
                raise MilterFault(f"writes header fields of more than {HEADERS_LIMIT} octets")
            if len(wanted) > MODIFICATIONS_LIMIT:
                raise MilterFault(f"makes more than {MODIFICATIONS_LIMIT} changes")

    # -- steps -------------------------------------------------------------------------------------

    def _of_now(self) -> Transaction:
        assert self.transaction is not None, "MAIL comes first"
        return self.transaction

    def _macros(self, stage: Stage, command: Command, values: Mapping[str, bytes]) -> bytes:
        agreed = self.agreed
        names: Sequence[str] = USUAL[stage]
        if agreed is not None and stage in agreed.macros:
            names = agreed.macros[stage]
        return macros(command, [(name, values[name]) for name in names if values.get(name)])

    def _ask(self, octets: bytes, silent: Step, what: str, is_message: bool = True) -> Talk[Said | None]:
        reply = yield Say(octets, not self._has(silent), what)
        if reply is None:
            return None
        if reply is Reply.SKIP and silent is Step.SILENT_BODY and self._has(Step.SKIP):
            self._skips_body = True
            return None
        if not is_message and reply is Reply.DISCARD:
            raise MilterFault(f"answered {what} with 'discard', where there is no message")
        return _decided(reply, what)

    def _check_allowed(self, change: Modification) -> None:
        needed = _NEEDS[type(change)]
        agreed = self.agreed.actions if self.agreed is not None else Action(0)
        if not needed & agreed:
            raise MilterFault(f"does what it may not, or has not asked for: {_names(needed)}")


_NEEDS: dict[type[Modification], Action] = {
    AddHeader: Action.ADD_HEADERS | Action.CHANGE_HEADERS,
    InsertHeader: Action.ADD_HEADERS | Action.CHANGE_HEADERS,
    ChangeHeader: Action.CHANGE_HEADERS,
    ReplaceBody: Action.CHANGE_BODY,
    AddRecipient: Action.ADD_RECIPIENTS | Action.ADD_RECIPIENTS_WITH,
    DeleteRecipient: Action.DELETE_RECIPIENTS,
    ChangeSender: Action.CHANGE_SENDER,
    Quarantine: Action.QUARANTINE,
}
_DECIDES = {
    Reply.CONTINUE: None,
    Reply.ACCEPT: Said(Word.ACCEPT),
    Reply.REJECT: Said(Word.REJECT),
    Reply.TEMPFAIL: Said(Word.DEFER),
    Reply.DISCARD: Said(Word.DISCARD),
    Reply.SHUTDOWN: Said(Word.DEFER, 421, "4.7.0"),
    Reply.CONNECTION_FAILS: Said(Word.DEFER, 421, "4.7.0"),
}


def _decided(reply: AnyReply | None, what: str) -> Said | None:
    """What a reply decides; None: it goes on."""
    if isinstance(reply, ReplyText):
        word = Word.REJECT if reply.code >= 500 else Word.DEFER
        return Said(word, reply.code, reply.enhanced, reply.words)
    if isinstance(reply, Reply) and reply in _DECIDES:
        return _DECIDES[reply]
    raise MilterFault(f"answered {what} with {_named(reply)}, out of order")


def _named(reply: AnyReply | None) -> str:
    if isinstance(reply, Reply):
        return repr(reply.name.lower().replace("_", " "))
    return f"'{type(reply).__name__}'"


def _names(actions: Action) -> str:
    return ", ".join(one.name.lower().replace("_", " ") for one in Action if one & actions and one.name)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


# --- values -------------------------------------------------------------------------------------------


def _of_connection(peer: Peer) -> dict[str, bytes]:
    address = f"IPv6:{peer.client}" if ":" in peer.client else peer.client
    name = peer.name
    return {
        "j": _octets(peer.hostname),
        "daemon_name": _octets(peer.daemon),
        "v": b"Lonedot",
        "_": name + (b" [" + address.encode() + b"]" if address and not name.startswith(b"[") else b""),
        "client_addr": _octets(address),
        "client_name": name if name == b"localhost" else b"unknown",
        "client_ptr": name if name == b"localhost" else b"unknown",
        **_of_tls(peer),
    }


def _of_tls(peer: Peer) -> dict[str, bytes]:
    version, _, cipher = peer.tls.partition(" ")
    return {"tls_version": _octets(version), "cipher": _octets(cipher)}


def _of_message(peer: Peer, id: str) -> dict[str, bytes]:
    login = _octets(peer.login)
    return {
        **_of_connection(peer),
        "i": _octets(id),
        # Filters ask whether there is one; which mechanism it was is forgotten after the login.
        "auth_type": b"PLAIN" if login else b"",
        "auth_authen": login,
    }


def _of_mail(envelope: Envelope) -> list[bytes]:
    """Parameters of MAIL, as they would be written."""
    told = []
    if envelope.body.value:
        told.append(b"BODY=" + envelope.body.value.encode())
    if envelope.smtputf8:
        told.append(b"SMTPUTF8")
    if envelope.ret.value:
        told.append(b"RET=" + envelope.ret.value.encode())
    if envelope.envid:
        told.append(b"ENVID=" + envelope.envid)
    return told


def _of_rcpt(recipient: Recipient) -> list[bytes]:
    """Parameters of RCPT, likewise."""
    told = []
    notify = Notify(recipient.notify)
    if notify:
        names = [one.name for one in Notify if one & notify and one.name]
        told.append(b"NOTIFY=" + ",".join(names).encode())
    if recipient.orcpt:
        told.append(b"ORCPT=" + recipient.orcpt)
    return told

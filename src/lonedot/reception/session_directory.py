"""What a session asks the directory: whether somebody has a mailbox (RCPT), and what VRFY and EXPN may tell.

Rules: what the directory cannot say now is answered with 451, never with 550. Who is not told by VRFY hears 252. The
members of an alias or a list are shown to trusted clients alone, and only where the listener says so.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Protocol

from lonedot.directory.directory import Directory, Judged, Standing
from lonedot.directory.faults import DirectoryFault
from lonedot.directory.names import read_address
from lonedot.terms.address import NULL_REVERSE_PATH, Address
from lonedot.terms.reply import Reply, reply

__all__ = ["NOT_VERIFIED", "ask_directory", "verify"]

NOT_VERIFIED = reply(252, "2.5.0", "Send some mail and see")
NOT_NOW = reply(451, "4.3.0", "The recipient cannot be checked now; try again later")
SHOWN = 100
"""Addresses that EXPN shows."""


class Wait(Protocol):
    """`Asker.wait`: the session handles no event until the work is done."""

    def __call__(
        self,
        work: Coroutine[None, None, Judged | str],
        then: Callable[[Judged | str], None],
        interrupted: Judged | str,
        /,
    ) -> None: ...


def ask_directory(
    directory: Directory,
    address: Address,
    sender: Address,
    wait: Wait,
    noted: Callable[[str, str], object],
    then: Callable[[Reply | None], None],
) -> None:
    """`then` gets the refusal, or None when mail for the address is taken: now, or when the directory has answered."""

    def told(found: Judged | str) -> None:
        if isinstance(found, str):
            noted("directory.fault", f"{address.text}: {found}")
        then(refusal_of(found, address))

    try:
        judged = directory.at_hand(address, sender)
    except DirectoryFault as error:
        told(str(error))
        return
    if judged is not None:
        told(judged)
    else:
        wait(_asked(directory, address, sender), told, "the relay is stopping")


async def _asked(directory: Directory, address: Address, sender: Address) -> Judged | str:
    try:
        return await directory.judge(address, sender)
    except DirectoryFault as error:
        return str(error)
    except Exception as error:
        return f"a fault of ours: {type(error).__name__}: {error}"


def refusal_of(found: Judged | str, address: Address) -> Reply | None:
    """The answer to RCPT; None: it is taken. `found` is a text where nobody could say."""
    if isinstance(found, str):
        return NOT_NOW
    shown = address.octets.decode("ascii", "backslashreplace")
    match found.standing:
        case Standing.UNKNOWN:
            return reply(550, "5.1.1", f"No such mailbox: {shown}")
        case Standing.FORBIDDEN:
            return reply(550, "5.7.2", f"You may not write to this list: {shown}")  # RFC 3463 §3.8
        case Standing.FOREIGN | Standing.KNOWN:
            return None


def verify(
    directory: Directory,
    verb: bytes,
    argument: bytes,
    trusted: bool,
    wait: Wait,
    noted: Callable[[str, str], object],
    then: Callable[[Reply], None],
) -> None:
    """Answer VRFY or EXPN (RFC 5321 §3.5) of a client that may be told."""
    try:
        address = read_address(argument.decode("utf-8", "replace").strip().strip("<>"))
    except ValueError:
        then(reply(501, "5.1.3", "Not an address: name@domain"))
        return
    if not directory.covers(address):
        then(NOT_VERIFIED)
        return
    if verb == b"EXPN":
        then(_expanded(directory, address, noted) if trusted else NOT_VERIFIED)
        return

    def told(refusal: Reply | None) -> None:
        if refusal is not None and refusal.enhanced == "5.7.2":
            refusal = None  # it exists; who may write to it is another matter
        then(refusal or reply(250, "2.1.5", f"<{address.octets.decode('ascii', 'backslashreplace')}>"))

    ask_directory(directory, address, NULL_REVERSE_PATH, wait, noted, told)


def _expanded(directory: Directory, address: Address, noted: Callable[[str, str], object]) -> Reply:
    try:
        found = directory.expanded(address)
    except DirectoryFault as error:
        noted("directory.fault", f"{address.text}: {error}")
        return NOT_NOW
    if found is None:
        return reply(550, "5.1.1", "Not an alias or a list")
    members = [*found.targets, *(member for copy in found.copies for member in copy.members)]
    lines = [f"<{member.octets.decode('ascii', 'backslashreplace')}>" for member in members[:SHOWN]]
    if len(members) > SHOWN:
        lines.append(f"and {len(members) - SHOWN} more")
    return reply(250, "2.1.5", *lines)

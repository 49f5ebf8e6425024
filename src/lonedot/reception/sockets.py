"""The listening sockets: opened once, kept over reloads, and by the parent over the deaths of workers.

Rules:
1. A socket that listens is never closed while its address stays in the configuration: who connects is not turned away.
2. A listener accepts on a copy of the descriptor, so that closing the listener leaves the socket as it is.
3. Without a parent all of this works the same; only nobody holds the sockets when the process dies.
4. Of several workers the first alone opens sockets and tells the parent; the others get what the parent passes on.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from lonedot.reception.unix_socket import bound_at, give

__all__ = [
    "SOCKETS_ENVIRONMENT",
    "ListeningSockets",
    "Place",
    "bound",
    "from_environment",
    "from_systemd",
    "resolved",
]

SOCKETS_ENVIRONMENT = "LONEDOT_SOCKETS"
"""Tells a worker the sockets that its parent holds: a JSON object, key to descriptor."""
BACKLOG = 1024
_KEY_LIMIT = 1024
"""Octets of one message of the parent: a sign and a key."""
FIRST_OF_SYSTEMD = 3
"""sd_listen_fds(3): SD_LISTEN_FDS_START."""


class Place(NamedTuple):
    """Where a listener listens."""

    name: str
    host: str
    """A path (it begins with a slash) is that of a unix socket."""
    port: int
    group: str = ""
    """Whose members may connect to a unix socket; see `unix_socket`."""

    @property
    def is_unix(self) -> bool:
        return self.host.startswith("/")

    @property
    def key(self) -> str:
        """The same for as long as the socket may be kept. Port 0 is another port for each listener."""
        if self.is_unix:
            return f"unix:{self.host}"
        return f"{self.host}:{self.port}" if self.port else f"{self.name} {self.host}:0"


def bound(place: Place) -> socket.socket:
    """A new socket that listens at this address.

    Raises:
        OSError: the address is taken or not ours; the words name it.
    """
    if place.is_unix:
        try:
            return bound_at(Path(place.host), place.group, BACKLOG)
        except OSError as error:
            raise OSError(error.errno, _words(place, error)) from error
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # `::` takes IPv6 alone: 0.0.0.0 stays free for a listener of its own.
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((place.host, place.port))
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise OSError(error.errno, _words(place, error)) from error
    return listening


def resolved(place: Place) -> list[tuple[str, Place]]:
    """Each address of the place with its key; a name may have several.

    Raises:
        OSError: the name has none.
    """
    if place.is_unix:
        return [(place.key, place)]
    try:
        ip_address(place.host)
    except ValueError:
        pass
    else:
        return [(place.key, place)]
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise OSError(error.errno, _words(place, error)) from error
    hosts = dict.fromkeys(str(address[0]) for _, _, _, _, address in found)
    return [(f"{place.key} {host}", place._replace(host=host)) for host in hosts]


def _words(place: Place, error: OSError) -> str:
    reason = error.strerror or str(error)
    more = ""
    if isinstance(error, PermissionError) and 0 < place.port < 1024:
        more = "; it takes a socket of systemd, CAP_NET_BIND_SERVICE, or a start as root with [server] user"
    where = place.key if place.is_unix else f"{place.host}:{place.port}"
    return f"cannot listen on {where}: {reason}{more}"


def from_environment(environment: Mapping[str, str]) -> dict[str, socket.socket]:
    """What the parent holds, by key.

    Raises:
        ValueError, OSError: the variable says something else.
    """
    said = environment.get(SOCKETS_ENVIRONMENT, "")
    found: dict[str, socket.socket] = {}
    if not said:
        return found
    numbers = json.loads(said)
    if not isinstance(numbers, dict):
        raise ValueError(f"{SOCKETS_ENVIRONMENT} is no JSON object")
    for key, number in numbers.items():
        listening = socket.socket(fileno=int(number))
        listening.set_inheritable(False)
        listening.setblocking(False)
        found[str(key)] = listening
    return found


def from_systemd(
    environment: Mapping[str, str], pid: int, places: Iterable[Place]
) -> dict[str, socket.socket]:
    """What systemd hands over (sd_listen_fds(3)), by key: for the listener of that name, else for that address.

    A socket that is no listener's is left open and unused: whoever connects there waits, as the unit says.

    Raises:
        ValueError: the variables are not systemd's.
        OSError: a descriptor is not a socket.
    """
    if environment.get("LISTEN_PID") != str(pid):
        return {}
    count = int(environment.get("LISTEN_FDS", "0"))
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, socket.socket] = {}
    wanted = list(places)
    for index in range(count):
        listening = socket.socket(fileno=FIRST_OF_SYSTEMD + index)
        name = names[index] if index < len(names) else ""
        place = next((one for one in wanted if one.name == name), None)
        if place is None:
            place = next((one for one in wanted if _is_at(listening, one)), None)
        if place is None:
            listening.detach()
            continue
        listening.set_inheritable(False)
        listening.setblocking(False)
        found[place.key] = listening
    return found


def _is_at(listening: socket.socket, place: Place) -> bool:
    if listening.family == socket.AF_UNIX:
        return bool(listening.getsockname() == place.host)
    if listening.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    host, port = listening.getsockname()[:2]
    try:
        return bool(port == place.port and ip_address(host) == ip_address(place.host))
    except ValueError:
        return False


class ListeningSockets:
    """Those of one relay, by key.

    Args:
        held: what is open already.
        parent: descriptor of the pair of sockets to the parent; -1 without a parent. It stays the caller's.
        follows: another worker opens sockets and tells the parent; here only those are used that were passed on.
    """

    def __init__(
        self,
        held: Mapping[str, socket.socket] | None = None,
        parent: int = -1,
        *,
        follows: bool = False,
    ) -> None:
        self._held = dict(held or {})
        self._parent = parent
        self._follows = follows

    def open(self, place: Place) -> list[socket.socket]:
        """Copies of the sockets that listen there; opened when there are none, and then told to the parent.

        Raises:
            OSError: an address is taken or not ours, or there is no descriptor left; nothing was opened.
        """
        fresh: list[str] = []
        copies: list[socket.socket] = []
        try:
            for key, at in resolved(place):
                if key not in self._held:
                    if self._follows:
                        raise OSError(errno.ENOTCONN, f"the first worker has not handed over {key}")
                    self._held[key] = bound(at)
                    fresh.append(key)
                elif at.is_unix and not self._follows:
                    give(Path(at.host), at.group)  # it may be another's since the last configuration
                copies.append(self._held[key].dup())
        except OSError:
            for copy in copies:
                copy.close()
            for key in fresh:
                self._held.pop(key).close()
            raise
        for key in fresh:
            self._tell(b"+", key, self._held[key])
        return copies

    def has(self, place: Place) -> bool:
        """It listens already. Raises OSError: the name of the place has no address."""
        return all(key in self._held for key, _ in resolved(place))

    def heed_parent(self) -> bool:
        """Take what the parent has passed on since the last call, without waiting. False: the parent is gone."""
        line = socket.socket(fileno=os.dup(self._parent))
        try:
            line.setblocking(False)
            while True:
                said, numbers, _, _ = socket.recv_fds(line, _KEY_LIMIT, 1, socket.MSG_CMSG_CLOEXEC)
                if not said:
                    return False
                self._take(said, [socket.socket(fileno=number) for number in numbers])
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            line.close()

    def _take(self, said: bytes, listening: Sequence[socket.socket]) -> None:
        key = said[1:].decode("utf-8", "surrogateescape")
        before = self._held.pop(key, None)
        if before is not None:
            before.close()
        if said[:1] == b"+" and listening:
            listening[0].setblocking(False)
            self._held[key] = listening[0]

    def descriptors(self) -> dict[str, int]:
        """Key to descriptor, for a program that this one becomes."""
        return {key: listening.fileno() for key, listening in self._held.items()}

    def drop(self, keys: Iterable[str]) -> None:
        """Stop listening there. Keys that are not held are passed over."""
        for key in tuple(keys):
            listening = self._held.pop(key, None)
            if listening is not None:
                self._tell(b"-", key, None)
                if key.startswith("unix:") and not self._follows:
                    with contextlib.suppress(OSError):
                        os.unlink(key.removeprefix("unix:"))
                listening.close()

    def keep_only(self, places: Iterable[Place]) -> None:
        """Drop all but these."""
        kept = [place.key for place in places]
        self.drop(
            [key for key in self._held if not any(key == one or key.startswith(f"{one} ") for one in kept)]
        )

    def close(self) -> None:
        """Let go of all here; the parent is not told, it knows when the relay stops."""
        for listening in self._held.values():
            listening.close()
        self._held.clear()

    def _tell(self, sign: bytes, key: str, listening: socket.socket | None) -> None:
        if self._parent < 0 or self._follows:
            return
        line = socket.socket(fileno=os.dup(self._parent))
        try:
            line.setblocking(False)
            message = sign + key.encode()
            if listening is None:
                line.send(message)
            else:
                socket.send_fds(line, [message], [listening.fileno()])
        except OSError:
            pass  # the parent has died, and so shall we; or it is far behind: then a later worker opens it itself
        finally:
            line.close()

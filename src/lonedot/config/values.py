"""One value of the configuration at a time: what TOML gives in, what the relay works with out.

A *reader* takes the plain value and the folder of the file, and returns the value or raises `Unfit` with two
sentences: what is wrong, and what to write. Readers touch neither disk nor network; `check` does that.
"""

from __future__ import annotations

import enum
import ipaddress
import math
import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import msgspec

from lonedot.terms.address import Address

__all__ = [
    "MAX_ITEMS",
    "Endpoint",
    "Network",
    "Reader",
    "Secret",
    "SinkFile",
    "Unfit",
    "address",
    "boolean",
    "domain",
    "domain_set",
    "duration",
    "guid",
    "host_name",
    "import_path",
    "is_host_name",
    "keyword",
    "label",
    "listen_endpoint",
    "many",
    "network",
    "next_hop",
    "number",
    "one_of",
    "path",
    "pattern",
    "plain_settings",
    "rule",
    "secret",
    "sink_file",
    "size",
    "text",
    "whole",
]

T = TypeVar("T")
E = TypeVar("E", bound=enum.Enum)

Reader = Callable[[object, Path], T]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Scalar = str | int | float | bool

MAX_ITEMS = 10_000
"""Items in one list."""

KEYWORDS = (
    "8BITMIME",
    "AUTH",
    "CHUNKING",
    "DSN",
    "ENHANCEDSTATUSCODES",
    "PIPELINING",
    "SIZE",
    "SMTPUTF8",
    "STARTTLS",
)
"""The EHLO keywords that can be switched off."""


class Unfit(Exception):
    """A value that cannot be used: `what` is wrong, what to `do`; `item` is its place in a list, or -1.

    Of a list, the first wrong item is raised and has the `others` with it.
    """

    def __init__(self, what: str, do: str, item: int = -1) -> None:
        super().__init__(what)
        self.others: list[Unfit] = []
        self.what = what
        self.do = do
        self.item = item


class Secret(msgspec.Struct, frozen=True):
    """A password. It shows itself to nobody who does not ask by name."""

    _value: str

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


class Endpoint(msgspec.Struct, frozen=True, order=True):
    """Host (name or address, without brackets) and port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class SinkFile(msgspec.Struct, frozen=True):
    """A Python file and the function in it; empty when the file holds one sink only."""

    path: Path
    function: str = ""


def show(value: object) -> str:
    """A value as a person wrote it, cut to 60 signs."""
    if isinstance(value, bool):
        words = "true" if value else "false"
    elif isinstance(value, dict):
        words = "a table"
    elif isinstance(value, list):
        words = "a list"
    else:
        words = repr(value) if isinstance(value, str) else str(value)
    words = words.replace("'", '"') if isinstance(value, str) and '"' not in words else words
    return words if len(words) <= 60 else words[:57] + "…"


# --- texts ---------------------------------------------------------------------------------------


def text(value: object, _: Path) -> str:
    """A text of 1 to 1000 signs on one line."""
    if not isinstance(value, str):
        raise Unfit(f"{show(value)} is not a text", 'put it in quotation marks: "…"')
    if not value.strip():
        raise Unfit("is empty", "give a value or remove the line")
    if len(value) > 1000:
        raise Unfit(f"is {len(value)} signs long", "use at most 1000")
    if not value.isprintable():
        raise Unfit(f"{show(value)} holds control signs", "use printable signs on one line")
    return value


def label(value: object, folder: Path) -> str:
    """A display name, at most 100 signs."""
    name = text(value, folder).strip()
    if len(name) > 100:
        raise Unfit(f"is {len(name)} signs long", "use at most 100")
    return name


def secret(value: object, folder: Path) -> Secret:
    return Secret(text(value, folder))


def path(value: object, folder: Path) -> Path:
    """A path; a relative one is counted from the folder of the configuration."""
    name = text(value, folder)
    if len(name.encode("utf-8", "surrogatepass")) > 900:
        raise Unfit("is too long for a path", "use a shorter one")
    if name.startswith("~"):
        raise Unfit(f"{show(name)} starts with ~, which only a shell understands", "write the whole path")
    return folder / name


def boolean(value: object, _: Path) -> bool:
    if not isinstance(value, bool):
        raise Unfit(
            f"{show(value)} is neither true nor false", "write true or false, without quotation marks"
        )
    return value


def one_of(kind: type[E]) -> Reader[E]:
    """The member of `kind` with that value."""
    allowed = ", ".join(f'"{member.value}"' for member in kind)

    def read(value: object, _: Path) -> E:
        try:
            return kind(value)
        except ValueError:
            raise Unfit(f"{show(value)} is not one of the choices", f"write one of {allowed}") from None

    return read


def guid(value: object, folder: Path) -> str:
    """A GUID in its usual form, lower case, without braces."""
    words = text(value, folder).strip().strip("{}")
    if re.fullmatch(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", words) is None:
        raise Unfit(f"{show(value)} is not a GUID", 'write it as "01234567-89ab-cdef-0123-456789abcdef"')
    return str(uuid.UUID(words))


# --- numbers -------------------------------------------------------------------------------------


def whole(lowest: int, highest: int) -> Reader[int]:
    """A whole number in a range."""

    def read(value: object, _: Path) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Unfit(f"{show(value)} is not a whole number", f"write a number from {lowest} to {highest}")
        if not lowest <= value <= highest:
            raise Unfit(f"{show(value)} is out of range", f"write a number from {lowest} to {highest}")
        return value

    return read


def number(lowest: float, highest: float) -> Reader[float]:
    """A number in a range, fractions allowed."""
    range_words = f"write a number from {lowest:g} to {highest:g}"

    def read(value: object, _: Path) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Unfit(f"{show(value)} is not a number", range_words)
        if not lowest <= value <= highest:  # also false of nan
            raise Unfit(f"{show(value)} is out of range", range_words)
        return float(value)

    return read


_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]i?B|[KMGT]|B|octets|bytes)?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def size(lowest: int, highest: int) -> Reader[int]:
    """A number of octets: 52428800, "50 MiB" (by 1024), "50 MB" (by 1000)."""
    range_words = (
        f'write octets or a text such as "50 MiB", from {octets_words(lowest)} to {octets_words(highest)}'
    )

    def read(value: object, _: Path) -> int:
        octets: float
        if isinstance(value, str):
            found = _SIZE.fullmatch(value.strip())
            if found is None:
                raise Unfit(f"{show(value)} is not a size", range_words)
            unit = (found[2] or "").upper()
            if unit in ("B", "OCTETS", "BYTES"):
                unit = ""
            base = 1000 if len(unit) == 2 else 1024
            octets = float(found[1]) * base ** _POWERS[unit[:1]]
        elif isinstance(value, int) and not isinstance(value, bool):
            octets = value
        else:
            raise Unfit(f"{show(value)} is not a size", range_words)
        if not lowest <= octets <= highest:
            raise Unfit(f"{show(value)} is out of range", range_words)
        return int(octets)

    return read


def octets_words(octets: int) -> str:
    """`50 MiB` where it comes out even, else the plain number."""
    for unit, power in (("TiB", 4), ("GiB", 3), ("MiB", 2), ("KiB", 1)):
        if octets and octets % 1024**power == 0:
            return f"{octets // 1024**power} {unit}"
    return str(octets)


_SPAN = re.compile(r"(?:(\d{1,9}(?:\.\d{1,6})?)\s*(d|h|min|m|s)\s*)+", re.IGNORECASE)
_SPAN_PART = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(d|h|min|m|s)", re.IGNORECASE)
_SPAN_SECONDS = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1}


def duration(lowest: float, highest: float) -> Reader[timedelta]:
    """A span of time: a number of seconds, or "30s", "5m", "4h", "2d", "1h 30m". The limits are in seconds."""
    range_words = (
        f'write seconds or a text such as "30s", "5m", "4h" or "2d", '
        f"from {span_words(lowest)} to {span_words(highest)}"
    )

    def read(value: object, _: Path) -> timedelta:
        seconds: float
        if isinstance(value, str) and len(value) <= 100 and _SPAN.fullmatch(value.strip()):
            parts = _SPAN_PART.findall(value)
            seconds = math.fsum(float(count) * _SPAN_SECONDS[unit.lower()] for count, unit in parts)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value
        else:
            raise Unfit(f"{show(value)} is not a span of time", range_words)
        if not lowest <= seconds <= highest:
            raise Unfit(f"{show(value)} is out of range", range_words)
        return timedelta(seconds=seconds)

    return read


def span_words(seconds: float) -> str:
    """`2d`, `90s`: the largest unit in which it comes out even."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


# --- lists ---------------------------------------------------------------------------------------


def many(item: Reader[T], *, at_least: int = 0) -> Reader[tuple[T, ...]]:
    """A list of values, each by the reader `item`; one value alone may stand without brackets."""

    def read(value: object, folder: Path) -> tuple[T, ...]:
        if not isinstance(value, list):
            return (item(value, folder),)
        if len(value) < at_least:
            raise Unfit("is an empty list", "name at least one, or remove the line")
        if len(value) > MAX_ITEMS:
            raise Unfit(f"is a list of {len(value)} items", f"use at most {MAX_ITEMS}")
        items: list[T] = []
        wrong: list[Unfit] = []
        for place, one in enumerate(value):
            try:
                items.append(item(one, folder))
            except Unfit as unfit:
                wrong.append(Unfit(unfit.what, unfit.do, place))
        if wrong:
            wrong[0].others = wrong[1:]
            raise wrong[0]
        return tuple(items)

    return read


# --- names and addresses of the network ----------------------------------------------------------

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def is_host_name(name: str, *, dots: int = 0) -> bool:
    """A domain name in ASCII with at least so many dots (RFC 1123 §2.1; an underscore is forgiven)."""
    labels = name.split(".")
    if not 0 < len(name) <= 253 or len(labels) <= dots or labels[-1].isdigit():
        return False
    return all(_LABEL.fullmatch(label) for label in labels)


def host_name(value: object, folder: Path) -> str:
    """A full domain name, such as a peer is told in EHLO (RFC 5321 §2.3.5)."""
    name = text(value, folder).strip().rstrip(".")
    if not is_host_name(name, dots=1):
        raise Unfit(
            f"{show(value)} is not a full domain name",
            'write the name by which others know this relay, such as "relay.example.com"',
        )
    return name.lower()


def domain(value: object, folder: Path) -> str:
    """A domain in lower case; one in other scripts is kept as it is written."""
    name = text(value, folder).strip().rstrip(".").lower()
    ascii_name = name
    if not name.isascii():
        try:
            ascii_name = name.encode("idna").decode("ascii")
        except UnicodeError:
            ascii_name = ""
    if not is_host_name(ascii_name):
        raise Unfit(f"{show(value)} is not a domain", 'write a domain such as "example.com"')
    return name


def domain_set(value: object, folder: Path) -> str:
    """`example.com`, or `*.example.com` for everything below it. A lone `*` would make an open relay."""
    name = text(value, folder).strip()
    if name in ("*", "*.", "."):
        raise Unfit(
            '"*" would take mail for every domain from anybody: an open relay',
            "name your own domains; for clients that may send anywhere use relay_from with their networks",
        )
    if name.startswith("*."):
        rest = domain(name[2:], folder)
        if "." not in rest:
            raise Unfit(f"{show(value)} covers a whole top-level domain", "name your own domains")
        return "*." + rest
    return domain(name, folder)


def pattern(value: object, folder: Path) -> str:
    """Which recipients: `*`, a domain, `*.example.com`, or one address."""
    name = text(value, folder).strip()
    if name == "*":
        return name
    try:
        if "@" in name:
            return address(name, folder).text
        if name.startswith("*."):
            return "*." + domain(name[2:], folder)
        return domain(name, folder)
    except Unfit:
        raise Unfit(
            f"{show(value)} matches nothing",
            'write "*", "example.com", "*.example.com" or one address',
        ) from None


def address(value: object, folder: Path) -> Address:
    """One mail address, `local@domain`."""
    name = text(value, folder).strip()
    local, at, rest = name.rpartition("@")
    good = bool(at and local) and len(local.encode()) <= 64 and not re.search(r"[\s<>()\[\],;:\\\"@]", local)
    if good and not local.startswith(".") and not local.endswith(".") and ".." not in local:
        try:
            return Address(f"{local}@{domain(rest, folder)}".encode())
        except Unfit:
            pass
    raise Unfit(
        f"{show(value)} is not a mail address", 'write it as "name@example.com", without angle brackets'
    )


def network(value: object, folder: Path) -> Network:
    """A network in CIDR form; one address alone is a network of one."""
    words = text(value, folder).strip()
    try:
        return ipaddress.ip_network(words)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(words, strict=False)
    except ValueError:
        raise Unfit(
            f"{show(value)} is not a network", 'write it as "192.168.1.0/24" or "2001:db8::/32"'
        ) from None
    raise Unfit(
        f"{show(value)} has bits set behind the mask",
        f'write "{meant}", or a longer mask if you mean one host',
    )


def _endpoint(words: str, default_port: int | None, lowest_port: int) -> Endpoint | None:
    if words.startswith("["):
        host, bracket, rest = words[1:].partition("]")
        if not bracket or not _is_ip(host) or ":" not in host:
            return None
        port_words = rest[1:] if rest.startswith(":") else None
        if rest and port_words is None:
            return None
    elif words.count(":") > 1:
        return None
    else:
        host, colon, rest = words.partition(":")
        port_words = rest if colon else None
        if not (_is_ip(host) or is_host_name(host)):
            return None
    if port_words is None:
        return None if default_port is None else Endpoint(host, default_port)
    if not (port_words.isascii() and port_words.isdigit() and len(port_words) <= 5):
        return None
    port = int(port_words)
    return Endpoint(host, port) if lowest_port <= port <= 65535 else None


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def listen_endpoint(value: object, folder: Path) -> Endpoint:
    """Where to listen: address and port; port 0 takes a free one."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise Unfit(
            f"{value} is a port without an address", f'write "127.0.0.1:{value}" or "0.0.0.0:{value}"'
        )
    found = _endpoint(text(value, folder).strip(), None, 0)
    if found is None:
        raise Unfit(
            f"{show(value)} is not address and port", 'write it as "127.0.0.1:25", "0.0.0.0:25" or "[::1]:25"'
        )
    return found


def next_hop(value: object, folder: Path) -> Endpoint:
    """A host to send to; without a port it is 25."""
    words = text(value, folder).strip()
    found = _endpoint(words, 25, 1)
    if found is None:
        raise Unfit(
            f"{show(value)} is not host and port", 'write it as "smtp.example.com:587" or "[2001:db8::1]:25"'
        )
    return found


def keyword(value: object, folder: Path) -> str:
    """An EHLO keyword that can be switched off."""
    name = text(value, folder).strip().upper()
    if name not in KEYWORDS:
        raise Unfit(f"{show(value)} is not a keyword that can be switched off", f"use {', '.join(KEYWORDS)}")
    return name


# --- sinks ---------------------------------------------------------------------------------------

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONDITION = re.compile(r"\s*(EHLO|MAIL\s+FROM|RCPT\s+TO)\s*=\s*(\S.*?)\s*", re.IGNORECASE)


def sink_file(value: object, folder: Path) -> SinkFile:
    """`path.py` or `path.py:function`."""
    words = text(value, folder).strip()
    name, colon, function = words.rpartition(":")
    if not colon:
        name, function = words, ""
    if not name.endswith(".py") or (colon and not _NAME.fullmatch(function)):
        raise Unfit(
            f"{show(value)} is not a Python file", 'write it as "sinks/stamp.py" or "sinks/stamp.py:function"'
        )
    return SinkFile(path(name, folder), function)


def import_path(value: object, folder: Path) -> str:
    """`package.module:attribute`."""
    words = text(value, folder).strip()
    module, colon, attribute = words.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    if not colon or not all(_NAME.fullmatch(part) for part in parts):
        raise Unfit(f"{show(value)} is not an import path", 'write it as "package.module:function"')
    return words


def rule(value: object, folder: Path) -> str:
    """Conditions `RCPT TO=…`, `MAIL FROM=…` or `EHLO=…`, separated by `;`; a `*` only at the ends of a part."""
    words = text(value, folder).strip()
    for condition in words.split(";"):
        found = _CONDITION.fullmatch(condition)
        if found is None:
            raise Unfit(
                f"{show(condition.strip())} is not a condition",
                'write "RCPT TO=*@example.com", "MAIL FROM=*" or "EHLO=*example.com"; separate several by ;',
            )
        name, _, domain_part = found[2].rpartition("@")
        if "*" in name.removeprefix("*").removesuffix("*") or (name and "*" in domain_part.removeprefix("*")):
            raise Unfit(
                f"{show(found[2])} has a * where it means nothing",
                "put a * at the start or end of the name, and at the start of the domain",
            )
    return words


def plain_settings(value: object, _: Path) -> dict[str, Scalar]:
    """A table of texts, numbers and truth values, handed to the sink as it is."""
    if not isinstance(value, dict):
        raise Unfit(f"{show(value)} is not a table", 'write settings = { field = "X-Stamp" }')
    if len(value) > 1000:
        raise Unfit(f"holds {len(value)} settings", "use at most 1000")
    settings: dict[str, Scalar] = {}
    for name, one in value.items():
        if not isinstance(one, str | int | float | bool):
            raise Unfit(f"{name} is {show(one)}", "use texts, numbers, true and false only")
        settings[name] = one
    return settings

"""Paths, parameters and xtext as they stand in commands (RFC 5321 §4.1.2, RFC 3461 §4).

Nothing with CR, LF, NUL or another control character becomes an `Address`. Functions take what is behind the verb and
raise `RemoteProtocolError` with the reply to give. Every pattern is linear in its input; inputs are bounded by the
limit of command lines.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

from lonedot.protocol import answers
from lonedot.protocol.errors import RemoteProtocolError
from lonedot.terms.address import NULL_REVERSE_PATH, Address
from lonedot.terms.reply import Reply

__all__ = [
    "NO_BRACKETS",
    "SPACE_AFTER_COLON",
    "GivenPath",
    "is_clean_utf8",
    "is_ehlo_line",
    "is_xtext",
    "parse_forward_path",
    "parse_parameters",
    "parse_reverse_path",
    "parse_size",
]

LOCAL_LIMIT = 64  # RFC 5321 §4.5.3.1.1
DOMAIN_LIMIT = 255  # RFC 5321 §4.5.3.1.2
PATH_LIMIT = 256  # RFC 5321 §4.5.3.1.3, with brackets and source route

SPACE_AFTER_COLON = "space after the colon"
NO_BRACKETS = "no angle brackets"

# RFC 5321 §4.1.1.1: ehlo-line, within a reply line of 512 octets
_EHLO_LINE = re.compile(rb"(?=.{1,500}\Z)[A-Za-z0-9][A-Za-z0-9-]*(?: [!-~]+)*")
_ATEXT = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]"
_ASCII_ATEXT = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
# Underscores and outer hyphens are no host names, yet devices use them; they cannot harm anybody.
_LABEL = rb"[A-Za-z0-9_\x80-\xff-]+"
_ASCII_LABEL = rb"[A-Za-z0-9_-]+"
_DOMAIN = _LABEL + rb"(?:\." + _LABEL + rb")*"
_ASCII_DOMAIN = _ASCII_LABEL + rb"(?:\." + _ASCII_LABEL + rb")*"
_QUOTED = rb'"(?:[ !#-\[\]-~\x80-\xff]|\\[ -~])*"'
_LOCAL = _ATEXT + rb"+(?:\." + _ATEXT + rb"+)*|" + _QUOTED
_SIMPLE = _ASCII_ATEXT + rb"+(?:\." + _ASCII_ATEXT + rb"+)*@" + _ASCII_DOMAIN

# What nearly every client sends: one match and no further parsing.
_PLAIN_REVERSE_PATH = re.compile(rb"[Ff][Rr][Oo][Mm]:<(" + _SIMPLE + rb")?>")
_PLAIN_FORWARD_PATH = re.compile(rb"[Tt][Oo]:<(" + _SIMPLE + rb")>")

_BARE_MAILBOX = re.compile(_SIMPLE)
_ROUTE = re.compile(rb"@(?:" + _DOMAIN + rb"|\[[!-Z^-~]+\])(?:,@(?:" + _DOMAIN + rb"|\[[!-Z^-~]+\]))*:")
_MAILBOX = re.compile(rb"(" + _LOCAL + rb")@(?:(" + _DOMAIN + rb")|\[([!-Z^-~]+)\])")
# C1 controls and the line and paragraph separators, in UTF-8: some software takes them for line ends.
_UTF8_CONTROL = re.compile(rb"\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")
_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\x80-\xff]+))?")
_XTEXT = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_XTEXT_CONTROL = re.compile(rb"\+(?:[01][0-9A-F]|7F)")
_SIZE = re.compile(rb"[0-9]{1,20}")


class GivenPath(msgspec.Struct):
    """A path as the client gave it, and the rest of the line behind it."""

    address: Address
    parameters: bytes = b""
    """The octets behind the path, without the space; empty when nothing is there."""
    tolerated: str = ""
    is_ascii: bool = True


def parse_reverse_path(argument: bytes) -> GivenPath:
    """What is behind `MAIL`: `FROM:<…>` and its parameters.

    Raises:
        RemoteProtocolError: not a reverse-path.
    """
    if found := _PLAIN_REVERSE_PATH.match(argument):
        mailbox = found[1]
        end = found.end()
        if mailbox is None:
            if end == len(argument):
                return GivenPath(NULL_REVERSE_PATH)
        elif len(mailbox) <= PATH_LIMIT - 2 and mailbox.index(b"@") <= LOCAL_LIMIT:
            if end == len(argument):
                return GivenPath(Address(mailbox))
            if argument[end] == 32:
                return GivenPath(Address(mailbox), argument[end + 1 :].strip(b" "))
    if argument[:5].upper() != b"FROM:":
        raise RemoteProtocolError("no FROM: behind MAIL", answers.MAIL_SYNTAX)
    path = _parse_path(argument[5:], answers.REVERSE_PATH, answers.REVERSE_PATH_LONG)
    if path.address.octets.lower() == b"postmaster":
        raise RemoteProtocolError("a reverse-path without a domain", answers.REVERSE_PATH)
    return path


def parse_forward_path(argument: bytes) -> GivenPath:
    """What is behind `RCPT`: `TO:<…>` and its parameters. `<postmaster>` needs no domain (RFC 5321 §4.5.1).

    Raises:
        RemoteProtocolError: not a forward-path.
    """
    if found := _PLAIN_FORWARD_PATH.match(argument):
        mailbox = found[1]
        end = found.end()
        if len(mailbox) <= PATH_LIMIT - 2 and mailbox.index(b"@") <= LOCAL_LIMIT:
            if end == len(argument):
                return GivenPath(Address(mailbox))
            if argument[end] == 32:
                return GivenPath(Address(mailbox), argument[end + 1 :].strip(b" "))
    if argument[:3].upper() != b"TO:":
        raise RemoteProtocolError("no TO: behind RCPT", answers.RCPT_SYNTAX)
    path = _parse_path(argument[3:], answers.FORWARD_PATH, answers.FORWARD_PATH_LONG)
    if path.address.is_null:
        raise RemoteProtocolError("a null forward-path", answers.FORWARD_PATH)
    return path


def _parse_path(octets: bytes, malformed: Reply, too_long: Reply) -> GivenPath:
    text = octets.lstrip(b" ")
    tolerated = SPACE_AFTER_COLON if len(text) != len(octets) else ""
    if text[:1] != b"<":
        mailbox, _, parameters = text.partition(b" ")
        if not _BARE_MAILBOX.fullmatch(mailbox):
            raise RemoteProtocolError("no path in angle brackets", malformed)
        tolerated = f"{tolerated}, {NO_BRACKETS}" if tolerated else NO_BRACKETS
    else:
        end = _closing_bracket(text)
        if end < 0 or text[end + 1 : end + 2] not in {b"", b" "}:
            raise RemoteProtocolError("a path without its closing bracket", malformed)
        mailbox = text[1:end]
        parameters = text[end + 2 :]
    return _checked_path(mailbox, parameters.strip(b" "), tolerated, malformed, too_long)


def _closing_bracket(text: bytes) -> int:
    """Where the `>` of a path stands that starts at 0; one inside a quoted local part does not count."""
    if b'"' not in text:
        return text.find(b">")
    quoted = re.match(rb'<[^">]*' + _QUOTED, text)
    return text.find(b">", quoted.end() if quoted else 0)


def _checked_path(
    mailbox: bytes, parameters: bytes, tolerated: str, malformed: Reply, too_long: Reply
) -> GivenPath:
    if not mailbox:
        return GivenPath(NULL_REVERSE_PATH, parameters, tolerated)
    if len(mailbox) > PATH_LIMIT - 2:
        raise RemoteProtocolError(f"a path of {len(mailbox) + 2} octets", too_long)
    if route := _ROUTE.match(mailbox):
        # RFC 5321 §4.1.1.3, appendix C: source routes are accepted and ignored.
        mailbox = mailbox[route.end() :]
    is_ascii = mailbox.isascii()
    if not is_ascii and not is_clean_utf8(mailbox):
        raise RemoteProtocolError("8-bit octets in a path that are not clean UTF-8", malformed)
    found = _MAILBOX.fullmatch(mailbox)
    if found is None:
        if mailbox.lower() == b"postmaster":
            return GivenPath(Address(mailbox), parameters, tolerated)
        raise RemoteProtocolError("not a mailbox", malformed)
    local, domain, literal = found.groups()
    if len(local) > LOCAL_LIMIT or (domain is not None and len(domain) > DOMAIN_LIMIT):
        raise RemoteProtocolError("a local part or domain beyond its limit", too_long)
    if literal is not None and not _is_address_literal(literal):
        raise RemoteProtocolError("not an address literal", malformed)
    return GivenPath(Address(mailbox), parameters, tolerated, is_ascii)


def is_clean_utf8(octets: bytes) -> bool:
    """UTF-8 without C1 controls and Unicode line ends."""
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return _UTF8_CONTROL.search(octets) is None


def _is_address_literal(literal: bytes) -> bool:
    """`192.0.2.1` or `IPv6:2001:db8::1` (RFC 5321 §4.1.3); no other tag is registered."""
    text = literal.decode("ascii")
    try:
        if text[:5].lower() == "ipv6:":
            return ipaddress.IPv6Address(text[5:]).scope_id is None
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def parse_parameters(octets: bytes) -> list[tuple[bytes, bytes | None]]:
    """`KEYWORD=value` pairs, keywords in upper case; the value is None when there is no `=`.

    Raises:
        RemoteProtocolError: not parameters, or one of them twice.
    """
    pairs: list[tuple[bytes, bytes | None]] = []
    seen: set[bytes] = set()
    for word in octets.split():
        found = _PARAMETER.fullmatch(word)
        if found is None:
            raise RemoteProtocolError("not a parameter", answers.PARAMETER_SYNTAX)
        keyword = found[1].upper()
        if keyword in seen:
            raise RemoteProtocolError("a parameter twice", answers.PARAMETER_TWICE)
        seen.add(keyword)
        pairs.append((keyword, found[2]))
    return pairs


def parse_size(value: bytes) -> int:
    """A size of at most 20 decimal digits (RFC 1870 §4, RFC 3030 §2); -1 when it is anything else."""
    return int(value) if _SIZE.fullmatch(value) else -1


def is_ehlo_line(octets: bytes) -> bool:
    """A keyword with its parameters, as a line of the reply to EHLO."""
    return _EHLO_LINE.fullmatch(octets) is not None


def is_xtext(value: bytes) -> bool:
    """xtext (RFC 3461 §4) that hides no control character."""
    return _XTEXT.fullmatch(value) is not None and _XTEXT_CONTROL.search(value) is None

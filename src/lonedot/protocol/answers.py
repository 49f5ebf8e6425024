"""The server machine's own replies, each made once. Texts say what to do where there is something to do."""

from __future__ import annotations

from functools import lru_cache

from lonedot.protocol.errors import LocalProtocolError
from lonedot.terms.reply import Reply, reply

__all__: list[str] = []  # read by module name: `answers.OK`

_REPLY_LINE_LIMIT = 512  # RFC 5321 §4.5.3.1.5

# --- positive ---------------------------------------------------------------------------------------------------------
OK = reply(250, "2.0.0", "OK")
RESET = reply(250, "2.0.0", "OK, transaction forgotten")
BYE = reply(221, "2.0.0", "Goodbye")
HELP = reply(214, "2.0.0", "RFC 5321: EHLO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT and what EHLO lists")
SEND_OCTETS = reply(354, "", "Send binary data")
READY_FOR_TLS = reply(220, "2.0.0", "Ready to start TLS")

# --- lines ------------------------------------------------------------------------------------------------------------
BARE_CR = reply(500, "5.5.2", "Bare CR in a command; lines end in CRLF. Closing")
BARE_LF = reply(500, "5.5.2", "Bare LF in a command; lines end in CRLF. Closing")
NUL = reply(500, "5.5.2", "NUL in a command. Closing")
LINE_TOO_LONG = reply(500, "5.5.2", "Line too long")
LINE_ENDLESS = reply(500, "5.5.2", "Line too long. Closing")
AUTH_LINE_TOO_LONG = reply(500, "5.5.6", "Authentication exchange line is too long")
UNKNOWN_COMMAND = reply(500, "5.5.1", "Command not recognised")
UNKNOWN_COMMAND_AFTER_DATA = reply(500, "5.5.1", "Not a command, and DATA was refused. Closing")
UNKNOWN_COMMAND_AFTER_OCTETS = reply(500, "5.5.1", "Not a command, and the octets were refused. Closing")
NOT_IMPLEMENTED = reply(502, "5.5.1", "Command not implemented")

# --- sequence ---------------------------------------------------------------------------------------------------------
EHLO_FIRST = reply(503, "5.5.1", "EHLO or HELO first")
MAIL_FIRST = reply(503, "5.5.1", "MAIL first")
NESTED_MAIL = reply(503, "5.5.1", "Nested MAIL; RSET first")
RCPT_AFTER_CONTENT = reply(503, "5.5.1", "RCPT after BDAT; RSET first")
LHLO_FIRST = reply(503, "5.5.1", "LHLO first")
LMTP_SPOKEN = reply(500, "5.5.1", "LMTP is spoken here: LHLO")  # RFC 2033 §4.1
NO_RECIPIENTS_LMTP = reply(503, "5.5.1", "No valid recipients")  # RFC 2033 §4.2
NO_RECIPIENTS = reply(554, "5.5.1", "No valid recipients")
DATA_AFTER_BDAT = reply(503, "5.5.1", "DATA after BDAT; RSET first")
TRANSACTION_FAILED = reply(503, "5.5.1", "Transaction failed before; RSET first")
EARLY_TEXT = reply(554, "5.5.0", "Text before the reply to DATA. Closing")
EARLY_PLAINTEXT = reply(554, "5.5.0", "Octets behind STARTTLS before its reply. Closing")
TLS_FIRST = reply(530, "5.7.0", "Must issue a STARTTLS command first")
TLS_ALREADY = reply(503, "5.5.1", "TLS is active already")
AUTH_FIRST = reply(530, "5.7.0", "Authentication required")
AUTH_ALREADY = reply(503, "5.5.1", "Authenticated already")
AUTH_IN_TRANSACTION = reply(503, "5.5.1", "AUTH not permitted during a mail transaction")
AUTH_NEEDS_TLS = reply(538, "5.7.11", "Encryption required: STARTTLS first")
AUTH_MECHANISM = reply(504, "5.5.4", "Authentication mechanism not offered")
AUTH_ABORTED = reply(501, "5.7.0", "Authentication aborted")
AUTH_BASE64 = reply(501, "5.5.2", "Not base64")
AUTH_MESSAGE = reply(501, "5.5.2", "Not a message of this mechanism")
AUTH_OTHER_IDENTITY = reply(535, "5.7.8", "No right to act as another identity")

# --- arguments --------------------------------------------------------------------------------------------------------
NO_ARGUMENT = reply(501, "5.5.4", "Command takes no argument")
ARGUMENT_MISSING = reply(501, "5.5.4", "Argument missing")
CLIENT_NAME = reply(501, "5.5.4", "Domain or address literal expected")
MAIL_SYNTAX = reply(501, "5.5.4", "Syntax: MAIL FROM:<address>")
RCPT_SYNTAX = reply(501, "5.5.4", "Syntax: RCPT TO:<address>")
REVERSE_PATH = reply(501, "5.1.7", "Bad reverse-path syntax")
FORWARD_PATH = reply(501, "5.1.3", "Bad forward-path syntax")
REVERSE_PATH_LONG = reply(501, "5.1.7", "Reverse-path too long: 64 octets local part, 255 domain, 256 in all")
FORWARD_PATH_LONG = reply(501, "5.1.3", "Forward-path too long: 64 octets local part, 255 domain, 256 in all")
NEEDS_SMTPUTF8 = reply(553, "5.6.7", "Non-ASCII address without SMTPUTF8")
PARAMETER_UNKNOWN = reply(555, "5.5.4", "Parameter not recognised or not implemented")
PARAMETER_SYNTAX = reply(501, "5.5.4", "Bad parameter")
PARAMETER_TWICE = reply(501, "5.5.4", "Parameter given twice")
CHUNK_SYNTAX = reply(501, "5.5.4", "Syntax: BDAT size [LAST]. Closing")

# --- limits -----------------------------------------------------------------------------------------------------------
TOO_MANY_RECIPIENTS = reply(452, "4.5.3", "Too many recipients")
TOO_LARGE = reply(552, "5.3.4", "Message larger than the SIZE limit")
FAR_TOO_LARGE = reply(552, "5.3.4", "Message far larger than the SIZE limit. Closing")
TOO_MANY_ERRORS = reply(421, "4.7.0", "Too many errors. Closing")
TOO_MANY_REJECTIONS = reply(421, "4.7.0", "Too many refused addresses. Closing")
TOO_MANY_IDLE_COMMANDS = reply(421, "4.7.0", "Too many commands without a message. Closing")


def chunk_received(octets: int) -> Reply:
    """The answer to a BDAT that is not the last."""
    return reply(250, "2.0.0", f"{octets} octets received")


@lru_cache(maxsize=1024)
def encode(reply: Reply, has_enhanced_codes: bool) -> bytes:
    """The octets of a reply of ours: the last door before the wire.

    Raises:
        LocalProtocolError: its text holds a line end or NUL, or a line is longer than 512 octets.
    """
    if reply.enhanced and not has_enhanced_codes:
        reply = Reply(reply.code, "", reply.lines)
    octets = reply.encode()
    lines = octets.split(b"\r\n")
    if len(lines) != len(reply.lines) + 1 or b"\0" in octets:
        raise LocalProtocolError(f"a reply with a line end or NUL in its text: {reply.text}")
    for line in lines:
        if len(line) + 2 > _REPLY_LINE_LIMIT or b"\r" in line or b"\n" in line:
            raise LocalProtocolError(
                f"a reply line with a bare CR or LF, or over {_REPLY_LINE_LIMIT} octets: {reply.text}"
            )
    return octets

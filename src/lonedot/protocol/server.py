"""The server machine: what a listener's session says and hears, without I/O.

The shell's loop::

    machine.feed(octets)
    while (event := machine.next_event()) is not None:
        ...                                # an event that says *decide* waits for machine.respond(reply), now or later
    transport.write(machine.take_output())

A command that the shell wants to be asked about (`asked`) may also be answered with `machine.obey()`, or with
`machine.respond_behind(reply, octets)`, which reads octets behind it first.
`next_event` gives None when it needs octets or an answer. After a late answer the shell runs the same loop again, since
more commands may wait behind it. `Closed` and `QuitGiven` are last: write what is left, then close.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from lonedot.protocol.commands import (
    ANSWERED,
    COMMANDS,
    LMTP_COMMANDS,
    NOT_IMPLEMENTED,
    command_answered,
    not_implemented,
    not_recognised,
    unknown_answered,
)
from lonedot.protocol.exchange_verbs import exchange_verbs
from lonedot.protocol.extension import Extension
from lonedot.protocol.extensions import EXTENSIONS
from lonedot.protocol.options import DEFAULT_KEYWORDS, ServerLimits, ServerOptions
from lonedot.protocol.session import (
    ANY_VERB,
    Command,
    MailParameter,
    RcptParameter,
    ServerSession,
    Vocabulary,
)
from lonedot.protocol.state import State
from lonedot.terms.reply import Reply

__all__ = [
    "ANY_VERB",
    "DEFAULT_KEYWORDS",
    "ServerLimits",
    "ServerMachine",
    "ServerOptions",
    "State",
    "vocabulary_for",
]


def _ehlo(options: ServerOptions, offered: list[Extension], tls_active: bool) -> bytes:
    said = (extension.line(options, tls_active) for extension in offered)
    return Reply(250, "", (options.hostname, *(line for line in said if line is not None))).encode()


@lru_cache(maxsize=64)
def vocabulary_for(options: ServerOptions) -> Vocabulary:
    """What a listener with these options understands and offers; worked out once for all its sessions.

    Raises:
        ValueError: the host name cannot stand in a reply, or a keyword is unknown.
    """
    if not options.hostname or not options.hostname.isascii() or not options.hostname.decode().isprintable():
        raise ValueError(f"{options.hostname!r} cannot be the host name of a server")
    if unknown := options.keywords - {extension.keyword for extension in EXTENSIONS}:
        raise ValueError(f"no such EHLO keyword: {b', '.join(sorted(unknown)).decode('ascii', 'replace')}")
    limits = options.limits
    # In LMTP a chunk would be answered once or for each recipient, depending on whether it is the last.
    keywords = options.keywords - {b"CHUNKING"} if options.lmtp else options.keywords
    offered = [e for e in EXTENSIONS if e.keyword in keywords and e.is_available(options)]
    short = limits.command_line
    commands = {
        verb: Command(handler, short, ANSWERED.get(verb, command_answered))
        for verb, handler in COMMANDS.items()
    }
    mail_parameters: dict[bytes, MailParameter] = {}
    rcpt_parameters: dict[bytes, RcptParameter] = {}
    for extension in EXTENSIONS:
        for verb, handler in extension.commands.items():
            has_secret = verb in extension.secret_commands
            if extension in offered:
                limit = limits.auth_line if has_secret else short
                commands[verb] = Command(handler, limit, ANSWERED.get(verb, command_answered), has_secret)
            else:
                refuse = extension.commands_off.get(verb, not_implemented)
                commands[verb] = Command(refuse, short, ANSWERED.get(verb, unknown_answered), has_secret)
    for extension in offered:
        mail_parameters.update(extension.mail_parameters)
        rcpt_parameters.update(extension.rcpt_parameters)
    for verb in NOT_IMPLEMENTED:
        commands[verb] = Command(not_implemented, short, unknown_answered)
    commands.update(exchange_verbs(short))
    if options.lmtp:
        for verb, handler in LMTP_COMMANDS.items():
            commands[verb] = Command(handler, short, command_answered)
    mail_limit = short + sum(extension.mail_octets for extension in offered)
    rcpt_limit = short + sum(extension.rcpt_octets for extension in offered)
    commands[b"MAIL"] = Command(COMMANDS[b"MAIL"], mail_limit, command_answered)
    commands[b"RCPT"] = Command(COMMANDS[b"RCPT"], rcpt_limit, command_answered)
    return Vocabulary(
        commands=commands,
        unknown=Command(not_recognised, short, unknown_answered),
        mail_parameters=mail_parameters,
        rcpt_parameters=rcpt_parameters,
        longest_line=max(command.line_limit for command in commands.values()),
        ehlo=_ehlo(options, offered, tls_active=False),
        ehlo_in_tls=_ehlo(options, offered, tls_active=True),
        has_enhanced_codes=b"ENHANCEDSTATUSCODES" in options.keywords,
    )


class ServerMachine(ServerSession):
    """One SMTP session as the server sees it: octets in, events out; answers in, octets out.

    `hear` is called with every command line as it is obeyed or refused, without CRLF, cut and with secrets hidden: for
    transcripts. Content is not heard.

    Raises:
        ValueError: options that make no sense (see `vocabulary_for`).
    """

    __slots__ = ()

    def __init__(self, options: ServerOptions, hear: Callable[[bytes], object] | None = None) -> None:
        super().__init__(options, vocabulary_for(options), hear)

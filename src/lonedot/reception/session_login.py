"""One AUTH command: who says whether somebody may log in. Nothing here is kept, and no password is ever told."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lonedot.protocol.events import AuthRequested
from lonedot.reception.logins import Logins
from lonedot.reception.session_asking import Asker
from lonedot.reception.session_sinks import LOGIN_NOT_CHECKED, NOT_LOGGED_IN, Word, success
from lonedot.sinks.bindings import Chains
from lonedot.sinks.events import Event
from lonedot.sinks.protocol import Command, Credentials
from lonedot.terms.reply import Reply

__all__ = ["Answered", "ask_login"]

LOGGED_IN = success(Event.AUTH)

Answered = Callable[[bytes, Reply, bool], None]
"""Takes the identity, the answer, and whether that one is logged in by it."""


def ask_login(
    event: AuthRequested,
    chains: Chains,
    asker: Asker,
    logins: Logins | None,
    answered: Answered,
    noted: Callable[[str, str], None],
) -> None:
    """Sinks first; when none of them knows the login, the file of the listener."""
    asker.ask(
        chains,
        Event.AUTH,
        partial(_take_word, event, asker, logins, answered, noted),
        command=Command(b"AUTH", event.mechanism),
        credentials=Credentials(event.mechanism.decode(), event.identity, event.password),
    )


def _take_word(
    event: AuthRequested,
    asker: Asker,
    logins: Logins | None,
    answered: Answered,
    noted: Callable[[str, str], None],
    word: Word,
) -> None:
    if word.refusal is not None:
        answered(event.identity, word.refusal, False)
    elif word.acceptance is not None:
        answered(event.identity, word.acceptance, True)
    elif logins is None:
        answered(event.identity, NOT_LOGGED_IN, False)
    else:
        check = logins.check(event.identity, event.password)
        asker.wait(check, partial(_take_check, event.identity, answered, noted), None)


def _take_check(
    identity: bytes, answered: Answered, noted: Callable[[str, str], None], fits: bool | None
) -> None:
    if fits is None:
        noted("login.not-checked", "the logins cannot be read, or too many are being checked")
        answered(identity, LOGIN_NOT_CHECKED, False)
    elif fits:
        answered(identity, LOGGED_IN, True)
    else:
        answered(identity, NOT_LOGGED_IN, False)

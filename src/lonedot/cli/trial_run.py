"""What `lonedot try` does: starts relay and catcher on loopback, plays the copier, watches, stops everything.

The configuration is written into the folder, so that every other command works with this relay too. What is told
comes from what was stored and what was caught, read again behind every event.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import signal
import smtplib
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path

import msgspec

from lonedot.app import AppFault, Relay
from lonedot.cli import trial_story as story
from lonedot.cli.output import Problem, print_json
from lonedot.cli.samples import COPIER, RECIPIENT, SENDER, letter, scan_message, scan_pdf
from lonedot.cli.trial_checks import Caught, Check, Submission, damager_of, judge
from lonedot.cli.trial_show import Screen
from lonedot.cli.trial_story import Line, Setting
from lonedot.config.load import load
from lonedot.diagnosis.record import Record, record_of
from lonedot.message.trace import date_time
from lonedot.reception.recorder import Recorded, Recorder, RecorderOptions
from lonedot.spool.interface import MessageState, NoSuchMessage, Stored
from lonedot.terms.ids import MessageId

__all__ = ["Trial"]

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""The last is what a terminal sends when its window is closed."""
HOST = "127.0.0.1"
RELAY_PORT = 2525
CATCHER_PORT = 2526
PATIENCE_SECONDS = 30.0
"""How long the story waits for the relay."""
STORED_SECONDS = 5.0
"""How long an outcome may take from being known to being readable in the spool."""
KEPT_MESSAGES = 50
"""How many of the catcher's messages are kept for comparison."""

_TRACE_ID = re.compile(rb"\bid ([0-9a-v]{13})\b")
_QUEUED_AS = re.compile(r"\bqueued as ([0-9a-v]{13})\b")

_CONFIG = """\
# Written by `lonedot try`. Other commands work with it too: lonedot queue list -c THIS_FILE

[server]
hostname = "relay.example.com"
spool = "spool"
log_level = "error"
keep_content = "all"
drain_seconds = 2

[[listener]]
name = "copiers"
address = "{host}:{relay_port}"
relay_from = ["127.0.0.0/8"]

[[route]]
name = "catcher"
to = "*"
smarthost = "{host}:{catcher_port}"

[pickup]
enabled = false

[[sink]]
name = "X-Recipient"
import = "lonedot.sinks.builtin.x_recipient:x_recipient"
priority = 28010

[[sink]]
name = "XRecipientList (faulty)"   # damages what it sees, on purpose: never bind it to real mail
import = "lonedot.sinks.builtin.faulty:x_recipient_list"
priority = 28020
"""


class _Told(msgspec.Struct, frozen=True):
    """The story as JSON."""

    held: bool
    checks: tuple[Check, ...]
    relay: str
    catcher: str
    damaged_by: str
    reply: str
    message: Record | None


class _Seen(msgspec.Struct, frozen=True):
    """A further message as JSON."""

    event: str
    id: str
    words: str
    message: Record | None


class Trial:
    """One run of the command."""

    def __init__(self, folder: Path, screen: Screen | None, *, once: bool, command: str = "lonedot") -> None:
        """`screen` None prints JSON; `command` is how a shell finds this command."""
        self.config_file = folder / "lonedot.toml"
        self.held = False
        """Every check of the story held."""
        self._folder = folder
        self._screen = screen
        self._once = once
        self._command = command
        self._events: asyncio.Queue[tuple[str, Mapping[str, object]]] = asyncio.Queue()
        self._caught: dict[str, Caught] = {}
        """By message id, the newest last."""

    async def run(self) -> None:
        """Start everything, tell the story, stay up unless `once`, stop everything.

        Raises:
            Problem: something cannot be started.
        """
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in STOPPING:
            loop.add_signal_handler(name, stop.set)
        catcher = await _start_catcher(self._note_caught)
        try:
            relay = await self._start_relay(catcher.port)
            try:
                await _unless(stop, self._play(relay, f"{HOST}:{catcher.port}"))
            finally:
                await relay.stop()
        finally:
            await catcher.stop()
            for name in STOPPING:
                loop.remove_signal_handler(name)

    # --- the cast ---

    async def _start_relay(self, catcher_port: int) -> Relay:
        (self._folder / "scan.pdf").write_bytes(scan_pdf())
        (self._folder / "letter.eml").write_bytes(letter(date_time(time.time())))
        for port in (RELAY_PORT, 0) if _is_free(RELAY_PORT) else (0,):
            text = _CONFIG.format(host=HOST, relay_port=port, catcher_port=catcher_port)
            self.config_file.write_text(text, encoding="utf-8")
            relay = Relay(load(self.config_file))
            relay.subscribe(lambda name, fields: self._events.put_nowait((name, fields)))
            try:
                await relay.start()
            except AppFault as fault:
                if port and not _is_free(port):  # somebody has taken it since we looked
                    continue
                raise Problem(str(fault)) from fault
            return relay
        raise AssertionError("the last port is any port")

    def _note_caught(self, recorded: Recorded) -> None:
        found = _TRACE_ID.search(recorded.content, 0, 4096)
        if found is None:
            return
        self._caught[found[1].decode()] = Caught(
            content=recorded.content,
            wire=recorded.wire,
            ended_by=recorded.ended_by,
            reply=recorded.reply.text,
            is_chunked=recorded.mode == "BDAT",
        )
        while len(self._caught) > KEPT_MESSAGES:
            del self._caught[next(iter(self._caught))]

    # --- the play ---

    async def _play(self, relay: Relay, catcher: str) -> None:
        host, port = relay.addresses["copiers"]
        setting = Setting(
            relay=f"{host}:{port}",
            catcher=catcher,
            sinks=tuple(sink.name for sink in relay.config.sinks),
            folder=str(self._folder),
            config=str(self.config_file),
            letter=str(self._folder / "letter.eml"),
            scan=str(self._folder / "scan.pdf"),
            command=self._command,
            recipient=RECIPIENT.text,
        )
        self._show(story.opening(setting))
        id = await self._tell(relay, setting)
        if self._once:
            return
        self._show(story.invitation(setting, id or "ID"))
        while True:
            await self._watch(relay)

    async def _tell(self, relay: Relay, setting: Setting) -> str:
        """The story of the scan; returns its id, empty when it was not accepted."""
        host, port = relay.addresses["copiers"]
        submission = await asyncio.to_thread(_submit, host, port)
        self._show(story.arrival(submission))
        stored: Stored | None = None
        caught: Caught | None = None
        if submission.id:
            stored = await self._concluded(relay, submission.id)
            caught = self._caught.get(submission.id)
        if stored is not None:
            self._show(story.sinks(stored))
            self._show(story.leaving(stored))
            self._show(story.catch(submission, caught))
        checks = judge(submission, stored, caught)
        self.held = all(check.held for check in checks)
        damager = damager_of(stored) if stored is not None else ""
        self._show(story.verdict(checks, damager))
        if self._screen is None:
            record = None if stored is None else record_of(stored)
            print_json(
                _Told(self.held, checks, setting.relay, setting.catcher, damager, submission.reply, record)
            )
        return submission.id

    async def _concluded(self, relay: Relay, id: str) -> Stored | None:
        """The message after its first attempt, or as it stands when the patience ends."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    name, fields = await self._events.get()
                    if name == "message.settled" and fields["id"] == id:
                        return await _stored(relay, id, str(fields["state"]))
        return await _stored(relay, id, "")

    async def _watch(self, relay: Relay) -> None:
        """Tell of one event, when it is one to tell of."""
        name, fields = await self._events.get()
        id = str(fields["id"])
        match name:
            case "message.refused":
                reply = str(fields["reply"])
                self._show(story.refusal(id, reply, str(fields["words"])))
                if self._screen is None:
                    print_json(_Seen(name, id, reply, None))
            case "message.accepted":
                stored = await _stored(relay, id, "")
                if stored is not None and stored.state is not MessageState.QUEUED:
                    self._tell_journey(name, stored)
            case "message.settled":
                stored = await _stored(relay, id, str(fields["state"]))
                if stored is not None:
                    self._tell_journey(name, stored)

    def _tell_journey(self, name: str, stored: Stored) -> None:
        self._show(story.journey(stored, self._caught.get(stored.id)))
        if self._screen is None:
            print_json(_Seen(name, stored.id, stored.reason, record_of(stored)))

    def _show(self, lines: Iterator[Line]) -> None:
        if self._screen is not None:
            self._screen.show(lines)


def _submit(host: str, port: int) -> Submission:
    """Plays the copier. What the relay refuses is in `reply`, with an empty `id`."""
    content = scan_message(date_time(time.time()))
    id, words = "", ""
    began = time.monotonic()
    try:
        with smtplib.SMTP(host, port, COPIER, PATIENCE_SECONDS) as client:
            client.ehlo_or_helo_if_needed()
            for code, text in (client.mail(SENDER.text), client.rcpt(RECIPIENT.text)):
                if code >= 400:
                    raise smtplib.SMTPResponseException(code, text)
            began = time.monotonic()
            code, text = client.data(content)
            words = f"{code} {text.decode('utf-8', 'backslashreplace')}"
    except smtplib.SMTPResponseException as error:
        said = error.smtp_error
        text_said = said.decode("utf-8", "backslashreplace") if isinstance(said, bytes) else said
        words = f"{error.smtp_code} {text_said}"
    except (OSError, smtplib.SMTPException) as error:
        words = words or f"{type(error).__name__}: {error}"
    took = time.monotonic() - began
    if words.startswith("2") and (found := _QUEUED_AS.search(words)):
        id = found[1]
    return Submission(COPIER, RECIPIENT.text, content, scan_pdf(), words, id, took)


async def _stored(relay: Relay, id: str, state: str) -> Stored | None:
    """The message as the spool has it; with `state`, waits (not for ever) until it is in that state and was tried."""
    ends_at = time.monotonic() + STORED_SECONDS
    while True:
        try:
            stored = relay.spool.show(MessageId(id))
        except NoSuchMessage:
            return None
        if not state or (stored.state.value == state and stored.attempts) or time.monotonic() > ends_at:
            return stored
        await asyncio.sleep(0.005)


async def _start_catcher(on_message: Callable[[Recorded], None]) -> Recorder:
    """On its usual port, or on any when that is taken."""
    for port in (CATCHER_PORT, 0):
        # Without CHUNKING every message comes by DATA, and its end is a matter of dots.
        options = RecorderOptions(
            host=HOST,
            port=port,
            hostname=b"catcher.example.com",
            not_offered=frozenset({b"CHUNKING"}),
            keep=1,
        )
        catcher = Recorder(options, on_message=on_message)
        try:
            await catcher.start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not port:
                raise Problem(f"cannot listen: {error.strerror}", where=f"{HOST}:{port}") from error
        else:
            return catcher
    raise AssertionError("the second port is any port")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError:
            return False
    return True


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Do the work, but end it when asked to stop."""
    doing = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((doing, stopping), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            await doing
    finally:
        for task in (doing, stopping):
            task.cancel()
        await asyncio.gather(doing, stopping, return_exceptions=True)

"""Sinks of transport events for the tests of a whole relay: what each does stands in its settings."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

from lonedot import Defer, Discard, Edit, Hold, Message, Next, Redirect, Reject, Stop, sink
from lonedot.sinks.verdicts import Verdict


def _log(message: Message) -> None:
    """The key of the call goes into a file, and is there before anything else happens."""
    file = str(message.settings.get("log", ""))
    if file:
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{message.key}\n".encode())
        finally:
            os.close(descriptor)


def _wait(message: Message) -> None:
    """Until the file `wait` is gone."""
    file = str(message.settings.get("wait", ""))
    while file and Path(file).exists():
        threading.Event().wait(0.005)


@sink("mark", effects={"header"})
def mark(message: Message) -> Verdict:
    """Adds a field with its name, or says what `say` says of recipients that `to` names."""
    _log(message)
    _wait(message)
    said = str(message.settings.get("say", ""))
    wanted = str(message.settings.get("to", ""))
    people = [recipient.address.text for recipient in message.envelope.recipients]
    name = str(message.settings.get("name", "mark"))
    edits = [Edit.add_field("X-Mark", f"{name} {people[0] if len(people) == 1 else len(people)}")]
    if wanted and wanted not in people:
        return Next(edits)
    verdicts: dict[str, Verdict] = {
        "stop": Stop(edits),
        "hold": Hold("a look, please", edits),
        "reject": Reject("no", 554, "5.6.0"),
        "defer": Defer("later", 450, "4.2.0"),
        "discard": Discard("away"),
    }
    if said.startswith("redirect "):
        return Redirect(said.removeprefix("redirect "), edits)
    return verdicts.get(said, Next(edits))


@sink("once", effects={"header"})
def once(message: Message) -> Verdict:
    """Is killed, together with its relay, while the file `armed` is there; that file is gone by then."""
    _log(message)
    armed = Path(str(message.settings["armed"]))
    if armed.exists() and message.envelope.recipients[0].address.text == message.settings.get("at", "any"):
        armed.unlink()
        with contextlib.suppress(ProcessLookupError):
            os.kill(os.getppid() if message.settings.get("apart", True) else os.getpid(), signal.SIGKILL)
        threading.Event().wait(60)
    return Next([Edit.add_field("X-Mark", f"once {message.envelope.recipients[0].address.text}")])


@sink("told")
def told(message: Message) -> Verdict:
    """Writes down for whom an attempt ended, and how."""
    with Path(str(message.settings["log"])).open("a") as file:
        for recipient, outcome in message.outcomes:
            file.write(f"{message.id} {recipient.address.text} {outcome.result.value}\n")
    return Next()


@sink("away", effects={"header"})
def away(message: Message) -> Verdict:
    """To the route that has the name of the recipient before the `@`."""
    recipient = message.envelope.recipients[0].address
    return Redirect(recipient.local.decode(), [Edit.add_field("X-Away", recipient.text)])

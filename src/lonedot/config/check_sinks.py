"""Sinks: where their code is, and combinations that would let through what they guard against."""

from __future__ import annotations

import importlib.util
from collections.abc import Container, Iterator
from typing import TypeVar

import msgspec

from lonedot.config import disk
from lonedot.config.given import Drafts, Found, Given
from lonedot.config.model import Sink
from lonedot.sinks.bindings import OnDamage, OnError, Role
from lonedot.sinks.events import Event
from lonedot.sinks.load import offered_as

__all__ = ["judge", "judge_policy", "judge_source", "not_installed"]

S = TypeVar("S", bound=msgspec.Struct)


def judge(drafts: Drafts) -> Iterator[Found]:
    """Everything to say about `[[sink]]`."""
    names: dict[tuple[int, Event, str], str] = {}
    guids: dict[str, str] = {}
    for given in drafts.sinks:
        sink = given.value
        if sink is None:
            continue
        if given.knows("name"):
            key = (sink.source, sink.event or Event.ARRIVAL, sink.name.casefold())
            if key in names:
                what = f'"{sink.name}" is also the name of {names[key]}'
                yield given.fault("name", what, "use different names")
            elif sink.guid in guids:
                yield given.fault("guid", f"is also the GUID of {guids[sink.guid]}", "use different ones")
            names.setdefault(key, given.where)
            guids.setdefault(sink.guid, given.where)
        yield from _judge_code(given, sink)
        yield from judge_source(given, sink.source, sink.enabled, drafts.numbers, drafts.served)
        yield from judge_policy(given, sink.role, sink.on_damage, sink.on_error)


def _judge_code(given: Given[Sink], sink: Sink) -> Iterator[Found]:
    if not given.knows("file", "import"):
        return
    if given.has("file") and given.has("import"):
        yield given.fault("import", "stands beside file", "keep one of the two")
    elif sink.file is not None:
        unfit = disk.check_sink_file(sink.file)
        if unfit is not None:
            yield given.fault("file", unfit.what, unfit.do)
    elif sink.import_path:
        missing = not_installed(sink.import_path)
        if missing:
            yield given.fault("import", missing, "install it where lonedot is installed, or mend the name")
    else:
        yield given.fault("", "has no code", 'write file = "sinks/stamp.py:function", or import')


def not_installed(import_path: str) -> str:
    """What is not there of an import path, in words; empty when it is. Nothing of the package runs."""
    module, colon, _ = import_path.partition(":")
    if not colon:
        return "" if offered_as(import_path) else f"no installed package offers a sink {import_path}"
    package = module.partition(".")[0]
    # Of a top-level name this only looks for the file; nothing of the package runs.
    try:
        found = importlib.util.find_spec(package) is not None
    except (ImportError, ValueError, OSError):
        found = False
    return "" if found else f"there is no package {package}"


def judge_source(
    given: Given[S], number: int, is_enabled: bool, sources: Container[int], served: Container[int] | None
) -> Iterator[Found]:
    """A binding of a virtual server that is not there, or that takes no mail. `served`: those that do, where known."""
    if not given.knows("source"):
        return
    if number not in sources:
        do = f"write [[source]] with number = {number}, or source = 1"
        yield given.fault("source", f"there is no source {number}", do)
    elif is_enabled and served is not None and number not in served:
        what = f"no listener and no Pickup belong to source {number}: it never fires"
        yield given.warning("source", what, f"write source = {number} at a [[listener]]")


def judge_policy(
    given: Given[S], role: Role | None, on_damage: OnDamage | None, on_error: OnError | None
) -> Iterator[Found]:
    """Combinations by which a protective sink would let mail pass."""
    if role is not Role.PROTECTIVE or not given.knows("role", "on_damage", "on_error"):
        return
    if on_damage in (OnDamage.UNDO, OnDamage.REPAIR):
        what = f"{on_damage.value} lets mail pass that a protective sink was about to change"
        yield given.fault("on_damage", what, 'write on_damage = "hold" or "reject"')
    if on_error is OnError.SKIP:
        yield given.fault(
            "on_error",
            "skip lets mail pass unscanned when the sink fails",
            'write on_error = "defer" or "hold"',
        )

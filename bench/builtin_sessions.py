"""What the sinks of a session that come with the relay cost: the second half of `python -m bench sinks --part builtin`.

All that run in the relay are taken from the catalogue, so a new one needs no line here. Each is bound as its first
configuration says and asked of the same session again and again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from bench.load import LoadError
from lonedot.sinks.bindings import Binding, Isolation, Setting
from lonedot.sinks.calls import Decision
from lonedot.sinks.catalogue import FIRST_SETTINGS, built_ins
from lonedot.sinks.events import EVENTS, Event, Shows
from lonedot.sinks.load import bind, load_import
from lonedot.sinks.protocol import ask
from lonedot.testing import make_session

__all__ = ["measure", "measured_names"]

SETTINGS: Mapping[str, Mapping[str, Setting]] = {
    "rate-limit": {"limit": 1_000_000_000},
}
"""Where the first settings would refuse what is asked here."""
COMMANDS = {Event.VERB: ("XEXCH50", "1092 2")}


def _bindings() -> dict[str, Binding]:
    found = {}
    for one in built_ins():
        if EVENTS[one.event].shows is Shows.SESSION:
            settings = SETTINGS.get(one.name, FIRST_SETTINGS.get(one.name, {}))
            binding = bind(load_import(one.code), sink_class=one.code, settings=settings)
            if binding.isolation is Isolation.INLINE:
                found[one.name] = binding
    return found


def measured_names() -> frozenset[str]:
    """Those that `measure` knows."""
    return frozenset(_bindings())


def measure(questions: int) -> dict[str, float]:
    """Microseconds of CPU for one question, by the name of the sink.

    Raises:
        LoadError: a sink refused.
    """
    spent = {}
    for name, binding in _bindings().items():
        moment = make_session(binding.event, trusted=True, command=COMMANDS.get(binding.event)).moment
        began = time.process_time()
        for _ in range(questions):
            judged = ask(moment, [binding])
            if judged.decision is not Decision.ACCEPT:
                raise LoadError(f"{name}: {judged.decision.value}: {judged.words}")
        spent[name] = (time.process_time() - began) / questions * 1e6
    return spent

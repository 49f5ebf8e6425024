"""What is noted of one captured session: steps, findings, the longest wait. Bounded, however long the session is."""

from __future__ import annotations

import re
from collections import deque

from lonedot.diagnosis.sniffing_values import VERDICTS, Code, Finding, Step, Wait, Weight

__all__ = ["Notes", "named"]

_STEPS_LIMIT = 100
"""So many from the beginning, and so many from the end."""
_FINDINGS_LIMIT = 40
_TIMES_LIMIT = 3
"""A finding of one kind is told so often; then it is counted."""

_NAMES = {0x0D: " CR ", 0x0A: " LF ", 0x00: " NUL "}
_NAMED = {octet: _NAMES.get(octet, f" <{octet:02X}> ") for octet in range(256) if not 0x20 < octet < 0x7F}


def named(octets: bytes) -> str:
    """Line ends by name and dots apart: `%%EOF LF . CR LF`."""
    text = octets.decode("latin-1").replace(" ", "\0SP").translate(_NAMED).replace(" NUL SP", " ")
    text = re.sub(r"(?<= (?:CR|LF)) +\.(?= +(?:CR|LF)|\Z)", " . ", text)
    return " ".join(text.split())


class Notes:
    """Of one session."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.times: dict[Code, int] = {}
        """How often each was found, also those that are not told."""
        self.longest: Wait | None = None
        self.left_out = 0
        """Steps between the first and the last."""
        self._steps: list[Step] = []
        self._late_steps: deque[Step] = deque(maxlen=_STEPS_LIMIT)

    @property
    def steps(self) -> tuple[Step, ...]:
        return *self._steps, *self._late_steps

    def waited(self, seconds: float, waiting: str, for_what: str) -> None:
        if seconds > 0 and (self.longest is None or seconds > self.longest.seconds):
            self.longest = Wait(seconds, waiting, for_what)

    def find(
        self, code: Code, words: str, at: float, frame: int, *, offset: int | None = None, octets: bytes = b""
    ) -> None:
        times = self.times[code] = self.times.get(code, 0) + 1
        if times > _TIMES_LIMIT or len(self.findings) >= _FINDINGS_LIMIT:
            return
        weight = VERDICTS[code].weight
        self.findings.append(
            Finding(
                code=code, weight=weight, words=words, at=at, frame=frame, offset=offset, octets=named(octets)
            )
        )
        if weight is Weight.FAULT:
            self.step(at, "", words, is_fault=True)

    def step(self, at: float, side: str, text: str, *, is_fault: bool = False) -> None:
        step = Step(at, side, text, is_fault)
        if len(self._steps) < _STEPS_LIMIT:
            self._steps.append(step)
            return
        if len(self._late_steps) == _STEPS_LIMIT:
            self.left_out += 1
        self._late_steps.append(step)

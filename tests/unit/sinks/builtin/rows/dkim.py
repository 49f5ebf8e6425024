"""DKIM in the contract suite: it asks nobody, and what it signs holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lonedot.message.dkimverify import Standing, verify
from lonedot.message.intake import content_from
from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin.dkim import Dkim
from tests.unit.sinks.builtin.contract import Row
from tests.unit.sinks.builtin.dkim_keys import Keys

__all__ = ["ROWS"]

KEYS = Keys()


def settings(folder: Path, address: str) -> Mapping[str, Setting]:
    return {"domain": "example.com", "selector": "s1", "key": str(KEYS.write_ed25519(folder))}


def judge(before: bytes, after: bytes) -> None:
    if not before.startswith(b"From:"):
        assert after == before
        return
    assert after.startswith(b"DKIM-Signature: v=1; a=ed25519-sha256;")
    assert after.endswith(before)
    (checked,) = verify(content_from(after), KEYS.find)
    assert checked.standing is Standing.PASSED, checked.words


ROWS = (Row("dkim", Dkim, settings=settings, judge=judge),)

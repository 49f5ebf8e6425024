"""DKIM signatures judged by others: dkimpy, and opendkim."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
from pathlib import Path

import dkim  # type: ignore[import-untyped]  # it has no types
import pytest

from lonedot.message.content import Content
from lonedot.message.dkimverify import Standing, verify
from lonedot.message.edits import lower
from lonedot.message.fold import apply_changes
from lonedot.message.intake import content_from
from lonedot.sinks.builtin.dkim import Dkim, DkimSettings
from lonedot.testing.sinks import make_message
from tests.corpus.messages import random_message
from tests.need import need
from tests.unit.sinks.builtin.dkim_keys import Keys

MESSAGES = 1000
WAYS = tuple(itertools.product(("r", "e"), ("relaxed", "simple"), ("relaxed", "simple")))
ENDS = (b"", b"\r\n", b"\r\n\r\n\r\n", b" \t\r\n", b" \r\n \r\n", b".\r\n", b"a  b \t c \r\n")
DOMAIN = "office.example"
KEYS = Keys()


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> list[Content]:
    """Generated messages, signed in every way."""
    folder = tmp_path_factory.mktemp("keys")
    paths = {"r": KEYS.write_rsa(folder), "e": KEYS.write_ed25519(folder)}
    sinks = [
        Dkim(
            DkimSettings(
                domain=DOMAIN,
                selector=kind,
                key=str(paths[kind]),
                canonicalization=f"{head}/{body}",
                sign_others=True,
            )
        )
        for kind, head, body in WAYS
    ]
    made: list[Content] = []
    for seed in itertools.count():
        if len(made) == MESSAGES:
            return made
        rng = random.Random(seed)
        octets = random_message(rng) + rng.choice(ENDS)
        if rng.random() < 0.1:
            octets = octets.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + rng.choice(ENDS)
        given = content_from(octets)
        if not given.is_canonical or not made_of_fields(given):
            continue
        verdict = sinks[len(made) % len(sinks)](make_message(octets))
        assert verdict.edits, octets
        made.append(apply_changes(given, lower(verdict.edits, given)))
    raise AssertionError


def made_of_fields(content: Content) -> bool:
    return len(re.findall(rb"(?mi)^from:", content.head)) == 1


def test_every_way_is_judged(signed: list[Content]) -> None:
    texts = [content.head for content in signed]
    for algorithm in (b"rsa-sha256", b"ed25519-sha256"):
        for pair in (b"relaxed/relaxed", b"relaxed/simple", b"simple/relaxed", b"simple/simple"):
            assert sum(b"a=" + algorithm in text and b"c=" + pair in text for text in texts) >= 100
    assert sum(content.has_eight_bit for content in signed) >= 100
    assert sum(content.body.size < 10 for content in signed) >= 50


def test_we_agree(signed: list[Content]) -> None:
    for content in signed:
        (one,) = verify(content, KEYS.find)
        assert one.standing is Standing.PASSED, (one.words, content.octets())


def test_dkimpy_agrees(signed: list[Content]) -> None:
    for content in signed:
        octets = content.octets()
        assert dkim.verify(octets, dnsfunc=lambda name, timeout=5: KEYS.find(name)), octets


def test_opendkim_agrees(signed: list[Content], tmp_path: Path) -> None:
    program = need("opendkim", "opendkim")
    records = "".join(
        f"{name}._domainkey.{DOMAIN} {KEYS.find(name.encode()).decode()}\n" for name in ("r", "e")
    )
    (tmp_path / "keys").write_text(records)
    (tmp_path / "conf").write_text(
        f"Mode v\nSyslog no\nTestPublicKeys {tmp_path}/keys\nSocket local:{tmp_path}/s\n"
    )
    assert judged(program, tmp_path, signed) == [True] * len(signed)
    broken = [content_from(content.octets() + b"x\r\n") for content in signed[:: MESSAGES // 20]]
    assert judged(program, tmp_path, broken) == [False] * len(broken)


def judged(program: Path, folder: Path, contents: list[Content]) -> list[bool]:
    """Whether opendkim says of each that its signature holds."""
    files = []
    for number, content in enumerate(contents):
        file = folder / f"{number}.eml"
        file.write_bytes(content.octets())
        files.append(str(file))
    command = [str(program), "-x", str(folder / "conf"), "-t", ",".join(files)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    said = ran.stdout.splitlines()
    assert len(said) == len(contents), (said[-3:], ran.stderr[-500:])
    return [line.endswith("succeeded") for line in said]

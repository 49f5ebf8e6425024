"""`check` finds every fault at once: those put into a good configuration are named by their lines, and no others."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from lonedot.config.faults import Severity
from lonedot.config.load import examine, keys_of
from lonedot.config.reference import TABLES
from lonedot.config.values import Unfit

MAIN, INCLUDED = "lonedot.toml", "conf.d/more.toml"

GOOD: Mapping[str, list[tuple[str, list[str]]]] = {
    MAIN: [
        ("[server]", ['hostname = "relay.example.com"', 'postmaster = "postmaster@example.com"']),
        ("[[listener]]", ['address = "127.0.0.1:2525"', 'relay_from = ["127.0.0.0/8"]']),
        ("[[listener]]", ['address = "127.0.0.1:2526"', 'name = "second"', 'relay_to = ["example.org"]']),
        ("[[route]]", ['to = "example.org"', 'smarthost = "192.0.2.1"', 'name = "org"']),
        ("[[route]]", ['to = "*"', "mx = true"]),
        ("[metrics]", ['address = "127.0.0.1:9125"']),
        ("[badmail]", []),
    ],
    INCLUDED: [
        ("[pickup]", ["enabled = true"]),
        ("[sendmail]", ["enabled = true"]),
        ("[[source]]", ["number = 2"]),
        ("[[listener]]", ['address = "127.0.0.1:2527"', 'relay_from = ["10.0.0.0/8"]', "source = 2"]),
        ("[[domain]]", ['name = "example.net"']),
        ("[[rewrite]]", ['to = "*@old.example"', 'into = "*@example.net"']),
        ("[[sink]]", ['name = "x"', 'import = "lonedot.sinks.builtin.x_recipient:x_recipient"']),
    ],
}

KINDS = dict(TABLES)
ODD = [
    "-1",
    "nan",
    '""',
    '"\\u0007"',
    "[[]]",
    "{ zz = {} }",
    "1979-05-27",
    '"no such thing"',
    '["", 1]',
    "true",
    "1e300",
]


JUDGED = {
    "[server]": ['user = "no-such-user-here"'],
    "[[listener]]": ['logins = "/"', 'tls = "starttls"', "source = 7"],
    "[[route]]": [
        'login = "relay"',
        'password = "x"',
        'password_command = ["no-such-program-here"]',
        'password_file = "no-such-file"',
        'hold = "later"',
        'tls_ca = "no-such-file"',
    ],
    "[[sink]]": ["source = 7"],
    "[[domain]]": [
        'aliases = "no-such-file"',
        'lists = "no-such-file"',
        'recipients = { file = "no-such-file" }',
    ],
    "[sendmail]": ['group = "no-such-group-here"'],
}
"""Lines that can be read, and are wrong all the same."""

TOGETHER = [
    {"tls", "tls_certificate", "tls_key", "require_tls", "ehlo_off"},
    {"login", "password", "password_file", "password_env", "password_command"},
    {"name", "aliases", "lists", "recipients"},
    {"smarthost", "mx", "lmtp", "maildir", "pipe", "drop", "discard", "hold", "tls", "tls_ca"},
]
"""Keys that are judged with one another: with one that cannot be read, nothing is said of the others."""


class Fault(NamedTuple):
    """A line that is wrong, and the table below whose header it goes."""

    file: str
    table: int
    line: str
    key: str
    """It takes the place of this key, if that is there."""


def bad_lines(header: str) -> list[tuple[str, str]]:
    """Keys of a table with lines that are wrong."""
    found = [("no_such_key_here", "no_such_key_here = 1")]
    found += [(line.split(" = ")[0], line) for line in JUDGED.get(header, ())]
    for name, key in keys_of(KINDS[header]).items():
        for text in ODD:
            try:
                key.read(tomllib.loads(f"x = {text}")["x"], Path("/nowhere"))
            except Unfit as unfit:
                if not unfit.others:
                    found.append((name, f"{name} = {text}"))
    return found


BAD = {header: bad_lines(header) for header in {header for part in GOOD.values() for header, _ in part}}


@st.composite
def injected(draw: st.DrawFn) -> list[Fault]:
    """Faults, at most one to a key of a table."""
    found: dict[tuple[str, int, str], Fault] = {}
    for _ in range(draw(st.integers(0, 8))):
        file = draw(st.sampled_from(sorted(GOOD)))
        table = draw(st.integers(0, len(GOOD[file]) - 1))
        key, line = draw(st.sampled_from(BAD[GOOD[file][table][0]]))
        group = {key}.union(*[group for group in TOGETHER if key in group])
        beside = [found[place] for one in group if (place := (file, table, one)) in found]
        judged = JUDGED.get(GOOD[file][table][0], ())
        if any(one.line in judged for one in beside) or (beside and line in judged):
            continue
        found[file, table, key] = Fault(file, table, line, key)
    return list(found.values())


def write(folder: Path, faults: list[Fault]) -> set[tuple[str, int]]:
    """Both files; the lines with the faults, by file and number."""
    places: set[tuple[str, int]] = set()
    for file, tables in GOOD.items():
        lines = ['include = ["conf.d/*.toml"]', ""] if file == MAIN else ["# more", ""]
        for number, (header, good) in enumerate(tables):
            lines.append(header)
            wrong = {fault.key: fault.line for fault in faults if (fault.file, fault.table) == (file, number)}
            for line in [*good, *wrong.values()]:
                if line in wrong.values():
                    places.add((str(folder / file), len(lines) + 1))
                elif line.split(" = ")[0] in wrong:
                    continue
                lines.append(line)
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text("\n".join(lines) + "\n")
        (folder / file).chmod(0o600)
    return places


def faults_of(folder: Path) -> set[tuple[str, int]]:
    found = examine(folder / MAIN).faults
    return {(fault.file, fault.line) for fault in found if fault.severity is Severity.FAULT}


@given(injected())
def test_each_fault_is_named_at_its_line_and_no_other(faults: list[Fault]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = write(folder, faults)
        assert faults_of(folder) == places


def test_every_key_has_a_value_that_is_wrong() -> None:
    """Else the property above would leave it out in silence."""
    for header, bad in BAD.items():
        assert set(keys_of(KINDS[header])) == {key for key, _ in bad} - {"no_such_key_here"}, header

"""What is said about rewriting, by line."""

from __future__ import annotations

import pytest

from lonedot.config.check_rewrites import _wider
from lonedot.config.check_routes import covers
from lonedot.config.load import Examined
from tests.unit.config.conftest import Say


def told(examined: Examined) -> list[str]:
    return [f"{f.severity.value} {f.line} {f.where}: {f.what}" for f in examined.faults]


def test_what_is_sound_is_told_nothing(say: Say) -> None:
    examined = say(
        """
[[rewrite]]
to = "keep@old.example"
into = "keep@old.example"
[[rewrite]]
from = ["*@old.example", "*@*.old.example"]
to = "old.example"
into = "*@new.example"
[[rewrite]]
to = "*@*.far.example"
into = "*@*.near.example"
"""
    )
    assert told(examined) == []
    assert examined.config is not None
    assert [(one.sender, one.to, one.into) for one in examined.config.rewrites] == [
        ((), ("keep@old.example",), "keep@old.example"),
        (("old.example", "*.old.example"), ("old.example",), "new.example"),
        ((), ("*.far.example",), "*.near.example"),
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('into = "x@new.example"', ["fault 10 rewrite 1: names no addresses"]),
        ('to = "old.example"', ["fault 10 rewrite 1: into: is missing"]),
        (
            'to = "old.example"\ninto = "*@*.new.example"',
            ["fault 12 rewrite 1: into: keeps a host that not all patterns have"],
        ),
        (
            'to = ["x@old.example", "old.example"]\ninto = "old.example"',
            ['warning 11 rewrite 1: to: "*@old.example" becomes what it is'],
        ),
        (
            'to = "old.example"\ninto = "new.example"\n[[rewrite]]\nto = ["x@old.example"]\ninto = "y@new.example"',
            [
                'warning 14 rewrite 2: to: "x@old.example" is never used: '
                "rewrite 1 takes these recipients before"
            ],
        ),
        (
            'from = "old.example"\ninto = "mid.example"\n[[rewrite]]\nfrom = "mid.example"\ninto = "new.example"',
            [
                "warning 12 rewrite 1: into: rewrite 2 takes *@mid.example too, "
                "but nothing is written anew twice"
            ],
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(say: Say, lines: str, said: list[str]) -> None:
    assert told(say(f"[[rewrite]]\n{lines}\n")) == said


@pytest.mark.parametrize("into", ["*", "*@", "x y@new.example", "<x@new.example>", "new..example", ""])
def test_what_nothing_can_become(say: Say, into: str) -> None:
    (line,) = told(say(f'[[rewrite]]\nto = "old.example"\ninto = "{into}"\n'))
    assert line.startswith("fault 12 rewrite 1: into: ")


def test_recipients_must_come_out_where_a_route_leads(say: Say) -> None:
    route = '[[route]]\nto = ["new.example", "relay.example.com"]\nsmarthost = "192.0.2.9"\n'
    listener = '[[listener]]\naddress = "127.0.0.1:2525"\nrelay_to = ["old.example"]\n'
    rewrite = '[[rewrite]]\nto = "old.example"\ninto = "new.example"\n'
    assert told(say(rewrite, listener=listener, route=route)) == []
    astray = rewrite.replace("new.example", "far.example")
    assert told(say(astray, listener=listener, route=route)) == [
        "fault 6 listener 1: relay_to: mail for old.example is taken, but no route leads there",
        "fault 12 rewrite 1: into: no route leads to *@far.example",
    ]


PATTERNS = ["*", "a.test", "b.a.test", "*.a.test", "*.b.a.test", "x@a.test", "x@b.a.test", "a", "x@a"]


@pytest.mark.parametrize("narrow", PATTERNS)
def test_wider_patterns_are_those_that_cover(narrow: str) -> None:
    assert {one for one in PATTERNS if covers(one, narrow)} == set(_wider(narrow)) & set(PATTERNS)

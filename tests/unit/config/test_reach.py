"""Where a route leads and for what: what the file says, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lonedot.app.settings import asker_from, route_from
from lonedot.delivery.conditions import Conditions, HeaderPattern
from lonedot.delivery.routing import (
    Discard,
    Drop,
    Family,
    Hold,
    Lmtp,
    Maildir,
    Mx,
    NextHop,
    Pipe,
    Smarthosts,
    Target,
)
from lonedot.message.filed import LineEnd
from tests.unit.config.conftest import SERVER, Say

ANY = '[[route]]\nto = "*"\n'


@pytest.mark.parametrize(
    ("lines", "target"),
    [
        (
            'smarthost = ["a.example", "b.example:26"]',
            Smarthosts((NextHop("a.example"), NextHop("b.example", 26))),
        ),
        ("mx = true", Mx()),
        ('mx = true\nip = "6"\nmx_port = 2525', Mx(Family.IPV6, 2525)),
        ('lmtp = "unix:/run/lmtp"', Lmtp((NextHop("/run/lmtp", 0),))),
        ('lmtp = "127.0.0.1:24"', Lmtp((NextHop("127.0.0.1", 24),))),
        (
            'maildir = "/srv/{domain}/{local}"\nmaildir_create = true',
            Maildir("/srv/{domain}/{local}", create=True),
        ),
        (
            'pipe = ["/bin/x", "{sender}"]\npipe_user = "nobody"\npipe_seconds = 5',
            Pipe(("/bin/x", "{sender}"), "nobody", 5.0),
        ),
        ('maildir = "/srv/{local}"\nline_end = "CRLF"', Maildir("/srv/{local}", LineEnd.CRLF)),
        (
            'pipe = ["/bin/x"]\nline_end = "CRLF"\npipe_environment = { QUEUE = "sales", A_1 = "" }',
            Pipe(("/bin/x",), environment=(("A_1", ""), ("QUEUE", "sales")), line_end=LineEnd.CRLF),
        ),
        ("discard = true", Discard()),
        ('hold = "later"', Hold("later")),
    ],
)
def test_targets(say: Say, lines: str, target: Target) -> None:
    config = say(route=f"{ANY}{lines}\n").config
    assert config is not None
    assert route_from(config.routes[0], config).target == target


def test_conditions(say: Say) -> None:
    lines = 'from = "<>"\nlistener = "dsn"\nnetwork = "10.0.0.0/8"\nsize_over = "1 KiB"\nheader = "X-A=*b*"\n'
    config = say(route=f"{ANY}mx = true\n{lines}").config
    assert config is not None
    route = config.routes[0]
    assert route_from(route, config).conditions == Conditions(
        ("<>",), ("dsn",), route.network, 1024, -1, (HeaderPattern("X-A", "*b*"),)
    )
    plain = say(route=f"{ANY}mx = true\n").config
    assert plain is not None
    assert route_from(plain.routes[0], plain).conditions is None


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("", "route 1: leads nowhere"),
        ("mx = false", "route 1: leads nowhere"),
        ('mx = true\nhold = "x"', "hold: stands beside mx"),
        ('mx = true\nlogin = "x"\npassword = "y"', "login: cannot be used with mx"),
        ('mx = true\nlistener = "nobody"', 'listener: there is no listener "nobody"'),
        ('mx = true\nheader = "Subject"', "header: "),
        ('maildir = "/srv/{name}"', "maildir: "),
        ('pipe = "program"', "pipe: "),
        ("mx = true\npipe_seconds = 4", "pipe_seconds: is not used"),
        ('mx = true\nline_end = "LF"', "line_end: is not used: the route has no maildir or pipe"),
        ('maildir = "/srv/{local}"\nline_end = "lf"', 'line_end: "lf" is not one of the choices'),
        ('pipe = ["/bin/x"]\npipe_environment = { "A B" = "x" }', '"A B" is not the name of a variable'),
        ('pipe = ["/bin/x"]\npipe_environment = { A = 1 }', "pipe_environment: A is 1"),
        ('pipe = ["/bin/x"]\npipe_environment = "A=1"', "pipe_environment: "),
        ("mx = true\nsize_over = 10\nsize_under = 11", "size_under: leaves no size"),
    ],
)
def test_what_is_said_about_it(say: Say, lines: str, words: str) -> None:
    assert any(words in str(fault) for fault in say(route=f"{ANY}{lines}\n").faults)


def test_a_route_with_conditions_hides_none_behind_it(say: Say) -> None:
    first = f'{ANY}mx = true\nsize_over = "1 MiB"\n'
    assert not any("never used" in str(fault) for fault in say(route=f"{first}{ANY}mx = true\n").faults)


def test_name_servers(say: Say) -> None:
    config = say(server=SERVER + 'nameservers = ["192.0.2.53", "2001:db8::53", "[::1]:5353"]\n').config
    assert config is not None
    assert [(one.host, one.port) for one in config.server.nameservers] == [
        ("192.0.2.53", 53),
        ("2001:db8::53", 53),
        ("::1", 5353),
    ]
    asker_from(config)
    assert say(server=SERVER + 'nameservers = "ns.example.com"\n').config is None


def test_a_drop_folder_for_each_virtual_server(say: Say, tmp_path: Path) -> None:
    more = (
        "[drop]\nenvelope = false\n"
        '[[source]]\nnumber = 2\npickup = "p2"\n[[source]]\nnumber = 7\npickup = "p7"\ndrop = "seven"\n'
    )
    config = say(more, route=f"{ANY}drop = true\n").config
    assert config is not None
    target = route_from(config.routes[0], config).target
    assert target == Drop(
        ((1, tmp_path / "spool/drop"), (2, tmp_path / "spool/drop-2"), (7, tmp_path / "seven")), False
    )
    assert [target.folder_of(number).name for number in (1, 2, 7, 9)] == ["drop", "drop-2", "seven", "drop"]

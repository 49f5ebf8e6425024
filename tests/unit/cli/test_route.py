"""`lonedot route` over a configuration and a name server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from lonedot.cli import run
from tests.unit.delivery.name_server import Fails, name_server

CONFIG = """\
[server]
hostname = "relay.example.com"
nameservers = ["127.0.0.1:{port}"]
[[listener]]
name = "copiers"
address = "127.0.0.1:2525"
relay_from = ["127.0.0.0/8"]
[[route]]
name = "large"
to = "*"
size_over = "1 MiB"
hold = "too large"
[[route]]
name = "invoices"
to = "*"
from = ["*.branch.example"]
header = "Subject=*invoice*"
listener = "copiers"
network = "192.168.10.0/24"
smarthost = ["a.example:587", "b.example"]
tls = "verified"
[[route]]
name = "world"
to = ["*.test", "[127.0.0.1]"]
mx = true
"""
CONFIG = CONFIG.replace(', "[127.0.0.1]"', "")
ZONE = {
    "d.test": ["MX 20 b.test", "MX 10 a.test", "MX 30 relay.example.com"],
    "a.test": ["A 192.0.2.1", "AAAA 2001:db8::1"],
    "b.test": ["A 192.0.2.2"],
    "null.test": ["MX 0 ."],
}


async def told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *arguments: str,
    faults: dict[str, Fails] | None = None,
) -> tuple[int, str]:
    """Exit code and what was printed."""
    async with name_server(ZONE, faults) as server:
        file = tmp_path / "lonedot.toml"
        file.write_text(CONFIG.format(port=server.port))
        code = await asyncio.to_thread(run, ["route", *arguments, "-c", str(file)])
    out, err = capsys.readouterr()
    return code, out + err


async def test_hosts_by_preference_and_what_was_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = await told(tmp_path, capsys, "u@d.test", "--from", "x@y.branch.example")
    assert (code, text.splitlines()) == (
        0,
        [
            "not large: size 0 is not over 1048576",
            "not invoices: listener (none) is not copiers",
            "route world: mx of d.test (from DNS, good for 300 s), "
            "TLS opportunistic (STARTTLS where offered, any certificate)",
            "     10  a.test:25  2001:db8::1, 192.0.2.1  (from DNS, good for 300 s)",
            "     20  b.test:25  192.0.2.2  (from DNS, good for 300 s)",
            "  not tried: relay.example.com: is this relay",
        ],
    )


async def test_every_condition_can_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--from", "x@y.branch.example", "--listener", "copiers", "--client", "192.168.10.9"]
    field = ["--header", "Subject: Invoice 7"]
    code, text = await told(tmp_path, capsys, "u@d.test", *given, *field)
    assert (code, text.splitlines()[1:]) == (
        0,
        [
            "route invoices: smarthost, TLS verified (nothing without it, name and issuer are checked)",
            "  a.example:587",
            "  b.example:25",
        ],
    )
    code, text = await told(tmp_path, capsys, "u@d.test", *given, "--size", "2000000")
    assert (code, text) == (0, "route large: hold: too large\n")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (
            "u@null.test",
            "returned to the sender (5.1.10): the domain null.test takes no mail: it has a null MX",
        ),
        ("u@gone.test", "returned to the sender (5.1.2): the domain gone.test does not exist"),
        ("u@sour.test", "put off (4.4.3): DNS fails for sour.test MX: SERVFAIL"),
        (
            "u@else.example",
            "put off (4.4.4): no [[route]] takes u@else.example: it would wait until it expires",
        ),
    ],
)
async def test_what_would_not_arrive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str, words: str
) -> None:
    code, text = await told(tmp_path, capsys, address, faults={"sour.test": Fails.SERVFAIL})
    assert (code, text.splitlines()[-1]) == (1, words)


async def test_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = await told(tmp_path, capsys, "u@d.test", "--json")
    said = msgspec.json.decode(text, type=dict[str, object])
    assert code == 0
    assert said["route"] == "world"
    assert said["hosts"] == [
        {
            "host": "a.test:25",
            "preference": 10,
            "addresses": ["2001:db8::1", "192.0.2.1"],
            "from_cache": False,
            "ttl_seconds": 300.0,
        },
        {
            "host": "b.test:25",
            "preference": 20,
            "addresses": ["192.0.2.2"],
            "from_cache": False,
            "ttl_seconds": 300.0,
        },
    ]
    assert list(said) == [
        "address",
        "passed",
        "route",
        "target",
        "tls",
        "hosts",
        "left_out",
        "problem",
        "status",
        "is_final",
        "from_cache",
        "ttl_seconds",
        "tls_ca",
        "written",
        "lists",
        "members",
        "leads_to",
        "revision",
    ]


async def test_a_field_without_a_colon_is_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = await told(tmp_path, capsys, "u@d.test", "--header", "Subject")
    assert code == 2
    assert "no colon" in text

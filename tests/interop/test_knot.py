"""Mail by MX with a real authoritative name server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lonedot.delivery.dns import Dns, Kind, ServerAsker, Status
from lonedot.delivery.mx import HostFinder, RouteResolver
from lonedot.delivery.routing import Mx, NoNextHop
from lonedot.spool.interface import RecipientStatus
from lonedot.terms.outcome import Outcome, Result
from lonedot.testing.relay import running_relay
from tests.peers.knot import Knot, need_knot
from tests.system.talk import MESSAGE, finished, submit
from tests.unit.delivery.outbound import SystemClock, claim, outbound, route
from tests.unit.delivery.peer import Peer, running

ZONE = """\
@ MX 10 mail
mail A 127.0.0.1
two MX 10 away
two MX 20 mail
away A 127.0.0.77
null MX 0 .
bare A 127.0.0.1
alias CNAME two
host CNAME mail
hosted MX 5 host
hollow TXT "nothing else"
many MX 10 mail
""" + "".join(f"many TXT {'x' * 200}{n}\nmany MX 20 {'host' * 12}{n}\n" for n in range(60))


@pytest.fixture(scope="module")
def knot() -> Iterator[Knot]:
    need_knot()
    with Knot({"d.test": ZONE}) as one:
        yield one


def finder(knot: Knot) -> HostFinder:
    return HostFinder(Dns(ServerAsker([knot.address]), SystemClock()))


@pytest.mark.parametrize(
    ("domain", "hosts"),
    [
        ("d.test", [("mail.d.test", ("127.0.0.1",))]),
        ("two.d.test", [("away.d.test", ("127.0.0.77",)), ("mail.d.test", ("127.0.0.1",))]),
        ("alias.d.test", [("away.d.test", ("127.0.0.77",)), ("mail.d.test", ("127.0.0.1",))]),
        ("bare.d.test", [("bare.d.test", ("127.0.0.1",))]),
        ("hosted.d.test", [("host.d.test", ("127.0.0.1",))]),
        ("many.d.test", [("mail.d.test", ("127.0.0.1",))]),
    ],
)
async def test_hosts(knot: Knot, domain: str, hosts: list[tuple[str, tuple[str, ...]]]) -> None:
    exchange = await finder(knot).exchange(domain, Mx())
    assert [(host.name, host.addresses) for host in exchange.hosts] == hosts


@pytest.mark.parametrize(
    ("domain", "status", "is_final"),
    [
        ("null.d.test", "5.1.10", True),
        ("nobody.d.test", "5.1.2", True),
        ("hollow.d.test", "5.4.4", True),
        ("elsewhere.test", "4.4.3", False),  # REFUSED: not its zone
    ],
)
async def test_no_host(knot: Knot, domain: str, status: str, is_final: bool) -> None:
    with pytest.raises(NoNextHop) as caught:
        await finder(knot).exchange(domain, Mx())
    assert (caught.value.status, caught.value.is_final) == (status, is_final)


async def test_the_time_to_live_is_that_of_the_zone(knot: Knot) -> None:
    for name, status in (("d.test", Status.FOUND), ("nobody.d.test", Status.NO_NAME)):
        answer = await ServerAsker([knot.address]).ask(name, Kind.MX)
        assert (answer.status, answer.ttl_seconds) == (status, 300)


async def test_failover_to_the_second_host(knot: Knot) -> None:
    async with running(Peer()) as peer:
        over = route(peer.port, target=Mx(port=peer.port))
        async with outbound(over, resolver=RouteResolver(finder(knot))) as out:
            outcome: Outcome = await out.outcome(claim(b"u@two.d.test"))
    assert outcome.result is Result.DELIVERED
    assert outcome.next_hop == f"mail.d.test[127.0.0.1]:{peer.port}"


CONFIG = """\
[server]
hostname = "relay.example.com"
nameservers = ["127.0.0.1:{dns}"]
[[listener]]
name = "in"
address = "127.0.0.1:0"
relay_from = ["127.0.0.0/8"]
[[route]]
name = "nowhere"
to = "d.test"
header = "Subject=*unwanted*"
discard = true
[[route]]
name = "world"
to = "*"
mx = true
mx_port = {port}
"""


async def test_a_relay_by_mx(knot: Knot, tmp_path: Path) -> None:
    async with running(Peer()) as peer:
        toml = CONFIG.format(dns=knot.address.port, port=peer.port)
        async with running_relay(tmp_path, toml) as relay:
            unwanted = MESSAGE.replace(b"Subject: hello", b"Subject: an unwanted thing")
            dropped = await submit(relay, unwanted, "u@d.test")
            nowhere = (await finished(relay, dropped)).recipients[0]
            id = await submit(relay, MESSAGE, "u@two.d.test", "u@null.d.test")
            stored = await finished(relay, id)
    assert (nowhere.route, nowhere.status) == ("nowhere", RecipientStatus.DELIVERED)
    statuses = {one.recipient.address.octets: one.status for one in stored.recipients}
    assert statuses == {
        b"u@two.d.test": RecipientStatus.DELIVERED,
        b"u@null.d.test": RecipientStatus.FAILED,
    }
    assert peer.sessions == 1

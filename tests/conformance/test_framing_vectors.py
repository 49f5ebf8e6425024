"""All framing vectors over real sockets, through a running relay, to strict next hops.

With `line_ends = "reject"` every vector gives its `default`, with `normalize` one of its `allow`. The client is a
stranger to the relay (it may send to `dest.test` alone), so no trust softens a policy.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import cast

import anyio
import pytest
import trustme

from lonedot.spool.interface import Filter
from lonedot.testing.relay import running_relay
from tests.conformance.vector_client import Json, Played, VectorClient, judge
from tests.peers.strict_sink import DEFAULT_EXTENSIONS, StrictSink

VECTORS: list[Json] = [
    json.loads(line)
    for line in (Path(__file__).parent.parent / "vectors" / "framing.jsonl").read_text().splitlines()
]
AT_ONCE = 24

CONFIG = """
[server]
hostname = "relay.example.com"
spool = "spool"
max_size = "4 MiB"

[[listener]]
name = "in"
address = "127.0.0.1:0"
relay_to = ["dest.test"]
line_ends = "{line_ends}"
tls = "starttls"
tls_certificate = "cert.pem"
tls_key = "key.pem"
max_connections_per_client = 1000

[[route]]
name = "seven"
to = {seven}
smarthost = "127.0.0.1:{seven_port}"

[[route]]
name = "eight"
to = "*"
smarthost = "127.0.0.1:{port}"
"""


class Results:
    """What became of every vector under one policy."""

    def __init__(self) -> None:
        self.played: dict[str, Played] = {}
        self.messages: dict[str, dict[str, list[bytes]]] = {}
        self.bounced: set[str] = set()
        self.faults: list[str] = []


async def run_all(folder: Path, line_ends: str) -> Results:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "key.pem").chmod(0o600)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    seven = [f"{v['id']}.a@dest.test" for v in VECTORS if v.get("downstream") == "7bit"]
    plain = [word for word in DEFAULT_EXTENSIONS if word not in ("8BITMIME", "SMTPUTF8")]
    results = Results()
    with StrictSink() as eight_sink, StrictSink(extensions=plain) as seven_sink:
        toml = CONFIG.format(
            line_ends=line_ends,
            seven=json.dumps(seven),
            seven_port=seven_sink.port,
            port=eight_sink.port,
        )
        async with running_relay(folder, toml) as relay:
            host, port = relay.addresses["in"]
            limiter = asyncio.Semaphore(AT_ONCE)

            async def play(vector: Json) -> None:
                async with limiter:
                    sender = f"{vector['id']}@sender.test"
                    client = VectorClient(vector, host, port, sender, context)
                    results.played[str(vector["id"])] = await client.play()

            await asyncio.gather(*(play(vector) for vector in VECTORS))
            with anyio.move_on_after(20):
                while True:
                    if not relay.spool.listing(Filter(limit=1)):
                        break
                    await asyncio.sleep(0.05)
            assert relay.spool.listing(Filter()) == []
            probe, writer = await asyncio.open_connection(host, port)
            assert (await probe.readline()).startswith(b"220")
            writer.close()
            await writer.wait_closed()
        arrivals = [*eight_sink.arrivals, *seven_sink.arrivals]
        results.faults = [*eight_sink.faults, *seven_sink.faults]
    for arrival in arrivals:
        assert len(arrival.recipients) == 1
        recipient = arrival.recipients[0].decode()
        id = recipient[:4]
        if recipient.endswith("@sender.test"):
            results.bounced.add(id)
            continue
        assert arrival.reverse_path.decode() == f"{id}@sender.test", f"smuggled envelope: {arrival.mail!r}"
        if arrival.bare_octets:
            results.faults.append(f"{id}: bare octets left the relay")
        key = recipient[5]
        results.messages.setdefault(id, {}).setdefault(key, []).append(arrival.content)
        if arrival in seven_sink.arrivals and not arrival.wire.isascii():
            results.faults.append(f"{id}: 8-bit octets to a 7-bit next hop")
    return results


@pytest.fixture(scope="module", params=["reject", "normalize"])
def policy_results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Results]:
    policy: str = request.param
    return policy, asyncio.run(run_all(tmp_path_factory.mktemp(policy), policy))


def as_is(outcome: Json) -> Json:
    """The outcome with only those contents permitted that nothing changed."""
    msgs = cast("dict[str, list[Json]]", outcome["msgs"])
    unchanged = {key: [form for form in forms if form["label"] == "as-is"] for key, forms in msgs.items()}
    return {**outcome, "msgs": unchanged}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["id"]))
def test_vector(vector: Json, policy_results: tuple[str, Results]) -> None:
    policy, results = policy_results
    id = str(vector["id"])
    played = results.played[id]
    assert not played.skipped, played.skipped
    messages = results.messages.get(id, {})
    allow = vector["allow"]
    assert isinstance(allow, list)
    reasons = judge(vector, allow, played, messages, id in results.bounced)
    assert not reasons, (policy, reasons, played)
    if policy == "reject":
        match vector.get("default"):
            case "delivered":
                assert messages, "the default is to deliver it"
                unchanged = [as_is(outcome) for outcome in allow]
                assert judge(vector, unchanged, played, messages, False) == []
            case "refused" | "nothing":
                assert not messages and id not in results.bounced
            case _:
                assert vector.get("default") is None


def test_nothing_malformed_left(policy_results: tuple[str, Results]) -> None:
    assert policy_results[1].faults == []

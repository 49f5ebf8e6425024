"""The first configuration on the page of a built-in sink is taken as it stands, and does what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import connected, finished, first_config, id_of

PAGES = Path(__file__).parents[2] / "docs" / "sinks"


def first_of(page: str) -> str:
    found = re.search(r"```toml\n(.*?)```", (PAGES / page).read_text(), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("xexch50.md", {"XEXCH50 4 2": "504 5.7.0 Need to authenticate first"}),
        ("header_edit.md", {"MAIL FROM:<a@example.com>": "250 2.1.0 Ok"}),
        ("rate_limit.md", {"MAIL FROM:<a@example.com>": "250 2.1.0 Ok"}),
        (
            "address_fence.md",
            {
                "MAIL FROM:<a@example.com>": "250 2.1.0 Ok",
                "RCPT TO:<board@example.com>": "550 5.7.1 Only the secretary writes to the board",
                'RCPT TO:<"Board"@example.com>': "550 5.7.1 Only the secretary writes to the board",
                "RCPT TO:<anna@example.com>": "250 2.1.5 Ok",
                "RSET": "250 2.0.0 OK, transaction forgotten",
                "MAIL FROM:<>": "250 2.1.0 Ok",
                "RCPT TO:<news@lists.example.com>": "550 5.7.1 Lists take no reports",
            },
        ),
    ],
)
async def test_the_first_configuration(tmp_path: Path, page: str, says: dict[str, str]) -> None:
    with StrictSink() as receiver:
        async with running_relay(tmp_path, first_config(receiver.port, more=first_of(page))) as relay:
            async with connected(relay) as client:
                for command, answer in says.items():
                    assert await client.say(command) == answer
            async with connected(relay) as client:
                await client.envelope("anna@dest.example")
                await finished(relay, id_of(await client.content()))
        assert len(receiver.arrivals) == 1 and receiver.faults == []

"""Lists of networks and names in the settings of sinks."""

from __future__ import annotations

import pytest

from lonedot.sinks.peers import LIST_LIMIT, is_client_in, listed, networks


def test_lists_are_words_with_commas_or_spaces_between() -> None:
    assert listed(" a, b;c\n a ") == {"a", "b", "c"}
    assert listed("") == frozenset()
    with pytest.raises(ValueError, match="at most"):
        listed(" ".join(map(str, range(LIST_LIMIT + 1))))


@pytest.mark.parametrize(
    ("client", "is_in"),
    [
        ("192.0.2.7", True),
        ("::ffff:192.0.2.7", True),
        ("192.0.3.7", False),
        ("2001:db8::1%eth0", True),
        ("2001:db9::1", False),
        ("", False),
        ("unix", False),
    ],
)
def test_clients_in_networks(client: str, is_in: bool) -> None:
    assert is_client_in(client, networks("192.0.2.0/24, 2001:db8::/32")) is is_in
    assert not is_client_in(client, ())


def test_what_is_no_network_is_named() -> None:
    with pytest.raises(ValueError, match=r"exempt: '192\.0\.2\.7/24' is no network"):
        networks("192.0.2.7/24", "exempt")

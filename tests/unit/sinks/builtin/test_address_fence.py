"""The address fence: the first row that fits decides, and no spelling of an address gets around it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin.address_fence import ROWS_LIMIT, AddressFence, FenceSettings, read_table
from lonedot.sinks.protocol import Session
from lonedot.sinks.settings import SettingsFault, typed
from lonedot.sinks.verdicts import Next, Reject
from lonedot.testing import ask_sink, make_session

TABLE = """
# the board
allow  *@board.example    *@board.example
allow  *                  board@example.com     login=secretary,director
deny   *                  board@example.com     : Only the secretary writes to the board

deny   *                  *                     network=192.0.2.0/28,2001:db8::/64   : Printers write to example.com
deny   <>                 *@list.example
deny   *@.example.com     *@.rival.example      login=-
"""


def session_of(sender: str, to: str, client: str = "198.51.100.1", login: str = "") -> Session:
    shown = make_session("rcpt", sender=sender, recipient=to, client=client)
    return Session(msgspec.structs.replace(shown.moment, login=login), {})


def says(
    sender: str,
    to: str,
    client: str = "198.51.100.1",
    login: str = "",
    table: str = TABLE,
    **settings: Setting,
) -> str:
    fence = AddressFence(typed(FenceSettings, {"table": table, **settings}))
    verdict = fence(session_of(sender, to, client, login))
    if isinstance(verdict, Reject):
        assert (verdict.code, verdict.enhanced) == (550, "5.7.1")
        return verdict.words
    assert verdict == Next()
    return ""


BOARD = "Only the secretary writes to the board"
DENIED = "You may not send to this address"


@pytest.mark.parametrize(
    ("sender", "to", "login", "words"),
    [
        ("anna@example.com", "board@example.com", "", BOARD),
        ("anna@example.com", "Board@EXAMPLE.com", "", BOARD),
        ("anna@example.com", '"board"@example.com', "", BOARD),
        ("anna@example.com", '"b\\oard"@example.com', "", BOARD),
        ("anna@example.com", "board@example.com", "secretary", ""),
        ("anna@example.com", "board@example.com", "printer", BOARD),
        ("anna@example.com", "bert@example.com", "", ""),
        ("", "news@list.example", "", DENIED),
        ("anna@a.example", "news@list.example", "", ""),
        ("anna@sub.example.com", "x@rival.example", "", DENIED),
        ("anna@sub.example.com", "x@rival.example", "anna", ""),
        ("anna@badexample.com", "x@rival.example", "", ""),
    ],
)
def test_the_first_row_that_fits_decides(sender: str, to: str, login: str, words: str) -> None:
    assert says(sender, to, login=login) == words


@pytest.mark.parametrize(
    ("client", "words"),
    [
        ("192.0.2.7", "Printers write to example.com"),
        ("::ffff:192.0.2.7", "Printers write to example.com"),
        ("2001:db8::7", "Printers write to example.com"),
        ("192.0.2.17", ""),
        ("", ""),
    ],
)
def test_networks(client: str, words: str) -> None:
    assert says("a@b.example", "c@d.example", client) == words


def test_otherwise() -> None:
    only = "allow * *@example.com"
    assert says("a@b.example", "c@d.example", table=only, otherwise="deny") == DENIED
    assert says("a@b.example", "c@d.example", table=only, otherwise="deny", words="Go away") == "Go away"
    assert says("a@b.example", "c@example.com", table=only, otherwise="deny") == ""
    assert says("a@b.example", "c@d.example", table="") == ""


def test_it_is_asked_at_rcpt() -> None:
    asked = ask_sink(AddressFence, session_of("a@b.example", "board@example.com"), settings={"table": TABLE})
    asked.assert_refused(BOARD)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("allow *", r"line 1: 'allow \*' is too short; write `deny"),
        ("\nperhaps * *", "line 2: 'perhaps' is no verdict; write `allow` or `deny`"),
        ("deny a*b@x *", r"line 1: name pattern 'a\*b'"),
        ("deny a;b *", "line 1: 'a;b': one pattern in a column"),
        ("deny * * user=x", "there is no condition 'user'; there are: login, network"),
        ("deny * * login=", "'login=' is no condition"),
        ("deny * * network=x", "network: 'x' is no network"),
        ("deny * * : so\x07", "its words: a client is told printable ASCII"),
        ("deny * * : für dich", "its words: a client is told printable ASCII"),
        ("deny * *\n" * (ROWS_LIMIT + 1), "more than 1000 rows"),
    ],
)
def test_a_line_that_is_no_row_is_named(table: str, words: str) -> None:
    with pytest.raises(SettingsFault, match=words):
        typed(FenceSettings, {"table": table})


@given(st.text(max_size=200))
def test_any_text_is_a_table_or_a_fault_of_the_settings(text: str) -> None:
    try:
        rows = read_table(text)
    except ValueError as error:
        assert str(error).startswith("table, line ")
    else:
        assert len(rows) <= len(text.splitlines())

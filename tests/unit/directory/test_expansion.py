"""Whatever aliases and lists say: expansion ends, within its bounds, and leads each address to its copies once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.directory.aliases import MEMBERS_LIMIT, read_aliases
from lonedot.directory.expansion import DEPTH_LIMIT, Expansion, ListCopy, Names, expand
from lonedot.directory.faults import ExpansionFault
from lonedot.directory.file import LineFaults
from lonedot.directory.lists import DistributionList, read_lists
from lonedot.terms.address import NULL_REVERSE_PATH, Address

NAMES = st.sampled_from("abcdefg")


def at(name: str) -> Address:
    return Address(f"{name}@here.example".encode())


def names_of(table: dict[str, tuple[Address, ...] | DistributionList]) -> Names:
    return lambda address: table.get(address.local.decode())


def list_of(name: str, *members: Address) -> DistributionList:
    return DistributionList(at(name), at(f"owner-{name}"), members, ("anyone",))


def test_an_alias_that_names_itself_means_the_mailbox() -> None:
    assert expand(at("joe"), names_of({"joe": (at("joe"), at("x"))})) == Expansion((at("joe"), at("x")))


def test_a_list_in_a_list_has_its_own_owner() -> None:
    table = names_of(
        {"all": list_of("all", at("x"), at("crew")), "crew": list_of("crew", at("y"), at("all"))}
    )
    assert expand(at("all"), table) == Expansion(
        (),
        (
            ListCopy(at("all"), at("owner-all"), (at("x"),)),
            ListCopy(at("crew"), at("owner-crew"), (at("y"),)),
        ),
    )


def test_an_alias_in_a_list_is_sent_to_by_its_owner() -> None:
    table = names_of({"all": list_of("all", at("two")), "two": (at("x"), at("y"))})
    assert expand(at("all"), table).copies == (ListCopy(at("all"), at("owner-all"), (at("x"), at("y"))),)


@pytest.mark.parametrize(
    "table",
    [
        {"a": (at("b"),), "b": (at("a"),)},
        {"a": list_of("a", at("a"))},
        {"a": list_of("a")},
        {"a": (at("b"), at("x")), "b": list_of("b")},
        {f"{chr(97 + n)}": (at(chr(98 + n)),) for n in range(DEPTH_LIMIT + 1)},
        {"a": (at("b"), at("c")), **{n: list_of(n, *(at(f"{n}{i}") for i in range(6000))) for n in "bc"}},
    ],
    ids=["circle", "own member", "empty", "empty below", "deep", "many"],
)
def test_what_leads_to_nobody_or_too_far_is_a_fault(
    table: dict[str, tuple[Address, ...] | DistributionList],
) -> None:
    with pytest.raises(ExpansionFault):
        expand(at("a"), names_of(table))


@given(
    st.dictionaries(NAMES, st.tuples(st.booleans(), st.lists(NAMES, min_size=1, max_size=5)), max_size=7),
    NAMES,
)
def test_it_ends_and_nobody_is_in_a_copy_twice(tables: dict[str, tuple[bool, list[str]]], start: str) -> None:
    table: dict[str, tuple[Address, ...] | DistributionList] = {
        name: list_of(name, *map(at, members)) if is_list else tuple(map(at, members))
        for name, (is_list, members) in tables.items()
    }
    try:
        found = expand(at(start), names_of(table))
    except ExpansionFault:
        return
    groups = [found.targets, *(copy.members for copy in found.copies)]
    assert any(groups)
    for group in groups:
        assert len(set(group)) == len(group) <= MEMBERS_LIMIT
    for address in (address for group in groups for address in group):
        leads = table.get(address.local.decode())
        assert leads is None or (not isinstance(leads, DistributionList) and address in leads)
    assert len({copy.list for copy in found.copies}) == len(found.copies)


def test_aliases_are_read_line_by_line() -> None:
    text = "# people\nchief: anna,\n  far@away.example\nBert@here.example: bert@x.example, bert@x.example\n"
    assert read_aliases(text, "here.example") == {
        "chief": (at("anna"), Address(b"far@away.example")),
        "bert": (Address(b"bert@x.example"),),
    }


@pytest.mark.parametrize(
    "line",
    [
        "x",
        "x:",
        "x: |/bin/cat",
        "x: :include:/etc/passwd",
        "x: /dev/null",
        "x: a b",
        "x@other.example: a",
        ": a",
        "x: y\nx: z",
    ],
)
def test_a_line_that_is_no_alias_is_a_fault_with_its_number(line: str) -> None:
    with pytest.raises(ValueError, match=r"line \d"):
        read_aliases(line, "here.example")


@pytest.mark.parametrize(
    ("post", "sender", "may"),
    [
        ('"anyone"', b"x@away.example", True),
        ('"anyone"', b"", False),
        ('"members"', b"ANNA@here.example", True),
        ('"members"', b"x@here.example", False),
        ('"local"', b"x@HERE.example", True),
        ('"local"', b"x@away.example", False),
        ('["@away.example"]', b"x@away.example", True),
        ('["x@away.example"]', b"y@away.example", False),
        ("[]", b"anna@here.example", False),
    ],
)
def test_who_may_write_to_a_list(post: str, sender: bytes, may: bool) -> None:
    text = f'[lists.crew]\nowner = "boss"\nmembers = ["anna"]\npost = {post}\n'
    crew = read_lists(text, "here.example")["crew"]
    assert crew.takes_from(Address(sender) if sender else NULL_REVERSE_PATH, {"here.example"}) is may


@pytest.mark.parametrize(
    "text",
    [
        "x",
        '[lists.a]\nmembers=["b"]',
        '[lists.a]\nowner="b"\nmembers="c"',
        '[lists.a]\nowner="b"\nmembers=["c d"]',
        '[lists.a]\nowner="b"\nmembers=[]\npost="all"',
        '[lists.a]\nowner="b"\nmembers=[]\nmore=1',
        '[lists.a]\nowner="b"\nmembers=[]\n[lists.A]\nowner="b"\nmembers=[]',
    ],
)
def test_a_file_that_is_no_list_is_a_fault(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_lists(text, "here.example")


ETC_ALIASES = """\
# See man 5 aliases for format
postmaster:    root
MAILER-DAEMON: postmaster
"root":        admin@example.net, \\root
webmaster:     root,
  anna
   # a comment between two lines

"o'neil": "anna"@here.example , bert
bert: \\bert
"""


def test_a_file_of_etc_aliases_is_read_as_it_is() -> None:
    assert read_aliases(ETC_ALIASES, "here.example") == {
        "postmaster": (at("root"),),
        "mailer-daemon": (at("postmaster"),),
        "root": (Address(b"admin@example.net"), at("root")),
        "webmaster": (at("root"), at("anna")),
        "o'neil": (at("anna"), at("bert")),
        "bert": (at("bert"),),
    }


@pytest.mark.parametrize(
    ("line", "do"),
    [
        ('ftp: "|/usr/bin/vacation -a x, ftp"', 'to = "ftp@here.example" and pipe'),
        ("ftp: |/usr/bin/vacation", "and pipe"),
        ("nobody: /dev/null", 'to = "nobody@here.example" and discard = true'),
        ("log: /var/log/mail", "and maildir"),
        ("all: :include:/etc/mail/all", "lists"),
        ('all: ":include:/etc/mail/all", anna', "lists"),
        ("joe: \\\\anna", "write anna"),
        ('joe: "anna', "in pairs"),
        ('joe: anna", bert', "in pairs"),
        ('joe: "anna bert"', "name: address"),
        ("joe: anna\nJOE: bert", "on one line"),
        ("joe@other.example: anna", "here.example alone"),
    ],
)
def test_what_leads_to_no_mailbox_is_told_with_what_to_write(line: str, do: str) -> None:
    with pytest.raises(LineFaults) as caught:
        read_aliases(f"# first\n{line.replace(chr(92) * 2, chr(92))}\nlast: anna\n", "here.example")
    (fault,) = caught.value.faults
    assert fault.number == 2 + line.count("\n")
    assert do in fault.do


def test_all_lines_are_told_at_once() -> None:
    text = "a: /x\nb: anna\nc\n" + "x: |y\n" * 30
    with pytest.raises(LineFaults, match=r"line 1: .*line 3: .*and 12 more") as caught:
        read_aliases(text, "here.example")
    assert [fault.number for fault in caught.value.faults] == [1, 3, *range(4, 34)]


@given(st.text(alphabet='ab:,"\\\\|/@# \n', max_size=60))
def test_whatever_stands_there_is_aliases_or_faults(text: str) -> None:
    try:
        found = read_aliases(text, "here.example")
    except LineFaults as error:
        assert error.faults
        return
    for targets in found.values():
        assert targets
        assert len(set(targets)) == len(targets)

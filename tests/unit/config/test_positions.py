"""Where tables, keys and items stand in a TOML text."""

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from lonedot.config.positions import Positions

TEXT = """\
# a comment = with "signs" [that] = mean nothing
[server]   # [not.a.table]
hostname = "a # b"
limits.memory = "64 MiB"
"quoted key" = 1
words = \"\"\"
[listener]
key = 1
\"\"\"
raw = '''
[[x]]
'''

[[listener]]
relay_from = [
  "10.0.0.0/8",   # first
  # between
  "192.168.0.0/16", "172.16.0.0/12",
]
nested = { one = 1, two = { three = [1, 2] } }
[listener.extra]
more = 2024-01-01 10:00:00

[[listener]]
address = "a"
[[listener.inner]]
x = 1
[[listener.inner]]
x = 2
"""


def test_every_kind_of_place() -> None:
    at = Positions(TEXT).of
    assert at(("server",)) == (2, 1)
    assert at(("server", "hostname")) == (3, 1)
    assert at(("server", "limits", "memory")) == (4, 1)
    assert at(("server", "quoted key")) == (5, 1)
    assert at(("server", "words")) == (6, 1)
    assert at(("server", "raw")) == (10, 1)
    assert at(("listener", 0)) == (14, 1)
    assert at(("listener", 0, "relay_from", 0)) == (16, 3)
    assert at(("listener", 0, "relay_from", 1)) == (18, 3)
    assert at(("listener", 0, "relay_from", 2)) == (18, 21)
    assert at(("listener", 0, "nested", "two", "three", 1)) == (20, 41)
    assert at(("listener", 0, "extra", "more")) == (22, 1)
    assert at(("listener", 1, "address")) == (25, 1)
    assert at(("listener", 1, "inner", 1, "x")) == (29, 1)


def test_a_path_that_is_not_there_has_the_place_of_what_holds_it() -> None:
    at = Positions(TEXT).of
    assert at(("listener", 1, "nothing", 7)) == (24, 1)
    assert at(("nowhere",)) is None


def test_crlf_files_count_the_same_lines() -> None:
    places = Positions(TEXT.replace("\n", "\r\n"))
    assert places.of(("listener", 0, "relay_from", 2)) == (18, 21)
    assert places.of(("listener", 1, "address")) == (25, 1)


def test_a_line_that_is_no_toml_does_not_hide_the_next() -> None:
    places = Positions('[server\nhostname = = \n[[route]]\nto = "*"\n')
    assert places.of(("route", 0, "to")) == (4, 1)


def test_nesting_without_end_is_given_up() -> None:
    places = Positions("a = " + "[" * 100_000 + '\nb = "x"\n')
    assert places.of(("b",)) == (2, 1)


_NAMES = st.text("abcXYZ_-09", min_size=1, max_size=6) | st.sampled_from(['"a b"', "'c.d'", '"\\u00e4"'])
_VALUES = st.sampled_from(
    [
        "1",
        '"x"',
        "'y'",
        "true",
        "[1, 2]",
        "[\n  1,\n  [2, 3], # c\n]",
        "{ a = 1 }",
        '"""\nm\n"""',
        "1979-05-27 07:32:00Z",
    ]
)


@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=8))
def test_each_key_of_a_valid_text_is_found_on_its_line(pairs: list[tuple[str, str]]) -> None:
    names = {}
    lines: list[str] = []
    for name, value in pairs:
        key = tomllib.loads(f"{name} = 0")
        plain = next(iter(key))
        if plain in names:
            continue
        names[plain] = len("".join(lines).splitlines()) + 1
        lines.append(f"{name} = {value}\n")
    text = "".join(lines)
    assert set(tomllib.loads(text)) == set(names)
    places = Positions(text)
    assert {name: places.of((name,)) for name in names} == {name: (line, 1) for name, line in names.items()}


@given(st.text(alphabet=st.sampled_from("[]{}=.,\"'# \n\\ab1"), max_size=60))
def test_any_text_is_survived(text: str) -> None:
    places = Positions(text)
    lines = text.count("\n") + 1
    for path in (("a",), ("b", 0), ("a", "b")):
        place = places.of(path)
        assert place is None or 1 <= place[0] <= lines

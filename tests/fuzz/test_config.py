"""Whatever a file holds: a configuration or faults, and nothing else."""

import tempfile
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from lonedot.config.faults import Severity
from lonedot.config.load import Examined, examine, examine_octets, keys_of
from lonedot.config.reference import TABLES

FILE = Path("/nowhere/lonedot.toml")

_KINDS = {header.strip("[]"): kind for header, kind in TABLES}
_LISTS = {header.strip("[]") for header, _ in TABLES if header.startswith("[[")}
_EXAMPLES = sorted({key.example for kind in _KINDS.values() for key in keys_of(kind).values()})
_ODD = [
    "-1",
    "0",
    "nan",
    "-inf",
    "1e308",
    "9" * 30,
    '""',
    '"\\u0000"',
    "[]",
    "{}",
    "[[]]",
    "{ a = {} }",
    "2024-01-01",
    '"*"',
]
_ODD += [
    '"::ffff:0:0/95"',
    '"' + "a." * 200 + '"',
    '"a@' + "b" * 300 + '"',
    '"1d1d1d"',
    '["", 1]',
    '"٢"',
    "'\ud7ff'",
]

_names = st.sampled_from(sorted({name for kind in _KINDS.values() for name in keys_of(kind)})) | st.text(
    "abc_", max_size=5
)
_values = (
    st.sampled_from(_EXAMPLES + _ODD)
    | st.integers().map(str)
    | st.text("ab1.*@/:[]", max_size=12).map(lambda t: f'"{t}"')
)
_lines = st.tuples(_names.filter(bool), _values).map(lambda pair: f"{pair[0]} = {pair[1]}")
_headers = st.sampled_from(
    [f"[{name}]" for name in _KINDS] + [f"[[{name}]]" for name in _KINDS] + ["[server.x]", "[x]"]
)


_NOWHERE = ("", "route", "listener", "server: hostname", "server: postmaster", "server: spool")
"""What a fault may speak of that no line has: the file as a whole, or a table that is not there."""


def check(examined: Examined, texts: dict[str, str] | None = None) -> None:
    """Every fault has words, and a place that is there; `texts` are the files by name."""
    broken = any(fault.severity is Severity.FAULT for fault in examined.faults)
    assert (examined.config is None) is broken
    for fault in examined.faults:
        assert fault.what and fault.do
        assert "\n" not in str(fault)
        if fault.line == 0:
            assert fault.column == 0 and fault.where in _NOWHERE, fault
            continue
        assert fault.line >= 1 and fault.column >= 1
        text = None if texts is None else texts.get(fault.file)
        if text is not None:
            lines = text.split("\n")
            assert fault.line <= len(lines), fault
            assert fault.column <= len(lines[fault.line - 1]) + 1, fault


def machine_name() -> str:
    return "relay.example.com"


def examine_text(text: str) -> None:
    octets = text.encode("utf-8", "surrogatepass")
    check(examine_octets(octets, FILE, machine_name), {str(FILE): text})


@given(st.binary(max_size=300))
@example(b"\xff\xfe")
@example(b"[server]\nspool = '\xc2\x85'")
def test_random_octets(octets: bytes) -> None:
    check(examine_octets(octets, FILE, machine_name))


@given(st.lists(st.one_of(_headers, _lines), max_size=30))
def test_random_toml(lines: list[str]) -> None:
    examine_text("\n".join(lines))


@given(st.data())
def test_random_keys_in_their_tables(data: st.DataObject) -> None:
    text = ""
    for name, kind in _KINDS.items():
        header = f"[[{name}]]" if name in _LISTS else f"[{name}]"
        for _ in range(1 if header[1] != "[" else data.draw(st.integers(0, 2))):
            text += header + "\n"
            keys = keys_of(kind)
            for key in data.draw(st.lists(st.sampled_from(sorted(keys)), unique=True)):
                value = data.draw(st.one_of(st.just(keys[key].example), _values))
                text += f"{key} = {value}\n"
    examine_text(text)


_files = st.lists(st.one_of(_headers, _lines), max_size=12).map("\n".join)


@given(
    st.lists(st.sampled_from(["*.toml", "a/*", "[", "b.toml", "../x", "a*/../*.toml", ""]), max_size=3),
    st.lists(_files | st.binary(max_size=40), min_size=1, max_size=3),
)
def test_files_that_include_others(patterns: list[str], texts: list[str | bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a").mkdir()
        for number, text in enumerate(texts):
            octets = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
            if number == 0:
                octets = f"include = {patterns}\n".encode() + octets
            (folder / ("first.toml", "a/b.toml", "b.toml")[number]).write_bytes(octets)
        check(examine(folder / "first.toml"))

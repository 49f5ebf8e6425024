"""Several files that are one configuration: what stands where, and whose fault it is."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.config.faults import Severity
from lonedot.config.load import Examined, examine
from lonedot.config.origins import MAX_FILES, Origins, matched_files
from lonedot.config.positions import Positions
from lonedot.config.tables import parse
from tests.unit.config.conftest import LISTENER, ROUTE, SERVER

INCLUDE = 'include = ["conf.d/*.toml"]\n'


def written(folder: Path, first: str, **included: str) -> Examined:
    (folder / "conf.d").mkdir(exist_ok=True)
    for name, text in included.items():
        (folder / "conf.d" / f"{name}.toml").write_text(text, encoding="utf-8")
    file = folder / "lonedot.toml"
    file.write_text(first, encoding="utf-8")
    return examine(file)


def faults(examined: Examined) -> list[str]:
    return [
        f"{Path(fault.file).name}:{fault.line}:{fault.column} {fault.where}: {fault.what}"
        for fault in examined.faults
        if fault.severity is Severity.FAULT
    ]


def test_lists_follow_one_another_in_the_order_of_the_names(tmp_path: Path) -> None:
    special = '[[route]]\nto = "{}.example"\nsmarthost = "127.0.0.1:2527"\n'
    examined = written(
        tmp_path,
        INCLUDE + SERVER + LISTENER,
        b=special.format("b") + ROUTE,
        a=special.format("a"),
    )
    assert examined.config is not None, examined.faults
    assert [route.to for route in examined.config.routes] == [("a.example",), ("b.example",), ("*",)]


def test_a_table_is_put_together_key_by_key(tmp_path: Path) -> None:
    examined = written(
        tmp_path,
        INCLUDE + SERVER + LISTENER + ROUTE,
        a="[server]\nhop_limit = 40\n[pickup]\nenabled = false\n",
    )
    assert examined.config is not None, examined.faults
    assert examined.config.server.hop_limit == 40
    assert examined.config.server.hostname == "relay.example.com"
    assert not examined.config.pickup.enabled


def test_each_fault_is_told_by_its_own_file(tmp_path: Path) -> None:
    examined = written(
        tmp_path,
        INCLUDE + SERVER + 'hop_limit = "x"\n' + LISTENER + ROUTE,
        a='[server]\nmax_size = "?"\n\n[[route]]\nto = "*"\nsmarthost = [\n  "a.example",\n  "!"]\n',
        b="[[listener]]\naddress = 25\n[nonsense]\n",
        c="[server]\nhostname = 1\n",
        d="[server\n",
    )
    assert examined.config is None
    told = faults(examined)
    for expected in (
        'lonedot.toml:5:1 server: hop_limit: "x" is not a whole number',
        'a.toml:2:1 server: max_size: "?" is not a size',
        'a.toml:8:3 route 2: smarthost: "!" is not host and port',
        "b.toml:2:1 listener 2: address: 25 is a port without an address",
        "b.toml:3:1 nonsense: is not a table that exists here",
        f"c.toml:2:1 server: hostname: stands in {tmp_path}/lonedot.toml:3 too",
    ):
        assert any(expected.replace('"', "'") in one.replace('"', "'") for one in told), (expected, told)
    assert any(one.startswith("d.toml:1:") and "is not TOML" in one for one in told)


def test_paths_are_counted_from_the_folder_of_their_file(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    secret = tmp_path / "conf.d" / "secret"
    secret.write_text("x\n")
    secret.chmod(0o600)
    login = 'login = "relay"\npassword_file = "secret"\n'
    examined = written(tmp_path, INCLUDE + SERVER + LISTENER, a=ROUTE + login)
    assert examined.config is not None, examined.faults
    assert examined.config.routes[0].password_file == secret


def test_a_file_may_be_left_out_only_by_a_pattern(tmp_path: Path) -> None:
    first = 'include = ["none/*.toml", "gone.toml"]\n' + SERVER + LISTENER + ROUTE
    examined = written(tmp_path, first)
    assert faults(examined) == [
        f"lonedot.toml:1:27 include: {tmp_path}/gone.toml cannot be read: no such file or directory"
    ]
    assert any(fault.severity is Severity.NOTE and "none/*.toml" in fault.what for fault in examined.faults)


def test_no_circles_and_no_second_time(tmp_path: Path) -> None:
    first = 'include = ["*.toml", "conf.d/a.toml", "conf.d/*.toml"]\n' + SERVER + LISTENER
    examined = written(tmp_path, first, a='include = "x"\n' + ROUTE)
    told = faults(examined)
    assert told == [
        f"lonedot.toml:1:12 include: {tmp_path}/lonedot.toml is this file",
        "a.toml:1:1 include: stands in an included file",
    ]


@pytest.mark.parametrize(
    "value", ["1", '""', '[["a"]]', '"**/*.toml"', '"a\\u0000b"', '"' + "a" * 1000 + '"']
)
def test_what_is_no_pattern_is_a_fault(tmp_path: Path, value: str) -> None:
    examined = written(tmp_path, f"include = {value}\n" + SERVER + LISTENER + ROUTE)
    assert len(faults(examined)) == 1


def test_the_number_of_files_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    for number in range(MAX_FILES + 1):
        (tmp_path / "conf.d" / f"{number}.toml").touch()
    assert matched_files("conf.d/*.toml", tmp_path).what
    examined = written(
        tmp_path,
        'include = ["conf.d/1*.toml", "conf.d/?.toml", "conf.d/*0.toml", "conf.d/[2-9]*.toml"]\n' + SERVER,
    )
    assert any("more than 200 files" in one for one in faults(examined))


_TABLES = st.lists(
    st.sampled_from(
        ["[server]", "[pickup]", "[[route]]", "[[sink]]", "[server.deep]", "x = 1", "y = [1, 2]"]
    ),
    max_size=6,
).map("\n".join)


@given(st.lists(_TABLES, min_size=1, max_size=4))
def test_whatever_files_hold_each_path_of_the_whole_stands_somewhere(texts: list[str]) -> None:
    parsed = [parse(text.encode(), Path(f"/{n}.toml")) for n, text in enumerate(texts)]
    read = [one for one in parsed if isinstance(one, tuple)]
    if not read:
        return
    text, whole = read[0]
    origins = Origins(Path("/0.toml"), Positions(text))
    for number, (more, tables) in enumerate(read[1:], 1):
        for clash in origins.take(Path(f"/{number}.toml"), Positions(more), tables, whole):
            assert clash.spot.line
    for name, table in whole.items():
        assert origins.stands((name,))
        match table:
            case list():
                for at, item in enumerate(table):
                    if isinstance(item, dict):
                        for key in item:
                            assert origins.stands((name, at, key))
            case dict():
                for key in table:
                    assert origins.stands((name, key))

"""What is in force, with its origin; and the schema, against what `check` takes and refuses."""

import json
import tomllib
from pathlib import Path

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.config.effective import EffectiveTable, Kind, effective, toml_of
from lonedot.config.load import examine, keys_of
from lonedot.config.reference import TABLES
from lonedot.config.schema import schema
from tests.unit.config.conftest import LISTENER, ROUTE, SERVER

SCHEMA = schema()
VALIDATOR = jsonschema_rs.validator_for(SCHEMA)
KEYS = [
    (header.strip("[]"), header.startswith("[["), name, key)
    for header, kind in TABLES
    for name, key in keys_of(kind).items()
]


def tables(folder: Path, text: str) -> list[EffectiveTable]:
    file = folder / "lonedot.toml"
    file.write_text(text)
    file.chmod(0o600)
    found = examine(file)
    assert found.config is not None and found.origins is not None, found.faults
    return list(effective(found.config, found.origins, found.sources))


def origin(shown: list[EffectiveTable], header: str, key: str, number: int = 0) -> tuple[str, str]:
    of_kind = [one for one in shown if one.header == header]
    found = next(value for value in of_kind[number].values if value.key == key)
    return found.value, found.origin


def test_each_value_has_its_origin(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a.toml").write_text("[server]\nmax_size = 1048576\n" + ROUTE)
    shown = tables(tmp_path, 'include = "conf.d/*.toml"\n' + SERVER + LISTENER)
    assert origin(shown, "[server]", "hostname") == ('"relay.example.com"', f"{tmp_path}/lonedot.toml:3")
    assert origin(shown, "[server]", "max_size") == ('"1 MiB"', f"{tmp_path}/conf.d/a.toml:2")
    assert origin(shown, "[server]", "hop_limit") == ("30", "default")
    assert origin(shown, "[server]", "postmaster") == ('"postmaster@relay.example.com"', "worked out")
    assert origin(shown, "[[route]]", "to") == ('["*"]', f"{tmp_path}/conf.d/a.toml:4")
    assert origin(shown, "[[listener]]", "relay_from")[0] == '["127.0.0.0/8"]'


def test_every_key_of_every_table_is_there(tmp_path: Path) -> None:
    shown = tables(tmp_path, SERVER + LISTENER + ROUTE)
    for header, kind in TABLES:
        for one in shown:
            if one.header == header:
                assert [value.key for value in one.values] == list(keys_of(kind))
    assert {"[server]", "[[listener]]", "[[route]]", "[pickup]", "[badmail]"} <= {one.header for one in shown}


def test_virtual_servers_have_their_own_lines(tmp_path: Path) -> None:
    text = (
        SERVER
        + LISTENER
        + ROUTE
        + '[[source]]\nnumber = 3\nname = "three"\n[[source]]\nnumber = 2\nname = "two"\n'
    )
    shown = tables(tmp_path, text)
    names = [origin(shown, "[[source]]", "name", number) for number in range(3)]
    assert names[1] == ('"two"', f"{tmp_path}/lonedot.toml:15")
    assert names[2] == ('"three"', f"{tmp_path}/lonedot.toml:12")


def test_no_secret_is_shown(tmp_path: Path) -> None:
    (tmp_path / "sink.py").write_text("def sink(message): ...\n")
    text = SERVER + LISTENER + ROUTE + 'login = "relay"\npassword = "open sesame"\n'
    text += '[[sink]]\nname = "x"\nfile = "sink.py"\n'
    text += 'settings = { api_token = "open sesame", url = "db://me:sesame@host" }\n'
    shown = tables(tmp_path, text)
    assert "sesame" not in repr(shown)
    assert origin(shown, "[[route]]", "password")[0] == '"***"'
    assert (
        "me:" in origin(shown, "[[sink]]", "settings")[0] or "db" in origin(shown, "[[sink]]", "settings")[0]
    )


@given(
    st.text()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.lists(st.text(max_size=5), max_size=3).map(tuple)
)
def test_values_are_shown_as_toml_reads_them(value: object) -> None:
    if isinstance(value, str) and ("://" in value or not value):
        return
    read = tomllib.loads(f"x = {toml_of(value)}")["x"]
    assert (tuple(read) if isinstance(read, list) else read) == value


# --- the schema ---


def test_the_schema_is_one() -> None:
    jsonschema_rs.meta.validate(SCHEMA)
    json.dumps(SCHEMA)


@pytest.mark.parametrize(
    ("table", "is_list", "name", "key"), KEYS, ids=[f"{one[0]}.{one[2]}" for one in KEYS]
)
def test_each_example_fits_the_schema(table: str, is_list: bool, name: str, key: object) -> None:
    from lonedot.config.key import Key

    assert isinstance(key, Key)
    properties = SCHEMA["properties"]
    assert isinstance(properties, dict)
    of_table = properties[table]["items"] if is_list else properties[table]
    value = tomllib.loads(f"x = {key.example}")["x"]
    one = of_table["properties"][name]
    assert jsonschema_rs.is_valid(one, value), jsonschema_rs.validator_for(one).iter_errors(value)
    assert not jsonschema_rs.is_valid(of_table, {name + "_": value})


def test_a_configuration_that_check_takes_fits(tmp_path: Path) -> None:
    text = (
        'include = ["conf.d/*.toml"]\n'
        + SERVER
        + LISTENER
        + ROUTE
        + 'connect_timeout = "10s"\nretry_minutes = 5\n'
    )
    assert tables(tmp_path, text)
    VALIDATOR.validate(tomllib.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        "[server]\nhop_limit = true",
        "[server]\nhost = 'x'",
        "[server]\nlog = 'loud'",
        "[[listener]]\nname = 'x'",
        "[route]\nto = '*'",
        "[nonsense]",
        "[pickup]\nenabled = 'yes'",
    ],
)
def test_what_is_wrong_does_not_fit(text: str) -> None:
    assert not VALIDATOR.is_valid(tomllib.loads(text))


def test_defaults_are_what_the_readers_take() -> None:
    properties = SCHEMA["properties"]
    assert isinstance(properties, dict)
    for table, is_list, name, key in KEYS:
        of_table = properties[table]["items"] if is_list else properties[table]
        one = of_table["properties"][name]
        if "default" in one:
            key.read(one["default"], Path())  # raises Unfit when it is not
            assert jsonschema_rs.is_valid(one, one["default"]), (table, name)


def test_kinds_have_words() -> None:
    assert {kind.value for kind in Kind} == {"file", "default", "worked out"}

"""The reference is complete, and its examples are what the readers take."""

import tomllib
from pathlib import Path

import pytest

from lonedot.config.load import keys_of
from lonedot.config.reference import TABLES, tables
from lonedot.config.values import Unfit

KEYS = [(header, name, key) for header, kind in TABLES for name, key in keys_of(kind).items()]


@pytest.mark.parametrize(("header", "name", "key"), KEYS, ids=[f"{header}{name}" for header, name, _ in KEYS])
def test_each_example_can_be_written(header: str, name: str, key: object) -> None:
    from lonedot.config.key import Key

    assert isinstance(key, Key)
    if "…" in key.example and name == "guid":
        with pytest.raises(Unfit):
            key.read("…", Path())
        return
    value = tomllib.loads(f"x = {key.example}")["x"]
    key.read(value, Path())  # raises Unfit when the example is wrong


def test_every_key_stands_in_it() -> None:
    text = tables(Path())
    for header, name, _ in KEYS:
        assert f"### `{header}`" in text
        assert f"| `{name}` |" in text
    assert "| `max_size` |" in text and '`"50 MiB"`' in text
    assert "**required**" in text

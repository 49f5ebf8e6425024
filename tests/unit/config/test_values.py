"""Readers of single values: what they take, and what they say when they do not."""

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from lonedot.config import addresses, code, rates, values
from lonedot.config.choices import LineEnds
from lonedot.config.values import Reader, Unfit
from lonedot.queue.pace import Rate

HERE = Path("/etc/lonedot")


@pytest.mark.parametrize(
    ("written", "octets"),
    [
        (1024, 1024),
        ("1024", 1024),
        ("1 KiB", 1024),
        ("1k", 1024),
        ("1.5 KiB", 1536),
        ("1kB", 1000),
        ("2 octets", 2),
    ],
)
def test_size(written: object, octets: int) -> None:
    assert values.size(0, 10_000)(written, HERE) == octets


@pytest.mark.parametrize(
    ("written", "span"),
    [
        (90, timedelta(seconds=90)),
        (0.5, timedelta(seconds=0.5)),
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("5 min", timedelta(minutes=5)),
        ("4H", timedelta(hours=4)),
        ("1h 30m", timedelta(minutes=90)),
        ("1d12h", timedelta(hours=36)),
    ],
)
def test_duration(written: object, span: timedelta) -> None:
    assert values.duration(0, 10**6)(written, HERE) == span


@pytest.mark.parametrize(
    ("written", "rate", "text"),
    [
        ("30/min", Rate(30, 60), "30/min"),
        (" 5 / S ", Rate(5, 1), "5/s"),
        ("1000000/d", Rate(1_000_000, 86_400), "1000000/d"),
        ("100/h", Rate(100, 3600), "100/h"),
    ],
)
def test_rate(written: object, rate: Rate, text: str) -> None:
    assert rates.rate(written, HERE) == rate
    assert rate.text == text


@pytest.mark.parametrize(
    ("written", "pair"),
    [
        ("127.0.0.1:25", ("127.0.0.1", 25)),
        ("[::1]:2525", ("::1", 2525)),
        ("localhost:0", ("localhost", 0)),
        ("mail.example.com:587", ("mail.example.com", 587)),
    ],
)
def test_listen_endpoint(written: str, pair: tuple[str, int]) -> None:
    found = addresses.listen_endpoint(written, HERE)
    assert (found.host, found.port) == pair
    assert str(found) == written


def test_next_hop_has_a_port_of_its_own() -> None:
    assert addresses.next_hop("smtp.example.com", HERE).port == 25
    assert str(addresses.next_hop("[2001:db8::1]", HERE)) == "[2001:db8::1]:25"


WRONG: list[tuple[Reader[object], object, str]] = [
    (values.boolean, "true", "without quotation marks"),
    (values.boolean, 1, "neither true nor false"),
    (values.text, 5, "is not a text"),
    (values.text, "  ", "is empty"),
    (values.text, "a\nb", "control signs"),
    (values.text, "x" * 2000, "signs long"),
    (values.path, "~/spool", "whole path"),
    (values.path, "a\0b", "control signs"),
    (values.whole(1, 5), True, "not a whole number"),
    (values.whole(1, 5), 6, "from 1 to 5"),
    (values.whole(1, 5), 1.0, "not a whole number"),
    (values.number(0, 1), float("nan"), "out of range"),
    (values.number(0, 1), float("inf"), "out of range"),
    (values.number(0, 1), "1", "not a number"),
    (values.size(1, 10), "10 parsecs", "not a size"),
    (values.size(1, 10), -1, "out of range"),
    (values.size(1, 10), [], "not a size"),
    (values.duration(1, 10), "10 years", "not a span"),
    (values.duration(1, 10), "m", "not a span"),
    (values.duration(1, 10), float("inf"), "out of range"),
    (values.duration(1, 10), True, "not a span"),
    (rates.rate, 30, "not a rate"),
    (rates.rate, "30/fortnight", "not a rate"),
    (rates.rate, "٣/min", "not a rate"),
    (rates.rate, "0/min", "out of range"),
    (rates.rate, "1000001/min", "out of range"),
    (values.one_of(LineEnds), "fix", '"auto", "reject", "normalize"'),
    (values.one_of(LineEnds), {}, "one of the choices"),
    (values.guid, "not-a-guid", "not a GUID"),
    (addresses.host_name, "relay", "full domain name"),
    (addresses.host_name, "192.0.2.1", "full domain name"),
    (addresses.host_name, "a..b", "full domain name"),
    (addresses.domain, "exa mple.com", "not a domain"),
    (addresses.domain_set, "*", "open relay"),
    (addresses.domain_set, "*.com", "top-level"),
    (addresses.pattern, "joe@", "matches nothing"),
    (addresses.pattern, "joe*@example.com", "matches nothing"),
    (addresses.address, "joe", "not a mail address"),
    (addresses.address, "<joe@example.com>", "angle brackets"),
    (addresses.address, "a..b@example.com", "not a mail address"),
    (addresses.network, "10.0.0.5/8", '"10.0.0.0/8"'),
    (addresses.network, "10.0.0", "not a network"),
    (addresses.listen_endpoint, 25, '"127.0.0.1:25"'),
    (addresses.listen_endpoint, "::1:25", "not address and port"),
    (addresses.listen_endpoint, "[127.0.0.1]:25", "not address and port"),
    (addresses.listen_endpoint, "[::1", "not address and port"),
    (addresses.listen_endpoint, "host:66000", "not address and port"),
    (addresses.listen_endpoint, "host:٢٥", "not address and port"),
    (addresses.next_hop, "host:0", "not host and port"),
    (addresses.keyword, "TURBO", "PIPELINING"),
    (code.sink_file, "stamp.txt", "not a Python file"),
    (code.sink_file, "stamp.py:do it", "not a Python file"),
    (code.import_path, "package.module", "not an import path"),
    (code.rule, "RCPT FROM=x", "RCPT FROM"),
    (code.property_bag, {"a": [1]}, "texts, numbers"),
    (code.property_bag, "x", "not a table"),
]


@pytest.mark.parametrize(("reader", "written", "words"), WRONG)
def test_what_is_wrong_is_said(reader: Reader[object], written: object, words: str) -> None:
    with pytest.raises(Unfit) as caught:
        reader(written, HERE)
    assert words in f"{caught.value.what} {caught.value.do}"
    assert caught.value.do


def test_a_list_tells_all_its_wrong_items() -> None:
    with pytest.raises(Unfit) as caught:
        values.many(addresses.network)(["10.0.0.0/8", "x", "127.0.0.0/8", "y"], HERE)
    assert [one.item for one in (caught.value, *caught.value.others)] == [1, 3]


def test_one_item_may_stand_without_brackets() -> None:
    assert values.many(addresses.pattern)("*", HERE) == ("*",)
    assert values.many(addresses.pattern)(["*@example.com", "*@*.example.com"], HERE) == (
        "example.com",
        "*.example.com",
    )


def test_paths_are_counted_from_the_folder_of_the_file() -> None:
    assert values.path("spool", HERE) == HERE / "spool"
    assert values.path("/var/spool", HERE) == Path("/var/spool")
    assert code.sink_file("sinks/a.py:b", HERE) == code.SinkFile(HERE / "sinks/a.py", "b")


def test_domains_in_other_scripts_are_kept() -> None:
    assert addresses.domain("Bücher.example", HERE) == "bücher.example"


def test_guid_in_registry_form() -> None:
    written = "{01234567-89ab-cdef-0123-456789abcdef}"
    assert values.guid(written, HERE) == written.upper()


def test_a_secret_does_not_show_itself() -> None:
    secret = values.secret("hunter2", HERE)
    assert secret.reveal() == "hunter2"
    assert "hunter2" not in f"{secret} {secret!r} {[secret]}"
    assert b"hunter2" not in msgspec.json.encode({"password": secret}, enc_hook=str)

"""From a file to a configuration, or to all its faults."""

from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import msgspec
import pytest

from lonedot.config.choices import KeepContent
from lonedot.config.faults import ConfigFaults, Severity
from lonedot.config.load import MAX_FILE, Examined, examine, examine_octets, load
from lonedot.config.model import Config
from lonedot.delivery.routing import TlsPolicy
from lonedot.message.edits import Effect
from lonedot.sinks.bindings import Role, guid_for
from tests.unit.config.conftest import LISTENER, ROUTE, SERVER, Say


def words(examined: Examined) -> list[str]:
    """`line severity where: what`, for comparing."""
    return [f"{f.line} {f.severity.value} {f.where}: {f.what}" for f in examined.faults]


def config_of(examined: Examined) -> Config:
    assert examined.config is not None, examined.faults
    return examined.config


def test_the_first_configuration(say: Say, tmp_path: Path) -> None:
    config = config_of(say())
    assert config.server.hostname == "relay.example.com"
    assert config.server.spool == tmp_path / "spool"
    assert config.server.postmaster.text == "postmaster@relay.example.com"
    assert config.server.max_size == 52_428_800
    assert config.server.keep_content is KeepContent.DAMAGED
    (listener,) = config.listeners
    assert listener.name == "127.0.0.1:2525"
    assert listener.relay_from == (ip_network("127.0.0.0/8"),)
    (route,) = config.routes
    assert (route.name, str(route.smarthost[0]), route.tls) == (
        "*",
        "127.0.0.1:2526",
        TlsPolicy.OPPORTUNISTIC,
    )
    assert list(route.retry_minutes) == [1, 5, 15, 30, 60, 240]
    assert route.expire == timedelta(days=2)
    assert config.pickup.folder == tmp_path / "spool/pickup"
    assert config.badmail.folder == tmp_path / "spool/badmail"


def test_nothing_is_said_of_it(say: Say) -> None:
    assert say().faults == ()


def test_a_full_sink(say: Say, tmp_path: Path) -> None:
    (tmp_path / "stamp.py").write_text("def stamp(message): ...\n", encoding="utf-8")
    config = config_of(
        say(
            '[[sink]]\nname = "Stamp"\nfile = "stamp.py:stamp"\npriority = 28010\nrule = "RCPT TO=*@example.com"\n'
            'effects = ["header"]\nrole = "cosmetic"\nsettings = { field = "X-Stamp", times = 2 }\n'
        )
    )
    (sink,) = config.sinks
    assert sink.file is not None and str(sink.file) == f"{tmp_path}/stamp.py:stamp"
    assert sink.effects == (Effect.HEADER,)
    assert sink.role is Role.COSMETIC
    assert sink.guid == guid_for("Stamp")
    assert sink.settings == {"field": "X-Stamp", "times": 2}


def test_every_fault_is_told_at_once_and_in_order(say: Say) -> None:
    examined = say(
        server='[server]\nhostnam = "relay"\nmax_size = "50 parsecs"\n',
        listener='[[listener]]\naddress = "127.0.0.1:2525"\n'
        'relay_from = ["127.0.0.0/8",\n  "0.0.0.0/1", "10.0.0.9/8"]\nline_ends = "fix"\n',
        route='[[route]]\nto = "*"\nsmarthost = "nowhere :1"\n[rote]\n',
    )
    assert words(examined) == [
        "2 fault server: hostnam: is not a key that exists here",
        '3 fault server: max_size: "50 parsecs" is not a size',
        '7 fault listener 1: relay_from: "10.0.0.9/8" has bits set behind the mask',
        '8 fault listener 1: line_ends: "fix" is not one of the choices',
        '11 fault route 1: smarthost: "nowhere :1" is not host and port',
        "12 fault rote: is not a table that exists here",
    ]
    assert examined.faults[0].do == "did you mean hostname?"
    assert examined.faults[5].do == "did you mean route?"


def test_a_printed_fault_leads_an_editor_to_the_line(say: Say, tmp_path: Path) -> None:
    fault = say("[pickup]\npoll_second = 1\n").faults[0]
    assert str(fault) == (
        f"{tmp_path}/lonedot.toml:11:1: fault: pickup: poll_second: is not a key that exists here"
        " — did you mean poll_seconds?"
    )


@pytest.mark.parametrize(
    ("extra", "meant"),
    [
        ("[[listeners]]\n", "listener"),
        ("[bad_mail]\n", "badmail"),
        ("[sinks]\n", "sink"),
        ("[completely_else]\n", "remove it"),
    ],
)
def test_suggestions_for_tables(say: Say, extra: str, meant: str) -> None:
    assert meant in say(extra).faults[-1].do


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("relayhost", "smarthost"),
        ("username", "login"),
        ("Connections", "connections"),
        ("retry-minutes", "retry_minutes"),
    ],
)
def test_suggestions_for_keys(say: Say, written: str, meant: str) -> None:
    assert f"did you mean {meant}?" in [fault.do for fault in say(f"{written} = 1\n").faults]


def test_toml_faults_have_their_line(say: Say) -> None:
    (fault,) = say("[badmail]\nfolder = spool\n").faults
    assert (fault.line, fault.column) == (11, 10)
    assert "is not TOML: invalid value" in fault.what
    (fault,) = say('x = """\n').faults
    assert fault.line == 10


@pytest.mark.parametrize(
    ("octets", "what"),
    [
        (b'[server]\nhostname = "\xff"\n', "not UTF-8"),
        (b"x = " + b"[" * 5000, "TOML"),
        (b"#" * (MAX_FILE + 1), "larger than"),
        (b"x = " + b"9" * 5000, "TOML"),
        (b"x = 2024-13-45\n", "TOML"),
    ],
)
def test_what_cannot_be_toml(octets: bytes, what: str, tmp_path: Path) -> None:
    examined = examine_octets(octets, tmp_path / "lonedot.toml")
    assert examined.config is None
    assert what in examined.faults[0].what or "too deep" in examined.faults[0].what


def test_a_byte_order_mark_is_forgiven(tmp_path: Path) -> None:
    octets = b"\xef\xbb\xbf" + (SERVER + LISTENER + ROUTE).encode()
    assert examine_octets(octets, tmp_path / "lonedot.toml").config is not None


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    examined = examine(tmp_path / "none.toml")
    assert "no such file" in examined.faults[0].what
    assert examine(tmp_path).config is None


def test_load_raises_with_all_faults(tmp_path: Path) -> None:
    file = tmp_path / "lonedot.toml"
    file.write_text("[server]\nspool = 1\n[rout]\n", encoding="utf-8")
    with pytest.raises(ConfigFaults) as caught:
        load(file)
    assert len(caught.value.faults) >= 4
    file.write_text(SERVER + LISTENER + ROUTE, encoding="utf-8")
    assert load(file).server.hostname == "relay.example.com"


def test_tables_of_the_wrong_shape(say: Say) -> None:
    examined = say(
        server="server = 5\npickup = 1\n",
        listener='[listener]\naddress = "127.0.0.1:2525"\n',
        route="[[route]]\n",
    )
    told = words(examined)
    assert "1 fault server: is not a table" in told
    assert "2 fault pickup: is not a table" in told
    assert "3 fault listener: [listener] is one table" in told
    assert "5 fault route 1: to: is missing" in told
    assert "5 fault route 1: leads nowhere" in told


def test_lists_where_one_table_belongs(say: Say) -> None:
    assert "write [server], once" in [
        f.do for f in say(server=SERVER.replace("[server]", "[[server]]")).faults
    ]
    assert any("route" in f.where for f in say(route="", server="route = [1]\n" + SERVER).faults)


def test_the_hostname_of_the_machine_is_used_when_it_has_one(tmp_path: Path) -> None:
    text = (LISTENER + ROUTE).encode()
    named = examine_octets(text, tmp_path / "lonedot.toml", lambda: "Relay.Example.Com")
    assert config_of(named).server.hostname == "relay.example.com"
    assert config_of(named).server.spool == tmp_path / "spool"
    nameless = examine_octets(text, tmp_path / "lonedot.toml", lambda: "localhost")
    assert [f.where for f in nameless.faults] == ["server: hostname"]
    assert '"localhost" is not a full domain name' in nameless.faults[0].what


def test_a_mistyped_hostname_is_not_also_missing(tmp_path: Path) -> None:
    text = (SERVER.replace("hostname", "hostnme") + LISTENER + ROUTE).encode()
    examined = examine_octets(text, tmp_path / "lonedot.toml", lambda: "localhost")
    assert [f.where for f in examined.faults] == ["server: hostnme"]


def test_the_revision_follows_the_values_and_not_the_writing(say: Say) -> None:
    first = config_of(say()).revision
    assert len(first) == 12
    assert config_of(say("# a comment\n[pickup]\nenabled = true\n")).revision == first
    assert config_of(say("[pickup]\npoll_seconds = 2\n")).revision != first


def test_the_revision_does_not_depend_on_how_the_file_is_named(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = config_of(say())
    monkeypatch.chdir(tmp_path)
    named = load(Path("lonedot.toml"))
    assert named.server.spool == first.server.spool
    assert named.revision == first.revision


def test_the_revision_does_not_depend_on_a_password(say: Say) -> None:
    login = 'login = "relay"\npassword = "{}"\ntls = "required"\n'
    one, other = (config_of(say(login.format(word))) for word in ("a", "b"))
    assert one.routes[0].password != other.routes[0].password
    assert one.revision == other.revision


def test_routes_and_listeners_without_names_get_different_ones(say: Say) -> None:
    config = config_of(
        say(
            '[[route]]\nto = "*"\nsmarthost = "192.0.2.1"\n',
            listener='[[listener]]\naddress = "127.0.0.1:0"\nrelay_from="127.0.0.1"\n' * 2,
        )
    )
    assert [route.name for route in config.routes] == ["*", "* (2)"]
    assert [listener.name for listener in config.listeners] == ["127.0.0.1:0", "127.0.0.1:0 (2)"]


def test_values_are_frozen(say: Say) -> None:
    config = config_of(say())
    with pytest.raises(AttributeError):
        config.server.hostname = "other.example.com"  # type: ignore[misc]
    assert msgspec.structs.replace(config.server, hop_limit=7).hop_limit == 7


def test_warnings_do_not_stop_the_relay(say: Say) -> None:
    examined = say(listener='[[listener]]\naddress = "127.0.0.1:2525"\n')
    assert [fault.severity for fault in examined.faults] == [Severity.WARNING]
    assert examined.config is not None

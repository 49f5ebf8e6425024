"""What tables say together, and what the disk says about them."""

import os
from ipaddress import ip_network
from pathlib import Path

import pytest
import trustme

from lonedot.config import check_listeners
from lonedot.config.addresses import Endpoint
from lonedot.config.check_listeners import collide, relay_risk
from lonedot.config.check_routes import covers
from lonedot.config.faults import Severity
from lonedot.config.load import Examined
from tests.unit.config.conftest import LISTENER, ROUTE, SERVER, Say

FAULT, WARNING = Severity.FAULT, Severity.WARNING


def told(examined: Examined, severity: Severity = FAULT) -> list[str]:
    return [f"{f.line} {f.where}: {f.what}" for f in examined.faults if f.severity is severity]


# --- who may relay ---


@pytest.mark.parametrize(
    ("networks", "risks"),
    [
        (["0.0.0.0/0"], [FAULT]),
        (["::/0"], [FAULT]),
        (["0.0.0.0/1", "10.0.0.0/8"], [FAULT, None]),
        (["64.0.0.0/7"], [FAULT]),
        (["8.0.0.0/8"], [WARNING]),
        (["8.0.0.0/9", "8.128.0.0/9", "9.0.0.0/8"], [FAULT, FAULT, FAULT]),
        (["8.8.8.8/32"], [None]),
        (["127.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12", "100.64.0.0/10", "169.254.0.0/16"], [None] * 5),
        (["172.0.0.0/8"], [WARNING]),
        (["2000::/3"], [FAULT]),
        (["2001:470::/32"], [WARNING]),
        (["fc00::/7", "fe80::/10", "::1/128"], [None, None, None]),
        (["::ffff:0:0/96"], [FAULT]),
        (["::/8"], [FAULT]),
        (["::ffff:10.0.0.0/104"], [None]),
        (["::ffff:8.0.0.0/103"], [FAULT]),
    ],
)
def test_relay_risk(networks: list[str], risks: list[Severity | None]) -> None:
    assert relay_risk([ip_network(network) for network in networks]) == risks


def test_an_open_relay_is_refused_with_its_line(say: Say) -> None:
    examined = say(listener=LISTENER.replace('["127.0.0.0/8"]', '["127.0.0.0/8",\n"0.0.0.0/0"]'))
    assert examined.config is None
    assert told(examined) == [
        "7 listener 1: relay_from: 0.0.0.0/0 lets strangers send anywhere in your name: an open relay"
    ]


def test_the_internet_in_small_pieces_is_the_internet(say: Say) -> None:
    pieces = ", ".join(f'"{octet}.0.0.0/8"' for octet in range(256))
    examined = say(listener=LISTENER.replace('["127.0.0.0/8"]', f"[{pieces}]"))
    assert examined.config is None
    assert len(told(examined)) == 254  # but for 10/8 and 127/8


def test_a_public_network_is_worth_a_warning(say: Say) -> None:
    examined = say(listener=LISTENER.replace("127.0.0.0/8", "198.51.0.0/16"))
    assert examined.config is not None
    assert "is public" in told(examined, WARNING)[0]


BARE_LISTENER = '[[listener]]\naddress = "127.0.0.1:2525"\n'
OPEN_LOGIN = BARE_LISTENER + "allow_plaintext_login = true\n"
AUTH_SINK = (
    '[[sink]]\nname = "who"\nimport = "lonedot.sinks.builtin.x_recipient:x_recipient"\nevent = "auth"\n'
)
ALONE = "takes mail for postmaster alone"
UNLESS = ALONE + ", unless a sink at auth lets somebody log in"


@pytest.mark.parametrize(
    ("listener", "sink", "said"),
    [
        (BARE_LISTENER, "", ALONE),
        (OPEN_LOGIN, "", ALONE),
        (OPEN_LOGIN, AUTH_SINK, ""),
        (OPEN_LOGIN + 'ehlo_off = ["AUTH"]\n', AUTH_SINK, ALONE),
        (BARE_LISTENER, AUTH_SINK, ALONE),  # AUTH is offered inside TLS alone, and there is none
        (OPEN_LOGIN, AUTH_SINK + "enabled = false\n", ALONE),
        (OPEN_LOGIN, AUTH_SINK + "source = 2\n[[source]]\nnumber = 2\n", ALONE),
        (OPEN_LOGIN, AUTH_SINK.replace('"auth"', '"mail"'), ALONE),
        (OPEN_LOGIN, AUTH_SINK.replace('event = "auth"\n', ""), UNLESS),
    ],
)
def test_a_listener_for_nobody_is_worth_a_warning(say: Say, listener: str, sink: str, said: str) -> None:
    warnings = [words for words in told(say(sink, listener=listener), WARNING) if ALONE in words]
    assert [words.partition(": ")[2].partition(": ")[0] for words in warnings] == ([said] if said else [])


@pytest.mark.parametrize(
    ("row", "said"),
    [("auth", ""), ("mail", ALONE), ("nonsense", UNLESS)],
    ids=["lets log in", "something else", "cannot be read"],
)
def test_a_sink_of_the_registry_may_let_somebody_log_in(
    say: Say, tmp_path: Path, row: str, said: str
) -> None:
    sink = "lonedot.sinks.builtin.x_recipient:x_recipient"
    (tmp_path / "sinks.toml").write_text(f'[[binding]]\nname = "who"\nsink = "{sink}"\nevent = "{row}"\n')
    examined = say(server=SERVER + 'registry = "sinks.toml"\n', listener=OPEN_LOGIN)
    warnings = [words for words in told(examined, WARNING) if ALONE in words]
    assert [words.partition(": ")[2].partition(": ")[0] for words in warnings] == ([said] if said else [])


# --- addresses ---


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        (("127.0.0.1", 25), ("127.0.0.1", 25), True),
        (("0.0.0.0", 25), ("127.0.0.1", 25), True),
        (("::", 25), ("::1", 25), True),
        (("::", 25), ("0.0.0.0", 25), False),
        (("127.0.0.1", 25), ("127.0.0.2", 25), False),
        (("127.0.0.1", 0), ("127.0.0.1", 0), False),
        (("0.0.0.0", 25), ("0.0.0.0", 26), False),
    ],
)
def test_collide(one: tuple[str, int], other: tuple[str, int], answer: bool) -> None:
    assert collide(Endpoint(*one), Endpoint(*other)) is answer
    assert collide(Endpoint(*other), Endpoint(*one)) is answer


def test_listeners_that_collide(say: Say) -> None:
    examined = say(listener=LISTENER + LISTENER.replace("127.0.0.1", "0.0.0.0"))
    assert told(examined) == ["8 listener 2: address: 0.0.0.0:2525 is taken by listener 1"]


def test_equal_names(say: Say) -> None:
    named = LISTENER + 'name = "x"\n'
    examined = say(
        ROUTE.replace('"*"', '"a.example"') + 'name = "r"\n',
        listener=named + named.replace("2525", "2527"),
        route='[[route]]\nto = "b.example"\nsmarthost = "192.0.2.1"\nname = "r"\n',
    )
    assert [line.split(" ", 1)[1] for line in told(examined)] == [
        'listener 2: name: "x" is also the name of listener 1',
        'route 2: name: "r" is also the name of route 1',
    ]


def test_nothing_takes_mail(say: Say) -> None:
    assert "no listener" in told(say(listener=""), WARNING)[0]
    assert "nothing takes mail" in told(say("[pickup]\nenabled = false\n", listener=""))[0]


# --- routes ---


@pytest.mark.parametrize(
    ("wide", "narrow", "answer"),
    [
        ("*", "a@b.example", True),
        ("example.com", "*", False),
        ("example.com", "Example.com", True),
        ("example.com", "joe@example.com", True),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "*.b.example.com", True),
        ("*.b.example.com", "*.example.com", False),
        ("example.com", "*.example.com", False),
        ("joe@example.com", "example.com", False),
        ("*.ample.com", "example.com", False),
    ],
)
def test_covers(wide: str, narrow: str, answer: bool) -> None:
    assert covers(wide, narrow) is answer


def test_routes_that_are_never_used(say: Say) -> None:
    second = '[[route]]\nto = ["example.com", "a@example.org"]\nsmarthost = "192.0.2.9"\n'
    assert "is never used: route 1 stands before it" in told(say(second), WARNING)[0]
    assert told(say(ROUTE, route='[[route]]\nto = "example.com"\nsmarthost = "192.0.2.9"\n'), WARNING) == []


def test_one_pattern_that_is_never_used(say: Say) -> None:
    first = '[[route]]\nto = "example.com"\nsmarthost = "192.0.2.9"\n'
    second = '[[route]]\nto = ["example.com", "*"]\nsmarthost = "192.0.2.8"\n'
    assert told(say(second, route=first), WARNING) == [
        '11 route 2: to: "example.com" is never used: route 1 takes it before'
    ]


def test_no_route(say: Say) -> None:
    assert told(say(route="")) == ["0 route: no route: mail could go nowhere"]


def test_domains_and_postmaster_that_no_route_takes(say: Say) -> None:
    examined = say(
        listener='[[listener]]\naddress = "127.0.0.1:2525"\nrelay_to = ["here.example", "far.example"]\n',
        route='[[route]]\nto = "here.example"\nsmarthost = "192.0.2.9"\n',
    )
    assert told(examined) == [
        "6 listener 1: relay_to: mail for far.example is taken, but no route leads there"
    ]
    assert "no route leads to postmaster@relay.example.com" in told(examined, WARNING)[0]


@pytest.mark.parametrize(
    ("listen", "hop", "is_circle"),
    [
        ("127.0.0.1:2525", "127.0.0.1:2525", True),
        ("0.0.0.0:2525", "localhost:2525", True),
        ("0.0.0.0:2525", "127.0.0.1:2526", False),
        ("192.0.2.1:25", "relay.example.com", True),
        ("127.0.0.2:2525", "127.0.0.1:2525", False),
    ],
)
def test_circles(say: Say, listen: str, hop: str, is_circle: bool) -> None:
    examined = say(
        listener=LISTENER.replace("127.0.0.1:2525", listen), route=ROUTE.replace("127.0.0.1:2526", hop)
    )
    assert any("circle" in line for line in told(examined)) is is_circle


# --- logins ---


def test_login_without_password(say: Say) -> None:
    assert told(say('login = "relay"\n')) == ["10 route 1: login: has no password"]


def test_password_without_login(say: Say) -> None:
    assert told(say('password = "x"\n')) == ["10 route 1: password: is a password without a login"]


def test_two_passwords(say: Say, tmp_path: Path) -> None:
    (tmp_path / "p").write_text("x\n", encoding="utf-8")
    (tmp_path / "p").chmod(0o600)
    assert told(say('login = "a"\npassword = "x"\npassword_file = "p"\n')) == [
        "12 route 1: password_file: stands beside password"
    ]


def test_password_in_clear_over_the_network(say: Say) -> None:
    login = 'login = "relay"\npassword = "x"\ntls = "off"\n'
    away = ROUTE.replace("127.0.0.1:2526", "smtp.example.org:587")
    assert told(say(login, route=away)) == [
        "12 route 1: tls: is off, so the password would cross the network in clear"
    ]
    assert told(say(login)) == []  # loopback


def test_password_from_a_file(say: Say, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    lines = 'login = "relay"\npassword_file = "secret"\n'
    assert "cannot be read" in told(say(lines))[0]
    file.write_bytes(b"\n")
    file.chmod(0o640)
    assert "is empty" in told(say(lines))[0]
    file.write_bytes(b"\xff\n")
    assert "not UTF-8" in told(say(lines))[0]
    file.write_bytes(b"pass word\r\nmore\n")
    config = say(lines).config
    assert config is not None and config.routes[0].password is not None
    assert config.routes[0].password.reveal() == "pass word"
    file.chmod(0o644)
    assert "can be read by everybody (mode 0644)" in told(say(lines))[0]


def test_password_from_the_environment(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = 'login = "relay"\npassword_env = "LONEDOT_TEST_PASSWORD"\n'
    monkeypatch.delenv("LONEDOT_TEST_PASSWORD", raising=False)
    assert "LONEDOT_TEST_PASSWORD is not set" in told(say(lines))[0]
    monkeypatch.setenv("LONEDOT_TEST_PASSWORD", "x")
    config = say(lines).config
    assert config is not None and config.routes[0].password is not None
    assert config.routes[0].password.reveal() == "x"


def test_a_password_in_a_file_that_others_read(say: Say, tmp_path: Path) -> None:
    say('login = "relay"\npassword = "x"\n')
    file = tmp_path / "lonedot.toml"
    file.chmod(0o644)
    from lonedot.config.load import examine

    assert "others can read it" in told(examine(file), WARNING)[0]


# --- TLS ---


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    authority = trustme.CA()
    for name in ("one", "two"):
        certificate = authority.issue_cert("relay.example.com")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        (tmp_path / f"{name}.key").chmod(0o600)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path


def listener_tls(certificate: str, key: str) -> str:
    return LISTENER + f'tls = "starttls"\ntls_certificate = "{certificate}"\ntls_key = "{key}"\n'


def test_a_good_pair(say: Say, tls: Path) -> None:
    assert say(listener=listener_tls("one.pem", "one.key")).faults == ()


def test_certificates_that_cannot_be_used(say: Say, tls: Path) -> None:
    assert "is not the key of" in told(say(listener=listener_tls("one.pem", "two.key")))[0]
    assert "does not exist" in told(say(listener=listener_tls("none.pem", "one.key")))[0]
    (tls / "bad.pem").write_text("no certificate\n", encoding="utf-8")
    assert "cannot be used" in told(say(listener=listener_tls("bad.pem", "one.key")))[0]
    (tls / "one.key").chmod(0o604)
    assert "can be read by everybody (mode 0604)" in told(say(listener=listener_tls("one.pem", "one.key")))[0]


def test_tls_without_files_and_files_without_tls(say: Say, tls: Path) -> None:
    assert told(say(listener=LISTENER + 'tls = "implicit"\n')) == [
        "7 listener 1: tls: needs tls_certificate",
        "7 listener 1: tls: needs tls_key",
    ]
    assert "is not used" in told(say(listener=LISTENER + 'tls_key = "one.key"\n'), WARNING)[0]
    assert told(say(listener=LISTENER + "require_tls = true\n")) == [
        "7 listener 1: require_tls: asks for TLS, but tls is off"
    ]
    both = listener_tls("one.pem", "one.key") + 'ehlo_off = ["starttls"]\n'
    assert "switches STARTTLS off" in told(say(listener=both))[0]


def test_issuers(say: Say, tls: Path) -> None:
    assert say('tls = "verified"\ntls_ca = "ca.pem"\n').faults == ()
    assert "is not used" in told(say('tls_ca = "ca.pem"\n'), WARNING)[0]
    (tls / "empty.pem").write_text("", encoding="utf-8")
    assert "holds no certificate" in told(say('tls = "verified"\ntls_ca = "empty.pem"\n'))[0]
    assert "switches STARTTLS off" in told(say('tls = "required"\nehlo_off = ["STARTTLS"]\n'))[0]


# --- times ---


def test_times_that_contradict(say: Say) -> None:
    assert "is never sent" in told(say('expire = "1h"\ndelay_notice = "2h"\n'), WARNING)[0]
    assert "first retry" in told(say('expire = "1m"\nretry_minutes = [5]\n'), WARNING)[-1]


# --- sinks ---


def sink(lines: str) -> str:
    return f'[[sink]]\nname = "S"\n{lines}'


def test_sinks_need_one_place_of_code(say: Say) -> None:
    assert told(say(sink(""))) == ["10 sink 1: has no code"]
    both = say(sink('file = "a.py"\nimport = "a.b:c"\n'))
    assert told(both) == ["13 sink 1: import: stands beside file"]


def test_the_file_of_a_sink_is_read_and_never_run(say: Say, tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    assert "does not exist" in told(say(sink('file = "a.py"\n')))[0]
    file.write_text("def f(:\n", encoding="utf-8")
    assert "a.py line 1: " in told(say(sink('file = "a.py"\n')))[0]
    file.write_text(
        "raise SystemExit\ndef f(m): ...\nasync def g(m): ...\nh = f\ni: int = 1\nimport os\n",
        encoding="utf-8",
    )
    for name in ("f", "g", "h", "i", "os"):
        assert say(sink(f'file = "a.py:{name}"\n')).faults == ()
    assert "has no other" in told(say(sink('file = "a.py:other"\n')))[0]


def test_a_package_that_is_not_installed(say: Say) -> None:
    assert "there is no package" in told(say(sink('import = "no_such_package_here.x:y"\n')))[0]
    assert "no installed package offers a sink acme-x" in told(say(sink('import = "acme-x"\n')))[0]
    assert say(sink('import = "json.tool:main"\n')).faults == ()


def test_equal_sinks(say: Say) -> None:
    twice = sink('import = "json:loads"\n') + sink('import = "json:loads"\n').replace('"S"', '"s"')
    assert told(say(twice)) == ['14 sink 2: name: "s" is also the name of sink 1']
    guid = 'import = "json:loads"\nguid = "01234567-89ab-cdef-0123-456789abcdef"\n'
    assert "is also the GUID of" in told(say(sink(guid) + sink(guid).replace('"S"', '"T"')))[0]


@pytest.mark.parametrize("weak", ['on_damage = "undo"', 'on_damage = "repair"', 'on_error = "skip"'])
def test_a_scanner_that_lets_mail_pass(say: Say, weak: str) -> None:
    (line,) = told(say(sink(f'import = "json:loads"\nrole = "protective"\n{weak}\n')))
    assert "lets mail pass" in line


# --- in a container ---

NETWORK_OF_CONTAINERS = LISTENER.replace("127.0.0.1:2525", "0.0.0.0:2525").replace(
    "127.0.0.0/8", "172.16.0.0/12"
)


@pytest.mark.parametrize(
    ("listener", "container", "said"),
    [
        (NETWORK_OF_CONTAINERS, True, True),
        (NETWORK_OF_CONTAINERS, False, False),
        (NETWORK_OF_CONTAINERS + 'proxy_from = ["172.17.0.1/32"]\n', True, False),
        (NETWORK_OF_CONTAINERS.replace("0.0.0.0", "127.0.0.1"), True, False),
        (NETWORK_OF_CONTAINERS.replace("172.16.0.0/12", "192.168.0.0/16"), True, False),
    ],
)
def test_a_gateway_in_relay_from(
    say: Say, monkeypatch: pytest.MonkeyPatch, listener: str, container: bool, said: bool
) -> None:
    monkeypatch.setattr(check_listeners, "is_container", lambda: container)
    monkeypatch.setattr(check_listeners, "default_gateways", lambda: frozenset({"172.17.0.1"}))
    notes = [words for words in told(say(listener=listener), Severity.NOTE) if "gateway" in words]
    assert len(notes) == said
    assert not said or ("172.17.0.1" in notes[0] and "relay_from" in notes[0])


# --- folders ---


def test_folders(say: Say, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "does not exist" in told(say(server=SERVER.replace('"spool"', '"deep/spool"')))[0]
    assert "is not a folder" in told(say(server=SERVER.replace('"spool"', '"file"')))[0]
    assert "is not a folder" in told(say('[badmail]\nfolder = "file"\n'))[0]
    assert "is the spool itself" in told(say('[pickup]\nfolder = "spool"\n'))[0]
    same = '[pickup]\nfolder = "spool/x"\n[badmail]\nfolder = "spool/x"\n'
    assert "is also the folder of [badmail]" in told(say(same))[0]
    assert "does not exist" in told(say('[pickup]\nfolder = "deep/pickup"\n'))[0]


DROP = '[[route]]\nto = "example.com"\ndrop = true\n'
CIRCLE = "what is dropped would be sent again, in a circle"


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("", []),
        ('[drop]\nfolder = "spool/pickup"\n', [f"is also the folder of [drop]: {CIRCLE}"]),
        ('[pickup]\nfolder = "spool/drop"\n', [f"is also the folder of [drop]: {CIRCLE}"]),
        ('[[source]]\nnumber = 2\npickup = "spool/drop"\n', [f"is also the folder of [drop]: {CIRCLE}"]),
        ('[[source]]\nnumber = 2\npickup = "spool/drop-2"\n', [f"is also the folder of source 1: {CIRCLE}"]),
        (
            '[[source]]\nnumber = 2\npickup = "p"\ndrop = "p"\n',
            [f"is also the folder of source 1: {CIRCLE}"],
        ),
        ('[[source]]\nnumber = 1\ndrop = "spool/x"\n', ["source 1 has the folder of [drop]"]),
        ('[drop]\nfolder = "deep/drop"\n', ["does not exist"]),
        ('[drop]\nfolder = "spool"\n', ["is the spool itself"]),
    ],
)
def test_drop_folders(say: Say, extra: str, said: list[str]) -> None:
    faults = told(say(extra, route=DROP + ROUTE))
    assert len(faults) == len(said)
    for fault, words in zip(faults, said, strict=True):
        assert words in fault


def test_a_pickup_may_look_at_a_drop_folder_that_nothing_is_put_into(say: Say) -> None:
    assert told(say('[pickup]\nfolder = "spool/drop"\n')) == []


def test_a_drop_folder_for_no_route_is_worth_a_warning(say: Say) -> None:
    (words,) = told(say("[drop]\nenvelope = false\n"), WARNING)
    assert "is not used" in words


def test_a_spool_that_others_can_enter(say: Say, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool").chmod(0o755)
    assert "mode 0755" in told(say(), WARNING)[0]
    (tmp_path / "spool").chmod(0o700)
    assert say().faults == ()


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system at /dev/shm")
def test_pickup_on_another_file_system(say: Say, tmp_path: Path) -> None:
    if tmp_path.stat().st_dev == Path("/dev/shm").stat().st_dev:
        pytest.skip("the temporary folder is on /dev/shm itself")
    assert "another file system" in told(say('[pickup]\nfolder = "/dev/shm/lonedot-pickup"\n'))[0]


def test_a_registry_that_is_not_there_is_noted(say: Say) -> None:
    examined = say(server=SERVER + 'registry = "sinks.toml"\n')
    assert [(fault.severity, fault.line) for fault in examined.faults] == [(Severity.NOTE, 4)]


def test_a_wrong_required_key_hides_no_other_fault(say: Say) -> None:
    said = say(
        """
        [[listener]]
        address = "nowhere"
        relay_from = ["0.0.0.0/0"]
        [[route]]
        to = "*"
        smarthost = "127.0.0.1:99999"
        tls = "off"
        """
    )
    assert "open relay" in "\n".join(map(str, said))


# --- logins ---


@pytest.mark.parametrize(
    ("listener", "mode", "text", "words"),
    [
        ('logins = "l"', 0o600, "", "nobody can log in: AUTH is offered inside TLS alone"),
        ('logins = "l"\nallow_plaintext_login = true', 0o600, "", ""),
        ('logins = "l"\nallow_plaintext_login = true', 0o640, "# none yet\n", ""),
        (
            'logins = "l"\nallow_plaintext_login = true',
            0o644,
            "",
            "can be read or changed by others (mode 0644)",
        ),
        (
            'logins = "l"\nallow_plaintext_login = true',
            0o660,
            "",
            "can be read or changed by others (mode 0660)",
        ),
        ('logins = "l"\nallow_plaintext_login = true', 0o600, "anna:secret", "line 1: not name:scrypt"),
        ('logins = "l"\nallow_plaintext_login = true\nehlo_off = ["AUTH"]', 0o600, "", "switches AUTH off"),
    ],
)
def test_logins(tmp_path: Path, say: Say, listener: str, mode: int, text: str, words: str) -> None:
    (tmp_path / "l").write_text(text)
    (tmp_path / "l").chmod(mode)
    found = told(say(listener=f"{LISTENER}{listener}\n"))
    assert [words in line for line in found] == [True] * bool(words)


def test_logins_that_are_not_there_yet(say: Say) -> None:
    examined = say(listener=f'{LISTENER}logins = "l"\nallow_plaintext_login = true\n')
    assert told(examined) == []
    assert any("nobody can log in yet" in line for line in told(examined, WARNING))


# --- metrics ---


def test_figures_that_others_could_read_and_an_address_that_is_taken(say: Say) -> None:
    assert told(say('[metrics]\naddress = "127.0.0.1:9125"\n'), WARNING) == []
    assert any(
        "there is no login" in one for one in told(say('[metrics]\naddress = "0.0.0.0:9125"\n'), WARNING)
    )
    assert any(
        "is taken by listener 1" in one for one in told(say('[metrics]\naddress = "127.0.0.1:2525"\n'))
    )


def test_a_rate_that_is_none_is_told_with_its_place(say: Say) -> None:
    (fault,) = say(route=f'{ROUTE}rate = "many"\n').faults
    assert (fault.line, fault.column, fault.where) == (10, 1, "route 1: rate")
    assert '"many" is not a rate' in fault.what and "30/min" in fault.do

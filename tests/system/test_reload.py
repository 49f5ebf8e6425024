"""A changed configuration under a running relay: nothing is lost, no connection is turned away, no session ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lonedot.admin.values import AdminError
from lonedot.app import Relay
from lonedot.testing.process import SUPERVISED, RelayProcess
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, PATIENCE, connected, finished, first_config, submit

RELOAD_SECONDS = float(os.environ.get("LONEDOT_RELOAD_SECONDS", "5"))
"""How long the relay is reloaded under load; a minute shows more."""
SECOND = """
[[listener]]
name = "second"
address = "127.0.0.1:0"
relay_from = ["127.0.0.0/8"]
"""

pytestmark = pytest.mark.anyio


@pytest.fixture
def receiver() -> Iterator[StrictSink]:
    with StrictSink() as one:
        yield one


def rewrite(folder: Path, toml: str) -> None:
    (folder / "lonedot.toml").write_text(toml)


async def take(relay: Relay, folder: Path, toml: str) -> None:
    rewrite(folder, toml)
    done = await relay.reload(0)
    assert done.taken, done


async def test_a_listener_comes_and_goes_and_the_other_keeps_its_port(
    tmp_path: Path, receiver: StrictSink
) -> None:
    toml = first_config(receiver.port)
    async with running_relay(tmp_path, toml) as relay:
        before = dict(relay.addresses)
        await take(relay, tmp_path, toml + SECOND)
        assert relay.addresses["in"] == before["in"]
        async with connected(relay, listener="second"):
            address = relay.addresses["second"]
            await take(relay, tmp_path, toml)
        assert "second" not in relay.addresses
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=PATIENCE)


async def test_an_open_session_keeps_what_it_began_with(tmp_path: Path, receiver: StrictSink) -> None:
    toml = first_config(receiver.port)
    async with running_relay(tmp_path, toml) as relay, connected(relay) as client:
        closed = toml.replace('relay_from = ["127.0.0.0/8"]', 'relay_to = ["other.example"]')
        await take(relay, tmp_path, closed)
        assert [reply[:3] for reply in await client.envelope()] == ["250", "250"]
        assert (await client.content()).startswith("250")
        async with connected(relay) as stranger:
            assert (await stranger.envelope())[1].startswith("5")


async def test_sessions_of_before_count_for_the_bounds_of_now(tmp_path: Path, receiver: StrictSink) -> None:
    toml = first_config(receiver.port, listener="max_connections = 2")
    async with running_relay(tmp_path, toml) as relay, connected(relay), connected(relay):
        await take(relay, tmp_path, toml)
        async with connected(relay, ehlo=False) as third:
            assert (await third.reply()).startswith("421")


async def test_what_waits_goes_the_new_way(tmp_path: Path, receiver: StrictSink) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        toml = first_config(nobody.getsockname()[1], route="retry_minutes = [0.01]")
        async with running_relay(tmp_path, toml) as relay:
            id = await submit(relay)
            await take(relay, tmp_path, first_config(receiver.port, route="retry_minutes = [0.01]"))
            await finished(relay, id)
    assert len(receiver.arrivals) == 1


async def test_a_fault_changes_nothing_and_all_are_named(tmp_path: Path, receiver: StrictSink) -> None:
    toml = first_config(receiver.port)
    async with running_relay(tmp_path, toml) as relay:
        revision = relay.config.revision
        rewrite(tmp_path, toml + "\n[[listener]]\nadress = 5\nname = 3\n")
        done = await relay.reload(0)
        assert not done.taken
        assert len([fault for fault in done.faults if "lonedot.toml:" in fault and "fault" in fault]) >= 2
        assert relay.config.revision == revision
        await finished(relay, await submit(relay))


async def test_an_address_that_is_taken_changes_nothing(tmp_path: Path, receiver: StrictSink) -> None:
    toml = first_config(receiver.port)
    async with running_relay(tmp_path, toml) as relay:
        revision, names = relay.config.revision, set(relay.addresses)
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            rewrite(tmp_path, toml + SECOND.replace(":0", f":{port}"))
            with pytest.raises(AdminError, match=f"cannot listen on 127.0.0.1:{port}"):
                await relay.reload(0)
        assert relay.config.revision == revision
        assert set(relay.addresses) == names
        await finished(relay, await submit(relay))


async def test_mail_goes_on_while_a_program_is_asked_for_a_password(
    tmp_path: Path, receiver: StrictSink
) -> None:
    """It writes only when it is told: a relay that waited for it on its loop could not take the message before."""
    os.mkfifo(tmp_path / "password")
    toml = first_config(receiver.port)
    asking = f'login = "relay"\npassword_command = ["/bin/cat", "{tmp_path}/password"]'
    async with running_relay(tmp_path, toml) as relay:
        taking = asyncio.create_task(take(relay, tmp_path, first_config(receiver.port, route=asking)))
        with await asyncio.to_thread(open, tmp_path / "password", "w") as told:  # once the program reads
            await finished(relay, await submit(relay))
            assert not taking.done()
            told.write("sesame\n")
        await taking
        assert relay.config.routes[0].login == "relay"


async def test_a_password_that_changed_is_taken_though_the_file_has_not(
    tmp_path: Path, receiver: StrictSink
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("old\n")
    toml = first_config(receiver.port, route=f'login = "relay"\npassword_command = ["/bin/cat", "{secret}"]')
    async with running_relay(tmp_path, toml) as relay:
        secret.write_text("new\n")
        await take(relay, tmp_path, toml)
        (route,) = relay._routes
        assert route.login is not None and route.login.password == b"new"


async def test_what_cannot_change_is_named_and_stays(tmp_path: Path, receiver: StrictSink) -> None:
    toml = first_config(receiver.port)
    async with running_relay(tmp_path, toml) as relay:
        spool = relay.config.server.spool
        rewrite(tmp_path, toml.replace('spool = "spool"', 'spool = "elsewhere"'))
        done = await relay.reload(0)
        assert done.taken
        assert "server.spool" in done.needs_restart
        assert relay.config.server.spool == spool
        await finished(relay, await submit(relay))


class Load:
    """Sends messages one after the other, each over a connection of its own, and counts."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.taken: list[str] = []
        self.broken: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(3)]

    def _send(self, number: int) -> None:
        count = 0
        while not self._over.is_set():
            count += 1
            name = f"{number}-{count}"
            try:
                with smtplib.SMTP("127.0.0.1", self.port, timeout=PATIENCE) as client:
                    octets = MESSAGE.replace(b"<1@", f"<{name}@".encode())
                    client.sendmail("c@office.example", ["anna@dest.example"], octets)
                self.taken.append(name)
            except (smtplib.SMTPException, OSError) as error:
                self.broken.append(f"{name}: {error!r}")

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def test_reloads_under_load_lose_nothing_and_reset_nobody(tmp_path: Path, receiver: StrictSink) -> None:
    """Each second another configuration: routes, limits and a second listener that comes and goes."""
    toml = first_config(receiver.port, server='log = "json"')
    with RelayProcess(tmp_path, toml, program=SUPERVISED) as relay:
        with Load(relay.ports["in"]) as load:
            ends_at = time.monotonic() + RELOAD_SECONDS
            count = 0
            while time.monotonic() < ends_at:
                count += 1
                changed = first_config(
                    receiver.port, server='log = "json"', route=f"connections = {3 + count % 5}"
                ) + (SECOND if count % 2 else "")
                rewrite(tmp_path, changed)
                done = subprocess.run(
                    [sys.executable, "-m", "lonedot", "reload", "-c", str(relay.config), "--json"],
                    capture_output=True,
                    check=False,
                    timeout=60,
                )
                assert done.returncode == 0, done.stderr
                assert json.loads(done.stdout)["taken"]
        assert load.broken == []
        assert count > 1
        assert len(load.taken) > count
        arrivals = receiver.wait_for(len(load.taken), 2 * PATIENCE)
    assert len(arrivals) == len(load.taken)
    assert len({arrival.content for arrival in arrivals}) == len(arrivals)


def test_who_connects_while_no_worker_runs_waits_for_the_next(tmp_path: Path, receiver: StrictSink) -> None:
    toml = first_config(receiver.port, server='log = "json"')
    with RelayProcess(tmp_path, toml, program=SUPERVISED) as relay:
        port = relay.ports["in"]
        os.kill(relay.worker, signal.SIGKILL)
        with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
            client.sendmail("c@office.example", ["anna@dest.example"], MESSAGE)
        relay.wait_for_start(2)
        assert relay.ports["in"] == port


def test_a_listener_of_a_reload_outlives_the_worker_that_opened_it(
    tmp_path: Path, receiver: StrictSink
) -> None:
    toml = first_config(receiver.port, server='log = "json"')
    with RelayProcess(tmp_path, toml, program=SUPERVISED) as relay:
        rewrite(tmp_path, toml + SECOND)
        command = [sys.executable, "-m", "lonedot", "reload", "-c", str(relay.config)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        until = time.monotonic() + PATIENCE
        while "second" not in relay.ports and time.monotonic() < until:
            time.sleep(0.01)  # the log comes in gusts
        port = relay.ports["second"]
        os.kill(relay.worker, signal.SIGKILL)
        with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
            client.sendmail("c@office.example", ["anna@dest.example"], MESSAGE)


def test_a_fault_ends_the_command_with_1_and_every_line(tmp_path: Path, receiver: StrictSink) -> None:
    toml = first_config(receiver.port)
    rewrite(tmp_path, toml + "\n[[listener]]\nadress = 5\n")
    done = subprocess.run(
        [sys.executable, "-m", "lonedot", "reload", "-c", str(tmp_path / "lonedot.toml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "adress" in done.stderr
    assert "nothing has changed" in done.stderr

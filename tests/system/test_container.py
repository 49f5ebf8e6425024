"""The container file without an engine: what it copies is enough to install, and what it runs does what it says.

Paths of the container are mapped to folders of the test; nothing else is changed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.peers.strict_sink import StrictSink
from tests.system.test_wheel import TOP, build_wheel, install_wheel

CONFIG = """
[server]
hostname = "relay.example.com"
spool = "/var/lib/lonedot/spool"

[[listener]]
address = "127.0.0.1:0"
relay_from = ["127.0.0.0/8"]

[[route]]
to = "*"
smarthost = "127.0.0.1:{port}"
"""


class Instruction(NamedTuple):
    name: str
    words: str


def instructions() -> list[Instruction]:
    text = (TOP / "packaging" / "Containerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [Instruction(*line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def said(name: str) -> list[str]:
    return [one.words for one in instructions() if one.name == name]


def last_stage() -> list[Instruction]:
    found = instructions()
    return found[max(n for n, one in enumerate(found) if one.name == "FROM") :]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the container's root, with the program where the file puts it."""
    root = tmp_path_factory.mktemp("image")
    for words in said("COPY"):
        if not words.startswith("--from"):
            *names, target = words.split()
            there = root / target.strip("/")
            for name in names:
                if (TOP / name).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(TOP / name, there, ignore=ignored)
                else:
                    there.mkdir(parents=True, exist_ok=True)
                    shutil.copy(TOP / name, there)
    wheel = build_wheel(root / "src", tmp_path_factory.mktemp("wheel"))
    install_wheel(wheel, root / "opt" / "lonedot")
    return root


def in_image(root: Path, words: str) -> list[str]:
    """A command of the file (a JSON list), with paths of the image."""
    found: list[str] = json.loads(words)
    (path,) = [words.partition("=")[2] for words in said("ENV") if words.startswith("PATH=")]
    first = path.split(":")[0].strip("/")
    program = root / first / "lonedot"
    return [str(program) if word == "lonedot" else word.replace("/etc/", f"{root}/etc/") for word in found]


def test_it_installs_what_it_copies_and_lets_nobody_else_in() -> None:
    (install,) = [one for one in said("RUN") if "pip install" in one]
    assert "--constraint /src/constraints.txt /src" in install
    (copied,) = [words.split() for words in said("COPY") if words.startswith("--from")]
    assert copied[1] == copied[2] == "/opt/lonedot" and f"venv {copied[1]}" in install
    names = [one.name for one in last_stage()]
    assert names.index("USER") < names.index("ENTRYPOINT")
    (prepare,) = [one.words for one in last_stage() if one.name == "RUN"]
    (user,), (volume,), (folder,) = said("USER"), said("VOLUME"), said("WORKDIR")
    assert f"--home-dir {volume} " in prepare and prepare.split(" && ")[0].endswith(f" {user}")
    assert f"install -d -m 0700 -o {user} -g {user} {volume}" in prepare
    assert folder == volume
    assert all(int(port) > 1024 for port in said("EXPOSE"))


def test_its_commands_run_and_its_signal_stops_them(image: Path) -> None:
    (entry,), (serve,) = said("ENTRYPOINT"), said("CMD")
    (health,) = [re.sub(r"^.*CMD ", "", words) for words in said("HEALTHCHECK")]
    (image / "etc" / "lonedot").mkdir(parents=True)
    state = image / said("VOLUME")[0].strip("/")
    state.mkdir(parents=True, mode=0o700)
    file = image / "etc" / "lonedot" / "lonedot.toml"
    with StrictSink() as sink:
        file.write_text(CONFIG.format(port=sink.port).replace("/var/lib/lonedot", str(state)))
        command = in_image(image, entry) + in_image(image, serve)
        check = in_image(image, health)
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        assert subprocess.run(check, env=environment, capture_output=True, check=False, timeout=60).returncode
        process = subprocess.Popen(command, cwd=state, env=environment, stderr=subprocess.PIPE)
        try:
            deadline = time.monotonic() + 60
            while True:
                done = subprocess.run(check, env=environment, capture_output=True, check=False, timeout=60)
                if done.returncode == 0 or time.monotonic() > deadline:
                    break
            assert done.returncode == 0, done.stderr
            assert b"relay.example.com" in done.stdout
        finally:
            (signal,) = said("STOPSIGNAL")
            assert signal == "SIGTERM"
            process.terminate()
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors

"""The package as people install it: a wheel, in an environment where nothing of the repository is to be found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import lonedot
from lonedot.testing.process import RelayProcess
from tests.peers.strict_sink import StrictSink
from tests.system.talk import first_config
from tests.system.test_drop import send

TOP = Path(__file__).parents[2]


def build_wheel(source: Path, folder: Path) -> Path:
    """The wheel of a source tree."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=source,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = folder.glob("*.whl")
    return made


def install_wheel(wheel: Path, folder: Path) -> Path:
    """The program in an environment of its own. The dependencies are those of the tests, which a `.pth` line leads to:
    editable installs among them are not found that way."""
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pip",
                f"--python={folder}/bin/python",
                "install",
                "--quiet",
                "--no-deps",
            ),
            *("--disable-pip-version-check", "--no-input", "--ignore-installed", "--no-index", str(wheel)),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return folder / "bin" / "lonedot"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(TOP, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_wheel(wheel, tmp_path_factory.mktemp("venv"))


def run(program: Path, folder: Path, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.defpath, "HOME": str(folder), "LANG": "C.UTF-8"}
    return subprocess.run(
        [str(program), *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def test_everything_of_the_package_is_in_the_wheel_and_nothing_else(wheel: Path) -> None:
    source = TOP / "src"
    wanted = {
        str(path.relative_to(source))
        for path in (source / "lonedot").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as files:
        found = {name for name in files.namelist() if ".dist-info/" not in name}
    assert found == wanted
    assert {"lonedot/py.typed", "lonedot/cli/samples/scan.pdf", "lonedot/sinks/examples/story.toml"} <= found


def test_the_command_says_its_version_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "--version")
    assert (done.returncode, done.stdout.split()[-1]) == (0, lonedot.__version__)
    python = installed.with_name("python")
    where = run(python, tmp_path, "-c", "import lonedot; print(lonedot.__file__)").stdout
    assert where.startswith(str(installed.parents[1]))


def test_a_relay_from_the_wheel_relays(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the parent: the worker and the process that syncs must find the wheel too."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "executable", str(installed.with_name("python")))
    with (
        StrictSink() as sink,
        RelayProcess(tmp_path, first_config(sink.port), program=(str(installed), "serve")) as relay,
    ):
        send(relay.ports["in"], "anna@dest.example")
        sink.wait_for(1)
        done = run(installed, tmp_path, "status", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["running"]


def test_the_story_from_the_wheel_needs_its_sample(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "try", "--once", timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr

"""Code of inline sinks: what never comes back from its import, or ends the process, never gets into this one."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from lonedot.sinks import inline
from lonedot.sinks.inline import load_inline
from lonedot.sinks.load import SinkNotLoaded

SINK = """
from lonedot import Message, Next, sink

@sink("plain")
def plain(message: Message) -> Next:
    return Next()
"""
FATAL = {
    "exits": ("import os; os._exit(3)", "exit code 3"),
    "exits-as-if-all-were-well": ("import os; os._exit(0)", "exit code 0"),
    "crashes": ("import ctypes; ctypes.string_at(0)", "signal 11"),
    "killed": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
    "leaves-a-process": ("import os, time; os.fork() or time.sleep(600); os._exit(4)", "exit code 4"),
}
ENDLESS = {
    "loops": "while True: pass",
    "sleeps": "import time; time.sleep(600)",
    "swallows": "import time\nwhile True:\n    try:\n        time.sleep(600)\n    except BaseException:\n        pass",
    "ignores-signals": "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()",
}


def written(folder: Path, code: str, name: str = "plain.py") -> str:
    (folder / name).write_text(code)
    return f"{folder / name}:plain"


def test_code_that_loads_is_loaded_here(tmp_path: Path) -> None:
    assert load_inline(written(tmp_path, SINK)).name == "plain"


@pytest.mark.parametrize(("code", "how"), FATAL.values(), ids=FATAL)
def test_code_that_ends_the_process(tmp_path: Path, code: str, how: str) -> None:
    with pytest.raises(SinkNotLoaded, match=how):
        load_inline(written(tmp_path, f"{code}\n{SINK}"))


@pytest.mark.parametrize("code", ENDLESS.values(), ids=ENDLESS)
def test_code_that_never_comes_back(tmp_path: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline, "LOAD_SECONDS", 1.0)
    with pytest.raises(SinkNotLoaded, match="not loaded after 1 s"):
        load_inline(written(tmp_path, f"{code}\n{SINK}"))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ValueError('no table')", "no table"),
        ("raise SystemExit(1)", "SystemExit: 1"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("def broken(:", "SyntaxError"),
        ("import nothing_of_this_name", "nothing_of_this_name"),
    ],
)
def test_what_it_raises_is_told_in_its_own_words(tmp_path: Path, code: str, said: str) -> None:
    with pytest.raises(SinkNotLoaded, match=said):
        load_inline(written(tmp_path, f"{code}\n{SINK}"))


def test_it_is_loaded_with_the_environment_and_the_folders_of_the_relay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE", "there")
    monkeypatch.syspath_prepend(tmp_path)
    needs = 'import os\nif os.environ.get("DATABASE") != "there": os._exit(1)\n'
    written(tmp_path, needs + SINK, "lonedot_test_package.py")
    try:
        assert load_inline("lonedot_test_package:plain").name == "plain"
        # Known by now: no process is needed for it.
        monkeypatch.setattr(inline, "LOAD_SECONDS", 0.0)
        assert load_inline("lonedot_test_package:plain").name == "plain"
    finally:
        sys.modules.pop("lonedot_test_package", None)


def test_code_of_our_own_needs_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline, "LOAD_SECONDS", 0.0)
    assert load_inline("lonedot.sinks.builtin.x_recipient:x_recipient").name == "X-Recipient"


def test_nothing_of_the_child_is_left(tmp_path: Path) -> None:
    """A process that the code leaves behind is ended with it, and no descriptor stays open."""
    open_before = len(os.listdir("/proc/self/fd"))
    told = tmp_path / "pid"
    code = (
        "import os, time\npid = os.fork()\nif not pid:\n    time.sleep(600)\n"
        f"open({str(told)!r}, 'w').write(str(pid))\nos._exit(5)\n"
    )
    with pytest.raises(SinkNotLoaded, match="exit code 5"):
        load_inline(written(tmp_path, code))
    assert len(os.listdir("/proc/self/fd")) == open_before
    deadline = time.monotonic() + 20
    while _runs(int(told.read_text())):
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_from_several_threads_at_once(tmp_path: Path) -> None:
    named = [written(tmp_path, SINK, f"plain{number}.py") for number in range(4)]
    found: list[str] = []
    threads = [threading.Thread(target=lambda one=one: found.append(load_inline(one).name)) for one in named]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == ["plain"] * 4

"""Where the relay spends its time in one cell: a burst through `lonedot serve` under cProfile.

cProfile makes calls of Python functions dearer than they are; read the order, not the seconds.
"""

from __future__ import annotations

import io
import os
import pstats
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from bench.cells import Cell
from bench.load import CountingSink, LoadError, send_burst
from bench.relay import BURST_LIMIT_SECONDS, Say, open_folder
from bench.relays import LonedotRelay
from bench.report import REPOSITORY


def profile_cell(
    cell: Cell, messages: int, parent: Path, top: int, say: Say, keep: Path | None = None
) -> str:
    """The `top` functions by their own time, after a burst of `messages`; `keep` is where the profile stays.

    Raises:
        LoadError: the relay did not start or the burst did not go through.
    """
    with ExitStack() as stack:
        folder = open_folder(parent)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        dump = folder / "profile"
        # The relay's working folder is its own, so it must be told where this package is.
        search = [*filter(None, [os.environ.get("PYTHONPATH")]), str(REPOSITORY)]
        relay = LonedotRelay(
            command=(sys.executable, "-m", "bench.profiled"),
            environment={"LONEDOT_PROFILE": str(dump), "PYTHONPATH": os.pathsep.join(search)},
        )
        sink = stack.enter_context(CountingSink())
        relay.start(folder, sink.port)
        stack.callback(relay.stop)
        passage = send_burst(cell, messages, relay.port, sink, limit_seconds=BURST_LIMIT_SECONDS)
        say(f"{cell}: {messages} messages in {passage.seconds:.2f} s under the profiler")
        relay.stop()
        if not dump.exists():
            raise LoadError("the relay wrote no profile as it ended")
        if keep is not None:
            shutil.copyfile(dump, keep)
        text = io.StringIO()
        pstats.Stats(str(dump), stream=text).strip_dirs().sort_stats("tottime").print_stats(top)
        return text.getvalue()

"""`python -m bench.profiled ARGUMENTS`: the lonedot command under cProfile, written to $LONEDOT_PROFILE.

Only the main thread is seen, which is where the event loop runs; work in another thread shows as waiting.
"""

from __future__ import annotations

import cProfile
import os
import runpy


def main() -> None:
    """Run `python -m lonedot` in this process, and write the profile when it ends, however it ends."""
    profiler = cProfile.Profile()
    try:
        profiler.runcall(runpy.run_module, "lonedot", run_name="__main__", alter_sys=True)
    finally:
        profiler.dump_stats(os.environ["LONEDOT_PROFILE"])


if __name__ == "__main__":
    main()

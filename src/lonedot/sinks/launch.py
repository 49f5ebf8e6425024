"""Gives up rights, sets limits, and becomes a program: run by `programs` in a process of its own.

Rules: it imports nothing of the relay (its process may not be allowed to read it later, and start-up is paid per
message); whatever fails here ends it with status 126 before the program has begun. Groups go before the user, and
the user before everything that he could still undo.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys

NOT_STARTED = 126
"""As shells say it: the program was not begun."""
DESCRIPTORS = 256

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def main() -> None:
    given = json.loads(sys.argv[1])
    arguments = [os.fsencode(one) for one in sys.argv[2:]]
    try:
        if given["user"] is not None:
            user, group, name = given["user"]
            os.initgroups(name, group)
            os.setgid(group)
            os.setuid(user)
        system = ctypes.CDLL(None, use_errno=True)
        if system.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "no_new_privs is not available")
        # Behind the change of user, which clears it. The relay is this process's parent as long as it waits for it.
        system.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        resource.setrlimit(resource.RLIMIT_AS, (given["memory"], given["memory"]))
        os.umask(0o077)
        os.chdir("/")
        # Python ignores SIGPIPE; what it becomes should not.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execve(arguments[0], arguments, given["environment"])  # noqa: S606  # no shell is what is wanted
    except (OSError, ValueError) as error:
        words = f"{os.fsdecode(arguments[0])} could not be started: {error}\n"
        os.write(2, words.encode("utf-8", "backslashreplace"))
        os._exit(NOT_STARTED)


if __name__ == "__main__":
    main()

"""The socket of local programs: who can reach it, and where it is."""

from __future__ import annotations

import grp
import stat
from collections.abc import Iterator

from lonedot.config import disk
from lonedot.config.given import Drafts, Found

__all__ = ["is_group", "judge"]


def judge(drafts: Drafts) -> Iterator[Found]:
    """Everything to say about `[sendmail]`."""
    given, server = drafts.sendmail, drafts.server.value
    sendmail = given.value
    if sendmail is None or not sendmail.enabled:
        return
    if sendmail.group and given.knows("group"):
        if sendmail.group != "*" and not is_group(sendmail.group):
            yield given.fault(
                "group", f'there is no group "{sendmail.group}"', "name one of /etc/group, or write *"
            )
        in_spool = not given.has("socket") or (
            server is not None and sendmail.socket.is_relative_to(server.spool)
        )
        if in_spool and given.knows("socket"):
            yield given.fault(
                "group",
                "nobody of it reaches a socket in the spool, whose folder is closed to others",
                'write socket = "/run/lonedot/submit.sock"',
            )
    if given.has("socket"):
        folder = sendmail.socket.parent
        state = disk.state_of(folder)
        if state is None:
            # The folder of the spool is made when the relay starts.
            if server is None or folder != server.spool:
                yield given.fault("socket", f"the folder {folder} does not exist", f"run mkdir -p {folder}")
        elif state.st_mode & stat.S_IWOTH:
            yield given.fault(
                "socket",
                f"everybody may write in {folder}, and put a socket of their own there",
                f"run chmod o-w {folder}, or name another folder",
            )


def is_group(name: str) -> bool:
    """The machine has it."""
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True

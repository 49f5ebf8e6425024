"""What the disk and the environment say about a configuration. Reads only; a file is never run."""

from __future__ import annotations

import ast
import os
import ssl
import stat
import warnings
from pathlib import Path
from typing import Protocol

from lonedot.config.code import SinkFile
from lonedot.config.files import not_plain
from lonedot.config.secrets import MAX_SECRET, first_line
from lonedot.config.values import Secret, Unfit
from lonedot.reception.logins import FILE_LIMIT, LoginsFault, read_logins

__all__ = [
    "check_ca",
    "check_certificate",
    "check_logins",
    "check_sink_file",
    "device_of",
    "find_password",
    "mode_of",
    "state_of",
]

_MAX_SINK = 1024 * 1024


def state_of(path: Path) -> os.stat_result | None:
    """None when there is no such file or it cannot be looked at."""
    try:
        return path.stat()
    except (OSError, ValueError):
        return None


def mode_of(path: Path) -> int:
    """Permission bits; 0 when there is no such file."""
    state = state_of(path)
    return stat.S_IMODE(state.st_mode) if state else 0


def check_logins(path: Path) -> Unfit | None:
    """Why nobody could log in by this file; None when somebody can."""
    if unfit := not_plain(path):
        return unfit
    try:
        with path.open("rb") as file:
            octets = file.read(FILE_LIMIT + 1)
    except (OSError, ValueError) as error:
        return Unfit(f"{path} cannot be read: {_reason(error)}", "run lonedot logins add NAME")
    if len(octets) > FILE_LIMIT:
        return Unfit(f"{path} has more than {FILE_LIMIT} octets", "name the right file")
    try:
        read_logins(octets.decode())
    except UnicodeDecodeError:
        return Unfit(f"{path} is not UTF-8", "name the right file")
    except LoginsFault as fault:
        return Unfit(f"{path}: {fault}", "mend or remove that line")
    return None


def device_of(path: Path) -> int | None:
    """The file system on which a path is, or would be made; None when even its root cannot be looked at."""
    for place in (path, *path.absolute().parents):
        state = state_of(place)
        if state is not None:
            return state.st_dev
    return None


class NamesPassword(Protocol):
    """A route, or a database."""

    @property
    def password_file(self) -> Path | None: ...

    @property
    def password_env(self) -> str: ...


def find_password(route: NamesPassword) -> Secret | Unfit | None:
    """The password from the file or variable that a route names; None when it names neither."""
    if route.password_env:
        value = os.environ.get(route.password_env, "")
        if not value:
            return Unfit(
                f"the environment variable {route.password_env} is not set",
                "set it for the service, or use password_file",
            )
        return Secret(value)
    if route.password_file is None:
        return None
    if unfit := not_plain(route.password_file):
        return unfit
    try:
        with route.password_file.open("rb") as file:
            octets = file.read(MAX_SECRET)
    except (OSError, ValueError) as error:
        return Unfit(
            f"{route.password_file} cannot be read: {_reason(error)}", "make the file, with mode 0600"
        )
    return first_line(octets, str(route.password_file))


def check_certificate(certificate: Path, key: Path) -> Unfit | None:
    """What is wrong with the pair; None when a TLS server can use it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for path in (certificate, key):
        fault = _check_readable(path)
        if fault is not None:
            return fault
    try:
        # An encrypted key must not ask on the terminal: the empty password makes it a fault.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        words = (error.reason or "").lower().replace("_", " ")
        if "mismatch" in words:
            return Unfit(
                f"{key} is not the key of {certificate}", "name the key that the certificate was made with"
            )
        return Unfit(
            f"{certificate} and {key} cannot be used: {words or 'not a PEM certificate and key'}",
            "write PEM files: the certificate and its issuers in one, the key without a password in the other",
        )
    except (OSError, ValueError) as error:
        return Unfit(f"{certificate} and {key} cannot be used: {_reason(error)}", "write PEM files")
    return None


def check_ca(path: Path) -> Unfit | None:
    """What is wrong with a file of issuers; None when it can be used."""
    fault = _check_readable(path)
    if fault is not None:
        return fault
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (OSError, ValueError):
        return Unfit(f"{path} holds no certificate", "write the issuers' certificates there as PEM")
    return None


def check_sink_file(sink: SinkFile) -> Unfit | None:
    """What is wrong with a sink's file as far as reading it tells; None when nothing is."""
    fault = _check_readable(sink.path)
    if fault is not None:
        return fault
    try:
        with sink.path.open("rb") as file:
            source = file.read(_MAX_SINK + 1)
        if len(source) > _MAX_SINK:
            return Unfit(
                f"{sink.path} is larger than {_MAX_SINK} octets", "put the sink in a file of its own"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except SyntaxError as error:
        return Unfit(
            f"{sink.path} line {error.lineno or 1}: {error.msg}", "mend the line; Python cannot read it"
        )
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        return Unfit(f"{sink.path} cannot be read: {_reason(error)}", "write a Python file")
    names = _top_level_names(tree)
    if sink.function and sink.function not in names:
        listed = ", ".join(sorted(name for name in names if not name.startswith("_"))[:10]) or "nothing"
        return Unfit(f"{sink.path} has no {sink.function}", f"it has: {listed}")
    return None


def _top_level_names(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names.update(target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Import(names=imported) | ast.ImportFrom(names=imported):
                names.update((one.asname or one.name).split(".")[0] for one in imported)
            case _:
                pass
    return names


def _check_readable(path: Path) -> Unfit | None:
    if unfit := not_plain(path):
        return unfit
    try:
        with path.open("rb"):
            return None
    except FileNotFoundError:
        return Unfit(
            f"{path} does not exist", "make it, or mend the path (it is counted from this file's folder)"
        )
    except (OSError, ValueError) as error:
        return Unfit(f"{path} cannot be read: {_reason(error)}", "give the relay's user the right to read it")


def _reason(error: BaseException) -> str:
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return words[:200].lower()

"""POP3 accounts: what is missing, who cannot be reached, and passwords that others would see."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from lonedot.config import disk
from lonedot.config.check_routes import covers
from lonedot.config.given import Drafts, Found, Given
from lonedot.config.pop3 import Pop3
from lonedot.config.secrets import program_of
from lonedot.config.values import Unfit
from lonedot.reception.pop3_account import Mode, Pop3Tls
from lonedot.terms.address import Address

__all__ = ["judge"]

_PASSWORD_KEYS = ("password", "password_file", "password_env", "password_command")
_GLOBAL_KEYS = ("domains", "undeliverable", "recipients_from")


def judge(drafts: Drafts) -> Iterator[Found]:
    """Everything to say about `[[pop3]]`."""
    mailboxes: dict[tuple[str, str], str] = {}
    names: dict[str, str] = {}
    for given in drafts.pop3:
        account = given.value
        if account is None:
            continue
        mailbox = account.host.lower(), account.user
        if mailbox in mailboxes:
            yield given.fault("user", f"{mailboxes[mailbox]} has the same mailbox", "remove one of the two")
        mailboxes.setdefault(mailbox, given.where)
        if account.name in names:
            yield given.fault("name", f"{names[account.name]} has the same name", "use another")
        names.setdefault(account.name, given.where)
        if given.knows("source") and account.source not in drafts.numbers:
            number = account.source
            yield given.fault(
                "source", f"there is no source {number}", f"write [[source]] with number = {number}"
            )
        yield from _judge_mode(drafts, given, account)
        yield from _judge_tls(given, account)
        yield from _judge_password(drafts, given, account)


def _judge_mode(drafts: Drafts, given: Given[Pop3], account: Pop3) -> Iterator[Found]:
    if not given.knows("mode", "mailbox", *_GLOBAL_KEYS):
        return
    if account.mode is Mode.USER:
        if account.mailbox is None:
            yield given.fault("", "does not say who gets its mail", 'write mailbox = "anna@example.com"')
        for key in _GLOBAL_KEYS:
            if given.has(key):
                yield given.warning(key, "is not used: mode is user", 'write mode = "global", or remove it')
        wanted = [("mailbox", account.mailbox)]
    else:
        if not account.domains:
            yield given.fault("", "does not say whose mail it has", 'write domains = ["example.com"]')
        if account.undeliverable is None:
            yield given.fault(
                "",
                "does not say who gets mail that names nobody",
                'write undeliverable = "postmaster@example.com"',
            )
        if given.has("mailbox"):
            yield given.warning("mailbox", "is not used: mode is global", "remove it")
        wanted = [("undeliverable", account.undeliverable)]
        for number, domain in enumerate(account.domains):
            if not _has_route(drafts, domain):
                found = given.warning(
                    "domains", f"no route leads to {domain}", f'add a route to = "{domain}"'
                )
                yield found._replace(path=(*given.path, "domains", number))
    for key, address in wanted:
        if address is not None and given.has(key) and not _leads(drafts, address):
            what = f"no route leads to {address.text}"
            yield given.fault(key, what, f'add a route with to = "{address.text}"')
    if account.delete_after is not None and not account.leave_on_server and given.knows("leave_on_server"):
        yield given.warning(
            "delete_after", "is not used: mail is deleted at once", "write leave_on_server = true"
        )


def _leads(drafts: Drafts, address: Address) -> bool:
    """Some route may take mail for it."""
    domain = address.domain.decode("utf-8", "replace")
    return _has_route(drafts, address.text) or any(
        one.value is None or one.value.name == domain for one in drafts.domains
    )


def _has_route(drafts: Drafts, wanted: str) -> bool:
    if drafts.rewrites or any(one.value is None or not one.knows("to") for one in drafts.routes):
        return True
    return any(covers(to, wanted) for one in drafts.routes if one.value is not None for to in one.value.to)


def _judge_tls(given: Given[Pop3], account: Pop3) -> Iterator[Found]:
    if not given.knows("tls", "host", "allow_plaintext", "tls_ca", "tls_verify"):
        return
    if account.tls is Pop3Tls.NONE:
        if not _is_loopback(account.host) and not account.allow_plaintext:
            yield given.fault(
                "tls",
                "is none, so the password would cross the network in clear",
                'write tls = "implicit" or "starttls"; or allow_plaintext = true, if the server has neither',
            )
        if account.tls_ca is not None:
            yield given.warning("tls_ca", "is not used: tls is none", "remove it")
    elif not account.tls_verify:
        yield given.warning(
            "tls_verify",
            "is false: whoever stands on the way can read the password",
            "name the issuer of the server's certificate in tls_ca instead",
        )
    if account.tls_ca is not None and isinstance(unfit := disk.check_ca(account.tls_ca), Unfit):
        yield given.fault("tls_ca", unfit.what, unfit.do)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _judge_password(drafts: Drafts, given: Given[Pop3], account: Pop3) -> Iterator[Found]:
    if not given.knows(*_PASSWORD_KEYS):
        return
    named = [name for name in _PASSWORD_KEYS if given.has(name)]
    for extra in named[1:]:
        yield given.fault(extra, f"stands beside {named[0]}", "keep one of the two")
    if not named:
        yield given.fault("", "has no password", "write password_file, password_env or password_command")
    file = drafts.file_of((*given.path, "password"))
    if given.has("password") and disk.mode_of(file) & 0o077:
        yield given.warning(
            "password", f"others can read it in {file}", f"use password_file, or run chmod 600 {file}"
        )
    if account.password_file is not None and (mode := disk.mode_of(account.password_file)) & 0o007:
        words = f"{account.password_file} can be read by everybody (mode {mode:04o})"
        yield given.fault("password_file", words, f"run chmod 600 {account.password_file}")
    if account.password_command:
        program = program_of(account.password_command)
        if isinstance(program, Unfit):
            yield given.fault("password_command", program.what, program.do)
        mode = disk.mode_of(drafts.file_of((*given.path, "password_command")))
        if mode & 0o002:
            words = f"anybody may write the file it stands in (mode {mode:04o}), and what it names is run"
            yield given.fault("password_command", words, "run chmod o-w on it")
    unfit = disk.find_password(account)
    if isinstance(unfit, Unfit):
        yield given.fault("password_env" if account.password_env else "password_file", unfit.what, unfit.do)

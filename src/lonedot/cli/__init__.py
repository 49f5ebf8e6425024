"""The command `lonedot`: arguments in, operations called, text out.

A command is one line of `COMMANDS` and one module that is imported only when it runs, so that the prompt is quick and
a command that cannot be imported does not take the others with it. Exit codes: 0 done, 1 found a fault, 2 usage. An
error is one line on standard error: `lonedot: what; where; do this`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import click

from lonedot import __version__
from lonedot.cli.output import Problem, faults_told

__all__ = ["COMMANDS", "main", "run"]


class Lazy(NamedTuple):
    """Where a command lives, and its line in the help."""

    target: str
    """`module:attribute`; the attribute is a `click.Command`."""
    help: str


COMMANDS: dict[str, Lazy] = {
    "try": Lazy(
        "lonedot.cli.trial:command", "No config: a relay, a strict receiver and a scan that a sink damages."
    ),
    "serve": Lazy("lonedot.cli.serve:command", "Run the relay."),
    "reload": Lazy("lonedot.cli.reload:command", "Take a changed configuration without a restart."),
    "check": Lazy("lonedot.cli.check:command", "Name every fault of the configuration by its line."),
    "status": Lazy("lonedot.cli.status:command", "One screen: what runs, what waits and why, what broke."),
    "top": Lazy("lonedot.cli.top:command", "The relay as it works, renewed each second."),
    "logs": Lazy("lonedot.cli.logs:command", "Everything that was said of one message or session."),
    "route": Lazy("lonedot.cli.route:command", "Tell where mail for an address would go, and why."),
    "pop3": Lazy("lonedot.cli.pop3:command", "Look at POP3 mailboxes and how they fare; look into one now."),
    "config": Lazy(
        "lonedot.cli.config:command", "Show the values in force and their origin; schema for editors."
    ),
    "queue": Lazy(
        "lonedot.cli.queue:command",
        "Look at messages; hold, release, retry, return, reroute, delete or export them.",
    ),
    "history": Lazy(
        "lonedot.cli.history:command", "List finished messages by address, subject, device or time."
    ),
    "backup": Lazy("lonedot.cli.backup:backup", "Copy the spool, also while the relay runs."),
    "restore": Lazy("lonedot.cli.backup:restore", "Make the spool from a backup."),
    "why": Lazy("lonedot.cli.why:command", "Tell the journey of one message."),
    "sniff": Lazy(
        "lonedot.cli.sniff:command", "Explain the SMTP sessions in a capture of the network, or live."
    ),
    "sinks": Lazy("lonedot.cli.sinks:command", "List, change and try the bindings of sinks."),
    "smtpreg": Lazy(
        "lonedot.cli.smtpreg:command", "The same with the arguments of the old registration tool."
    ),
    "logins": Lazy("lonedot.cli.logins:command", "Let people and devices log in, and list who can."),
    "inject": Lazy(
        "lonedot.cli.inject:command", "Send one file as a message, also octet for octet as it is."
    ),
    "sendmail": Lazy(
        "lonedot.cli.sendmail:command", "Take a message from a local program, as sendmail does."
    ),
    "receive": Lazy("lonedot.cli.receive:command", "Receive and record messages, strict or lenient."),
}


def is_there(name: str) -> bool:
    """The command's module exists. Nothing of it is run."""
    return importlib.util.find_spec(COMMANDS[name].target.partition(":")[0]) is not None


class _Group(click.Group):
    """The commands of the table, imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in COMMANDS if is_there(name)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS or not is_there(cmd_name):
            return None
        module, _, attribute = COMMANDS[cmd_name].target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            import difflib

            near = difflib.get_close_matches(name[:40].lower(), self.list_commands(ctx), n=1)
            do = f"did you mean lonedot {near[0]}?" if near else "run lonedot --help for the list"
            raise Problem(f"there is no command {name[:40]!r}", do=do, code=2)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in self.list_commands(ctx)])


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="lonedot %(version)s")
def lonedot() -> None:
    """A mail transport that people can program.

    Every command that prints takes --json. Exit codes: 0 done, 1 found a fault, 2 usage.
    """


def run(arguments: Sequence[str]) -> int:
    """Runs one command; returns its exit code. Errors are printed here, in one form."""
    faults_told()  # of a command before, in the same process
    try:
        code = lonedot.main(args=list(arguments), prog_name="lonedot", standalone_mode=False)
        sys.stdout.flush()
    except Problem as problem:
        click.echo(f"lonedot: {problem}", err=True)
        return problem.code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "lonedot"
        what = error.format_message().rstrip(".")
        click.echo(f"lonedot: {what[:1].lower()}{what[1:]}; {where}; run {where} --help", err=True)
        return 2
    except click.ClickException as error:
        click.echo(f"lonedot: {error.format_message()}", err=True)
        return 1
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`lonedot … | head`): nothing is left to say, also not at exit.
        sys.stdout = None
        return 0
    told = faults_told()
    return code if isinstance(code, int) and code else int(told)


def main() -> NoReturn:
    """The entry point of the command. Called by a name of sendmail, it is one."""
    called = os.path.basename(sys.argv[0])
    if called in ("sendmail", "mailq", "newaliases"):
        from lonedot.cli.sendmail import run_sendmail

        sys.exit(run_sendmail(sys.argv[1:], called))
    sys.exit(run(sys.argv[1:]))

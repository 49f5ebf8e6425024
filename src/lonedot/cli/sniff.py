"""`lonedot sniff`: SMTP sessions in a capture, explained.

The verdicts are printed as the sessions end; of the pictures no more than `_PICTURES` wait for the end, so that a
capture of any size takes the same memory.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import click

from lonedot.cli.output import Problem, json_option, print_json, tell_fault
from lonedot.cli.why import print_lines
from lonedot.diagnosis.capture.files import CaptureFault, Frame, read_frames
from lonedot.diagnosis.sniffing import PORTS, Sniffer
from lonedot.diagnosis.sniffing_tell import page, tell_session, verdict_line
from lonedot.diagnosis.sniffing_values import SessionReport

__all__ = ["command"]

_PICTURES = 20
_FEW = 3
_STEP = 1 << 20
"""Octets between two movements of the progress bar."""


@click.command("sniff")
@click.argument(
    "file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True)
)
@click.option("-i", "--interface", help="Capture live with tcpdump from this interface, until Ctrl-C.")
@click.option("--seconds", type=click.FloatRange(min=0.1), help="With -i: end after so many seconds.")
@click.option(
    "-p",
    "--port",
    "ports",
    type=click.IntRange(1, 65535),
    multiple=True,
    help="Look at this port alone; repeatable.",
)
@click.option(
    "--all", "all_pictures", is_flag=True, help="Show the sequence of every session, also of clean ones."
)
@click.option(
    "--html", "html_file", type=click.Path(path_type=Path, dir_okay=False), help="Write one page to a file."
)
@json_option
def command(
    file: Path | None,
    interface: str | None,
    seconds: float | None,
    ports: tuple[int, ...],
    all_pictures: bool,
    html_file: Path | None,
    as_json: bool,
) -> int:
    """Explain the SMTP and LMTP sessions in a capture of the network, or live.

    FILE is pcap or pcapng, as tcpdump and Wireshark write it; - is standard input. Each session gets one line with a
    verdict; those with faults are shown step by step behind. --json prints one line for each session.
    """
    if (file is None) == (interface is None):
        raise click.UsageError("give a FILE or -i INTERFACE, one of them")
    if seconds is not None and interface is None:
        raise click.UsageError("--seconds goes with -i")
    sniffer = Sniffer(ports)
    with contextlib.ExitStack() as stack:
        frames = stack.enter_context(
            _live(interface, ports, seconds) if interface else _stored(file or Path("-"))
        )
        reports = _whole(sniffer, frames, str(file or interface))
        if html_file is not None:
            reports = _written(
                reports, stack.enter_context(_opened(html_file)), f"Sessions in {file or interface}"
            )
        faulty = _printed_as_json(reports) if as_json else _printed(reports, all_pictures)
    if not as_json:
        click.echo(
            f"{sniffer.frames} frames, {sniffer.segments} of TCP, {sniffer.unread} of something else",
            err=True,
        )
    return int(faulty)


def _whole(sniffer: Sniffer, frames: Iterator[Frame], name: str) -> Iterator[SessionReport]:
    """The reports; a damaged capture is told behind them."""
    try:
        yield from sniffer.read(frames)
    except CaptureFault as fault:
        if not sniffer.frames:
            raise Problem(str(fault), where=name, do="give a capture of tcpdump or Wireshark") from fault
        tell_fault(f"{fault}; {name}; what stands before it is reported")


def _printed_as_json(reports: Iterator[SessionReport]) -> bool:
    faulty = False
    for report in reports:
        faulty = faulty or report.is_fault
        print_json(report)
    return faulty


def _printed(reports: Iterator[SessionReport], all_pictures: bool) -> bool:
    count, faults, left_out = 0, 0, 0
    shown: list[SessionReport] = []
    for report in reports:
        count += 1
        faults += report.is_fault
        click.secho(verdict_line(report), fg="red" if report.is_fault else None)
        if all_pictures:
            print_lines(tell_session(report))
        elif (report.is_fault or count <= _FEW) and len(shown) < _PICTURES + _FEW:
            shown.append(report)
        elif report.is_fault:
            left_out += 1
    if not count:
        click.echo("no SMTP session found")
    wanted = shown if count <= _FEW else [report for report in shown if report.is_fault]
    if wanted and not all_pictures:
        click.echo()
        for report in wanted:
            print_lines(tell_session(report))
    if left_out:
        click.echo(f"{left_out} more sessions with faults: --all shows their steps too")
    click.echo(f"{count} sessions, {faults} with faults")
    return faults > 0


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise Problem(f"cannot write: {error.strerror}", where=str(path), do="choose another file") from error
    with file:
        yield file


def _written(reports: Iterator[SessionReport], file: TextIO, title: str) -> Iterator[SessionReport]:
    """The reports, each written to the page as it passes."""
    passed: list[SessionReport] = []

    def passing() -> Iterator[SessionReport]:
        for report in reports:
            passed.append(report)
            yield report

    for piece in page(passing(), title):
        file.write(piece)
        while passed:
            yield passed.pop()


@contextlib.contextmanager
def _stored(path: Path) -> Iterator[Iterator[Frame]]:
    if str(path) == "-":
        yield read_frames(sys.stdin.buffer)
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise Problem(
            f"cannot read: {error.strerror}", where=str(path), do="check the name and the rights"
        ) from error
    with file:
        size = path.stat().st_size
        if size < _STEP or not sys.stderr.isatty():
            yield read_frames(file)
            return
        with click.progressbar(length=size, label=path.name, file=sys.stderr) as bar:
            yield read_frames(file, _mover(bar.update))


def _mover(update: Callable[[int], object]) -> Callable[[int], None]:
    told = 0

    def move(position: int) -> None:
        nonlocal told
        if position - told >= _STEP:
            update(position - told)
            told = position

    return move


@contextlib.contextmanager
def _live(interface: str, ports: tuple[int, ...], seconds: float | None) -> Iterator[Iterator[Frame]]:
    """What tcpdump catches. Only tcpdump has the right to catch; it gives that up itself once it has begun."""
    wanted = " or ".join(f"tcp port {port}" for port in ports or sorted(PORTS))
    # Fragments behind the first name no port.
    expression = f"{wanted} or (ip[6:2] & 0x1fff != 0) or icmp[0] = 3 or icmp6"
    arguments = ["tcpdump", "-i", interface, "-p", "-n", "-U", "-s", "0", "-w", "-", expression]
    try:
        # A group of its own: Ctrl-C ends the capture through us, so that no packet is cut in two.
        child = subprocess.Popen(  # noqa: S603 a list, no shell
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise Problem(
            "tcpdump does not start", where=str(error), do="install tcpdump, or give a FILE"
        ) from error
    assert child.stdout is not None
    assert child.stderr is not None
    words: list[bytes] = []
    listening = threading.Thread(target=_listen, args=(child.stderr, words), daemon=True)
    listening.start()
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGINT, lambda *_: child.terminate())
    clock = threading.Timer(seconds, child.terminate) if seconds is not None else None
    if clock is not None:
        clock.start()
    try:
        yield _caught(child, words, interface, listening)
    finally:
        if clock is not None:
            clock.cancel()
        if before is not None:
            signal.signal(signal.SIGINT, before)
        child.terminate()
        child.wait()
        listening.join()
        child.stdout.close()
        child.stderr.close()


def _listen(pipe: object, words: list[bytes]) -> None:
    assert hasattr(pipe, "readline")
    while line := pipe.readline():
        if b"listening on" in line:
            click.echo("capturing; Ctrl-C ends it", err=True)
        words.append(line)
        del words[:-5]


def _caught(
    child: subprocess.Popen[bytes], words: list[bytes], interface: str, listening: threading.Thread
) -> Iterator[Frame]:
    assert child.stdout is not None
    count = 0
    try:
        for frame in read_frames(child.stdout):
            count += 1
            yield frame
    except CaptureFault as fault:
        code = child.wait()
        if not count and code > 0:
            listening.join(5)
            said = b" ".join(words).decode("utf-8", "replace").strip()
            do = "check the interface, and whether you may capture (root, or CAP_NET_RAW for tcpdump)"
            raise Problem(f"tcpdump: {said or code}", where=interface, do=do) from fault

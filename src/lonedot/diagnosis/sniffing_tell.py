"""Reports of sessions as lines for people, and as one page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from lonedot.diagnosis.sniffing_values import VERDICTS, SessionReport, Step
from lonedot.diagnosis.tell import Kind, Line

__all__ = ["page", "tell_session", "verdict_line"]

_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color:#222;background:#fff}"
    "summary{cursor:pointer}pre,td,code{font-family:ui-monospace,monospace;font-size:13px}"
    ".fault{color:#a00}.good{color:#060}table{border-collapse:collapse}td{padding:.1em .6em;vertical-align:top;"
    "overflow-wrap:anywhere}td.server{padding-left:8em}tr.fault td{color:#a00;font-weight:600}"
)


def verdict_line(report: SessionReport) -> str:
    """`1  192.0.2.1:40000 > 192.0.2.2:25  FAULT  …`"""
    mark = "FAULT " if report.is_fault else "ok    " if report.code is None else "notice"
    return f"{report.number}  {report.client} > {report.server}  {mark}  {report.verdict}"


def tell_session(report: SessionReport) -> Iterator[Line]:
    """Findings, waits and the sequence picture."""
    began = datetime.fromtimestamp(max(0.0, min(report.began_at, 253402300799.0)), UTC)
    seconds = max(0.0, report.ended_at - report.began_at)
    yield Line(Kind.HEADING, f"Session {report.number}: {report.client} > {report.server}")
    stamp = began.strftime("%Y-%m-%d %H:%M:%S")
    messages = f"{report.messages} message{'' if report.messages == 1 else 's'} taken"
    yield Line(Kind.TEXT, f"{report.protocol}, {stamp} UTC, {seconds:.3f} s, {messages}", 1)
    for finding in report.findings:
        row = VERDICTS[finding.code]
        is_fault = finding.weight.value == "fault"
        where = f" (frame {finding.frame})" if finding.frame else ""
        yield Line(Kind.ALARM if is_fault else Kind.TEXT, f"{row.title}{where}: {finding.words}", 1)
        if finding.octets:
            yield Line(Kind.OCTETS, finding.octets, 2)
        if is_fault:
            yield Line(Kind.TEXT, f"Why: {row.cause}", 2)
            yield Line(Kind.HINT, f"Do:  {row.action}", 2)
    if report.last_wait is not None:
        wait = report.last_wait
        who = "both sides waited" if wait.waiting == "both" else f"the {wait.waiting} waited"
        yield Line(Kind.TEXT, f"At the end {who} {wait.seconds:.1f} s for {wait.for_what}", 1)
    if report.longest_wait is not None and report.longest_wait.seconds >= 1:
        wait = report.longest_wait
        yield Line(
            Kind.TEXT, f"Longest wait: the {wait.waiting}, {wait.seconds:.1f} s for {wait.for_what}", 1
        )
    if report.retransmissions or report.octets_missing:
        lost = f"{report.retransmissions} segments sent again, {report.octets_missing} octets not caught"
        yield Line(Kind.TEXT, lost, 1)
    for step in report.steps:
        yield Line(_kind(step), _picture(report, step), 1)
    if report.steps_left_out:
        yield Line(Kind.TEXT, f"({report.steps_left_out} steps in the middle are left out)", 1)
    yield Line(Kind.EMPTY, "")


def _kind(step: Step) -> Kind:
    return Kind.ALARM if step.is_fault and not step.side else Kind.OCTETS if step.side else Kind.TEXT


def _picture(report: SessionReport, step: Step) -> str:
    arrow = {"client": "C ---->    ", "server": "   <---- S "}.get(step.side, "     !     ")
    return f"{step.at - report.began_at:9.3f}  {arrow} {step.text}"


def page(reports: Iterable[SessionReport], title: str) -> Iterator[str]:
    """One HTML page, piece by piece; it loads nothing."""
    told = html.escape(title)
    yield (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{told}</title><style>{_STYLE}</style><h1>{told}</h1>\n"
    )
    for report in reports:
        mark = "fault" if report.is_fault else "good"
        yield f"<details{' open' if report.is_fault else ''}><summary class={mark}>"
        yield f"{html.escape(verdict_line(report))}</summary>\n"
        for finding in report.findings:
            row = VERDICTS[finding.code]
            yield f"<p class={mark}><b>{html.escape(row.title)}</b>: {html.escape(finding.words)}</p>"
            if finding.octets:
                yield f"<pre>{html.escape(finding.octets)}</pre>"
            yield f"<p>{html.escape(row.cause)} {html.escape(row.action)}</p>\n"
        yield "<table>"
        for step in report.steps:
            fault = " class=fault" if step.is_fault else ""
            yield f"<tr{fault}><td>{step.at - report.began_at:.3f}<td class={step.side or 'none'}>"
            yield f"{html.escape(_picture(report, step)[11:])}\n"
        yield "</table></details>\n"

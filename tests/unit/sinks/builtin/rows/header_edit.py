"""Header edit in the contract suite: it asks nobody."""

from __future__ import annotations

from lonedot.sinks.builtin.header_edit import HeaderEdit
from tests.unit.sinks.builtin.contract import Row

__all__ = ["ROWS"]

EDITS = """
add X-Edited : by {client}, for {recipient_count}
replace Subject : [edited] {value}
replace X-Name : {value}
remove X-Internal-*
"""


def judge(before: bytes, after: bytes) -> None:
    field, rest = after.split(b"\r\n", 1)
    assert field.startswith(b"X-Edited: by 192.0.2.1, for ")
    rest = rest.replace(b"Subject: [edited] a letter\r\n", b"Subject: a letter\r\n")
    head, _, body = before.partition(b"\r\n\r\n")
    if b"X-Name" in head:
        assert rest.endswith(b"\r\n\r\n" + body) and b"X-Name: =?utf-8?" in rest
    else:
        assert rest == before or (b"\r\n\r\n" not in before and rest.strip() == before.strip())


ROWS = (Row("header-edit", HeaderEdit, lambda folder, address: {"edits": EDITS}, judge=judge),)

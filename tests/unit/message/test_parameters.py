"""Parameters of Content-Type and Content-Disposition, also as RFC 2231 writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.parameters import read_parameters


@pytest.mark.parametrize(
    ("value", "lead", "parameters"),
    [
        (b"Text/Plain; Charset=UTF-8", "text/plain", {"charset": "UTF-8"}),
        (b'attachment; filename="a \\"b\\".pdf"', "attachment", {"filename": 'a "b".pdf'}),
        (b"attachment; filename*=utf-8'de'gr%C3%BC%C3%9Fe.pdf", "attachment", {"filename": "grüße.pdf"}),
        (b"a; filename=plain.pdf; filename*=utf-8''%C3%A4.pdf", "a", {"filename": "ä.pdf"}),
        (
            b"a; filename*0*=iso-8859-1''gr%FC; filename*1*=%DFe; filename*2=\".pdf\"",
            "a",
            {"filename": "grüße.pdf"},
        ),
        (b"a; name*1=b; name*0=a; name*3=d", "a", {"name": "ab"}),
        (b"a; name*1=b", "a", {}),
        (b'a; name="=?utf-8?q?=C3=A4.pdf?="', "a", {"name": "ä.pdf"}),
        (b"a; name=one; name=two", "a", {"name": "one"}),
        (b'a; name="no end', "a", {"name": "no end"}),
        (b'a; x="; name=inside"; name=real', "a", {"x": "; name=inside", "name": "real"}),
        (b"", "", {}),
        (b";;=;a", "", {}),
    ],
)
def test_parameters(value: bytes, lead: str, parameters: dict[str, str]) -> None:
    assert read_parameters(value) == (lead, parameters)


@given(
    st.lists(st.sampled_from([b";", b"=", b'"', b"\\", b"*", b"0", b"1", b"name", b"'", b"%C3", b" "])).map(
        b"".join
    )
    | st.binary(max_size=100)
)
def test_anything_is_read(value: bytes) -> None:
    read_parameters(value)

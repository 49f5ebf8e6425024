"""The file of logins: what a line may say, and how a password is checked."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.reception.logins import (
    NAME_LIMIT,
    PASSWORD_LIMIT,
    WAITING_LIMIT,
    Hash,
    Logins,
    LoginsFault,
    check_name,
    hash_of,
    read_logins,
)

ANNA = Hash(2, 1, 1, b"salt", hashlib.scrypt(b"secret", salt=b"salt", n=2, r=1, p=1, dklen=32))
"""Quick, and the same in every run: it stands in the names of tests."""


def test_a_hash_fits_its_password_alone() -> None:
    assert ANNA.fits(b"secret")
    assert not ANNA.fits(b"secret ")
    made = hash_of(b"secret")
    assert made.fits(b"secret") and not made.fits(b"Secret")
    assert hash_of(b"secret").digest != made.digest, "each has a salt of its own"
    assert b"secret" not in str(ANNA).encode()


@pytest.mark.parametrize("password", [b"", b"x" * (PASSWORD_LIMIT + 1)])
def test_passwords_that_are_none(password: bytes) -> None:
    with pytest.raises(ValueError, match="octets"):
        hash_of(password)


def test_reading_what_was_written() -> None:
    text = f"# devices\n\nanna:{ANNA}\r\nscan ner@office: {ANNA}\n"
    assert read_logins(text) == {"anna": ANNA, "scan ner@office": ANNA}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("anna", "not name:scrypt"),
        ("anna:secret", "not name:scrypt"),
        (":scrypt$2$1$1$YWFh$YWFh", "cannot be a login"),
        (f" anna:{ANNA}", "cannot be a login"),
        (f"an\0na:{ANNA}", "cannot be a login"),
        (f"{'a' * (NAME_LIMIT + 1)}:{ANNA}", "at most"),
        (f"x:{ANNA}\nx:{ANNA}", "there twice"),
        (str(ANNA).replace("$2$", "$3$").join(["x:", ""]), "power of 2"),
        (str(ANNA).replace("$2$", "$1048576$").join(["x:", ""]), "at most"),
        ("x:scrypt$2$1$1$YWFhYQ==$YWFhYQ==", "16 to 64 octets"),
        ("x:scrypt$2$1$1$YWFhYQ=x$YWFhYQ==", "not base64"),
    ],
)
def test_a_line_that_says_nothing_is_a_fault(line: str, words: str) -> None:
    with pytest.raises(LoginsFault, match=words) as raised:
        read_logins("# first\n" + line)
    assert raised.value.line >= 2
    assert "secret" not in str(raised.value)


@given(st.text(max_size=80))
def test_any_text_is_logins_or_a_fault(text: str) -> None:
    try:
        found = read_logins(text)
    except LoginsFault as fault:
        assert 1 <= fault.line <= text.count("\n") + 1
    else:
        for name in found:
            check_name(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "logins.txt"
    path.write_text(f"anna:{ANNA}\n")
    return path


@pytest.mark.parametrize(
    ("identity", "password", "fits"),
    [
        (b"anna", b"secret", True),
        (b"anna", b"Secret", False),
        (b"Anna", b"secret", False),
        (b"bob", b"secret", False),
        (b"\xff", b"secret", False),
        (b"anna", b"", False),
        (b"anna", b"s" * (PASSWORD_LIMIT + 1), False),
        (b"a" * (NAME_LIMIT + 1), b"secret", False),
    ],
)
async def test_who_may_log_in(file: Path, identity: bytes, password: bytes, fits: bool) -> None:
    assert await Logins(file).check(identity, password) is fits


async def test_it_is_read_again_when_it_has_changed(file: Path) -> None:
    logins = Logins(file)
    assert await logins.check(b"bob", b"other") is False
    fresh = file.with_suffix(".new")
    fresh.write_text(f"bob:{hash_of(b'other')}\n")
    fresh.replace(file)
    assert await logins.check(b"bob", b"other") is True
    assert await logins.check(b"anna", b"secret") is False


@pytest.mark.parametrize("octets", [None, b"anna:secret\n", b"\xff\xfe"])
async def test_a_file_that_cannot_be_read_lets_nobody_in_and_refuses_nobody(
    file: Path, octets: bytes | None
) -> None:
    logins = Logins(file)
    if octets is None:
        file.unlink()
    else:
        file.write_bytes(octets)
    assert await logins.check(b"anna", b"secret") is None
    file.write_text(f"anna:{ANNA}\n")
    os.utime(file, ns=(1, 1))
    assert await logins.check(b"anna", b"secret") is True


async def test_only_so_many_checks_wait(file: Path) -> None:
    logins = Logins(file)
    logins._waiting = WAITING_LIMIT
    assert await logins.check(b"anna", b"secret") is None
    assert logins._waiting == WAITING_LIMIT

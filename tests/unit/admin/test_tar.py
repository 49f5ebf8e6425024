"""Archives of exported messages: what we write GNU tar reads, and whatever else there is in one is refused."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.admin.tar import END, TarFault, entries, header, padding

NAME = "1jkq0b0000000.message"


def _archive(*files: tuple[str, bytes]) -> bytes:
    return b"".join(header(name, len(data), 1.7e9) + data + padding(len(data)) for name, data in files) + END


def _read(archive: bytes) -> list[tuple[str, bytes]]:
    return [(entry.name, b"".join(octets)) for entry, octets in entries(io.BytesIO(archive))]


def _made(
    name: str, change: dict[str, object], data: bytes = b"x", form: int = tarfile.USTAR_FORMAT
) -> bytes:
    """By Python's own module."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for field, value in change.items():
            setattr(info, field, value)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@given(files=st.lists(st.binary(max_size=2000), max_size=4))
def test_what_is_written_is_read(files: list[bytes]) -> None:
    named = [(f"1jkq0b000000{number}.{number}.eml", data) for number, data in enumerate(files)]
    archive = _archive(*named)
    assert _read(archive) == named
    with tarfile.open(fileobj=io.BytesIO(archive)) as other:
        assert [(member.name, member.size) for member in other] == [(name, len(data)) for name, data in named]


def test_an_archive_packed_again_by_hand_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    folder.mkdir()
    (folder / NAME).write_bytes(b"octets")
    for arguments in (["-C", str(folder), "."], ["-C", str(tmp_path), "mail"], ["-C", str(folder), NAME]):
        packed = tmp_path / "mail.tar"
        subprocess.run(["tar", "--format=ustar", "-cf", str(packed), *arguments], check=True)
        assert _read(packed.read_bytes()) == [(NAME, b"octets")]


def test_octets_that_nobody_reads_are_passed_over() -> None:
    archive = _archive((NAME, b"x" * 1500), ("1jkq0b0000001.json", b"y"))
    assert [entry.size for entry, _ in entries(io.BytesIO(archive))] == [1500, 1]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("/" + NAME, {}),
        ("../" + NAME, {}),
        ("a/../" + NAME, {}),
        ("a/b/" + NAME, {}),
        ("..", {"type": tarfile.DIRTYPE, "size": 0}),
        ("../a", {"type": tarfile.DIRTYPE, "size": 0}),
        ("passwd", {}),
        ("1jkq0b0000000.sh", {}),
        ("z" + NAME[1:], {}),
        (NAME, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}),
        (NAME, {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd", "size": 0}),
        (NAME, {"type": tarfile.CHRTYPE, "size": 0}),
        (NAME, {"type": tarfile.FIFOTYPE, "size": 0}),
        (NAME, {"type": tarfile.GNUTYPE_SPARSE}),
    ],
)
def test_an_entry_that_export_does_not_make_is_refused(name: str, change: dict[str, object]) -> None:
    with pytest.raises(TarFault, match="entry 1"):
        _read(_made(name, change))


def test_extended_headers_are_refused() -> None:
    with pytest.raises(TarFault, match="extended header"):
        _read(_made(NAME, {"mtime": 1.5}, form=tarfile.PAX_FORMAT))
    with pytest.raises(TarFault, match="long name"):
        _read(_made("x" * 150, {}, form=tarfile.GNU_FORMAT))


@pytest.mark.parametrize("cut", [100, 512, 600, 1024, 1100, 1500])
def test_an_archive_that_ends_early_is_refused(cut: int) -> None:
    with pytest.raises(TarFault):
        _read(_archive((NAME, b"x" * 700))[:cut])


@given(st.binary(max_size=1200))
def test_noise_is_refused(noise: bytes) -> None:
    if noise[:512] != bytes(512):
        with pytest.raises(TarFault):
            _read(noise)


@given(place=st.integers(0, 511), value=st.integers(0, 255))
def test_a_changed_header_is_refused(place: int, value: int) -> None:
    archive = bytearray(_archive((NAME, b"x")))
    if archive[place] != value and not 148 <= place < 156:
        archive[place] = value
        with pytest.raises(TarFault):
            _read(bytes(archive))


def test_a_size_that_is_claimed_is_not_believed() -> None:
    with pytest.raises(TarFault, match="middle of a file"):
        _read(header(NAME, 8**11 - 1, 0) + b"x")

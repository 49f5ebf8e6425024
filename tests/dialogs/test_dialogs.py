"""Every conversation in this folder, its groups in one write and octet by octet."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dialogs.script import SCRIPTS, read_script, run_script


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_in_one_write(path: Path) -> None:
    run_script(path, octet_by_octet=False)


@pytest.mark.parametrize(
    "path", [path for path in SCRIPTS if not read_script(path).at_once], ids=lambda p: p.stem
)
def test_octet_by_octet(path: Path) -> None:
    run_script(path, octet_by_octet=True)


def test_a_script_that_expects_the_wrong_words_fails(tmp_path: Path) -> None:
    script = tmp_path / "wrong.txt"
    script.write_text("S: 220 mx.example.org ESMTP\nC: NOOP\nS: 250 2.0.0 Wrong\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=r"wrong\.txt:3"):
        run_script(script, octet_by_octet=False)


def test_a_script_that_leaves_a_reply_unread_fails(tmp_path: Path) -> None:
    script = tmp_path / "short.txt"
    script.write_text("S: 220 mx.example.org ESMTP\nC: NOOP\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="unasked"):
        run_script(script, octet_by_octet=False)

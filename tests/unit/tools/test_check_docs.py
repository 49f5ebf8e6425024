"""The checks of the documentation find what they are there to find, and nothing else."""

import subprocess
from pathlib import Path

import pytest

from tools.check_docs import (
    anchors,
    check,
    check_links,
    check_spaces,
    check_words,
    find_generator,
    list_decisions,
    regenerate,
)

PAGE = Path("docs/page.md")


def links(root: Path, text: str) -> list[str]:
    (root / PAGE).parent.mkdir(exist_ok=True)
    (root / PAGE).write_text(text)
    return [str(fault) for fault in check_links(root, PAGE, text)]


@pytest.mark.parametrize(
    "text",
    [
        "[a](https://example.com/x)",
        "[a](mailto:a@example.com)",
        "[a](page.md)",
        "[a](../docs/page.md#one-heading)\n# One heading",
        "# A: b, *c*\n[a](#a-b-c)",
        "`[a](missing.md)`",
        "```\n[a](missing.md)\n```",
        '[a](page.md "title")',
        "[a]: page.md",
    ],
)
def test_good_links_pass(tmp_path: Path, text: str) -> None:
    assert links(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[a](missing.md)", "docs/page.md:1: link to missing.md: no such file"),
        ("\n![a](missing.png)", "docs/page.md:2: link to missing.png: no such file"),
        ("[a](page.md#b)", "docs/page.md:1: link to page.md#b: no such heading"),
        ("[a](#b)", "docs/page.md:1: link to #b: no such heading"),
        ("[a]: missing.md", "docs/page.md:1: link to missing.md: no such file"),
        ("[a](../..)", "docs/page.md:1: link to ../..: outside the repository"),
    ],
)
def test_broken_links_are_found(tmp_path: Path, text: str, fault: str) -> None:
    assert links(tmp_path, text) == [fault]


def test_equal_headings_get_numbers() -> None:
    assert anchors("# A\n## A\n```\n# not this\n```\n") == {"a", "a-1"}


def test_spaces_at_the_end_are_found() -> None:
    assert [fault.line for fault in check_spaces(PAGE, "a\nb \nc\t\n")] == [2, 3]


@pytest.mark.parametrize("name", ["wor" + "k", "far" + "m", "roo" + "t"])
def test_paths_of_a_machine_are_found(name: str) -> None:
    assert [fault.line for fault in check_words(PAGE, f"a\nsee /{name}/x\n")] == [2]


@pytest.mark.parametrize(
    "text", ["/var/spool/lonedot", "a network", "/etc/lonedot.toml", "homework/ is done"]
)
def test_paths_of_any_machine_pass(text: str) -> None:
    assert list(check_words(PAGE, text)) == []


def test_decisions_are_listed_by_heading(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Decisions\n")
    (tmp_path / "b.md").write_text("# Bee\n\ntext\n")
    (tmp_path / "a.md").write_text("# Ay\n")
    assert list_decisions(tmp_path) == "- [Ay](a.md)\n- [Bee](b.md)"


def test_a_section_is_replaced_and_then_stays(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Ay\n")
    old = "before\n<!-- generated: decisions -->\nold\n<!-- /generated -->\nafter\n"
    new = regenerate(tmp_path, old)
    assert new == "before\n<!-- generated: decisions -->\n\n- [Ay](a.md)\n\n<!-- /generated -->\nafter\n"
    assert regenerate(tmp_path, new) == new


def test_a_section_that_nothing_generates_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="unknown"):
        regenerate(tmp_path, "<!-- generated: unknown -->\n<!-- /generated -->\n")
    with pytest.raises(KeyError):
        find_generator("unknown")


def test_a_repository_is_checked_and_mended(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "README.md").write_text(
        "[a](b.md)\n<!-- generated: decisions -->\nold\n<!-- /generated -->\n"
    )
    (tmp_path / ".gitignore").write_text("ignored.md\n")
    (tmp_path / "ignored.md").write_text("[a](c.md)\n")
    (tmp_path / "picture.bin").write_bytes(b"\0 /%s/ " % b"work")
    assert [fault.text for fault in check(tmp_path, write=False)] == [
        "link to b.md: no such file",
        "a generated section is out of date; ./dev docs mends it",
    ]
    assert [fault.text for fault in check(tmp_path, write=True)] == ["link to b.md: no such file"]
    assert "old" not in (tmp_path / "README.md").read_text()

"""Checks what the repository says: links, generated sections, spaces, and words that do not belong here.

Run by `./dev lint`; `--write` (`./dev docs`) writes the generated sections again instead of complaining.

A generated section stands in a Markdown file between two lines:

    <!-- generated: NAME -->
    <!-- /generated -->

NAME is a key of `GENERATORS`, whose value says which function makes the text. The function takes the file's
folder and returns Markdown without the two lines; what it needs from `lonedot` it imports, so that the text
cannot fall behind the code.
"""

import argparse
import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, cast
from urllib.parse import unquote

Generator = Callable[[Path], str]

# name of a section -> "module:function"; one line for each kind of section
GENERATORS: dict[str, str] = {
    "config": "lonedot.config.reference:tables",
    "decisions": "tools.check_docs:list_decisions",
    "events": "lonedot.sinks.reference:tables",
    "registry": "lonedot.config.reference:registry_tables",
    "sinks": "lonedot.sinks.catalogue:table",
}


class Fault(NamedTuple):
    """Something to mend, and where."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


# --- links ---------------------------------------------------------------------------------------

_FENCE = re.compile(r"\s*(```|~~~)")
_CODE = re.compile(r"`[^`]*`")
_LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\)|^\s*\[[^\]]+\]:\s*<?([^>\s]+)>?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def prose_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines outside fenced blocks, numbered from 1, with `code` in a line left out."""
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        if found := _FENCE.match(line):
            if not fence:
                fence = found[1]
            elif found[1] == fence:
                fence = ""
            continue
        if not fence:
            yield number, _CODE.sub("", line)


def anchors(text: str) -> set[str]:
    """The names by which the headings of a Markdown file can be linked to, as code hosts form them."""
    names: set[str] = set()
    fence = False
    for line in text.splitlines():
        if _FENCE.match(line):
            fence = not fence
        elif not fence and line.startswith("#"):
            title = re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
            name, again = title, 0
            while name in names:
                again += 1
                name = f"{title}-{again}"
            names.add(name)
    return names


def check_links(root: Path, path: Path, text: str) -> Iterator[Fault]:
    """Relative links whose file or heading does not exist. Links to other hosts are not followed."""
    for number, line in prose_lines(text):
        for found in _LINK.finditer(line):
            target = found[1] or found[2]
            if _SCHEME.match(target):
                continue
            name, _, anchor = unquote(target).partition("#")
            file = (root / path).parent / name if name else root / path
            if not file.exists():
                yield Fault(path, number, f"link to {target}: no such file")
            elif not file.resolve().is_relative_to(root.resolve()):
                yield Fault(path, number, f"link to {target}: outside the repository")
            elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8")):
                yield Fault(path, number, f"link to {target}: no such heading")


def check_spaces(path: Path, text: str) -> Iterator[Fault]:
    """Spaces at the end of a line, which some readers show as a line break and most do not show at all."""
    for number, line in enumerate(text.splitlines(), 1):
        if line != line.rstrip(" \t"):
            yield Fault(path, number, "space at the end of the line")


# --- words ---------------------------------------------------------------------------------------

# What tells of the machine somebody worked on and not of the product. The brackets in the patterns keep these
# lines from finding themselves.
_FOREIGN = {
    "path of one machine": re.compile(
        r"/(?:wor[k]|far[m])/"
        r"|(?<![\w.])/(?:roo[t]|tm[p]/(?:brie[f]|issu[e]))/"
    ),
    "package registry": re.compile(
        r"(?:file[s]\.pythonhosted|tes[t]\.pypi)\.org|pyp[i]\.org/simple|/op[t]/(?:pypi|wheels)"
        r"|(?:de[b]|snapsho[t]|securit[y])\.debian\.org|registr[y]\.npmjs\.org|--(?:extra-)?inde[x]-url"
    ),
}


def check_words(path: Path, text: str) -> Iterator[Fault]:
    """Paths of one machine and hosts of package registries."""
    for number, line in enumerate(text.splitlines(), 1):
        for kind, pattern in _FOREIGN.items():
            if found := pattern.search(line):
                yield Fault(path, number, f"{kind}: {found[0]}")


# --- generated sections --------------------------------------------------------------------------

_SECTION = re.compile(
    r"^(<!-- generated: ([\w-]+) -->\n)(.*?)^(<!-- /generated -->)$", re.MULTILINE | re.DOTALL
)


def find_generator(name: str) -> Generator:
    """The function that makes a section.

    Raises: KeyError when there is none of that name.
    """
    module, _, function = GENERATORS[name].partition(":")
    return cast(Generator, getattr(importlib.import_module(module), function))


def regenerate(folder: Path, text: str) -> str:
    """The text with every generated section as it should be.

    Raises: KeyError for a section that nothing generates.
    """

    def section(found: re.Match[str]) -> str:
        body = find_generator(found[2])(folder).strip("\n")
        return f"{found[1]}\n{body}\n\n{found[4]}" if body else found[1] + found[4]

    return _SECTION.sub(section, text)


def list_decisions(folder: Path) -> str:
    """A list of the pages beside the file, each by its first heading."""
    lines = []
    for page in sorted(folder.glob("*.md")):
        if page.name != "README.md":
            title = page.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ").strip()
            lines.append(f"- [{title}]({page.name})")
    return "\n".join(lines)


# --- the whole repository ------------------------------------------------------------------------


def repository_files(root: Path) -> list[Path]:
    """Files that are tracked or could be, relative to the root: what is ignored is not ours to judge."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
    ).stdout
    return sorted(Path(name.decode()) for name in set(listing.split(b"\0")) if name)


def check(root: Path, *, write: bool) -> list[Fault]:
    """Every fault of the repository; with `write`, generated sections are mended first."""
    faults: list[Fault] = []
    for path in repository_files(root):
        file = root / path
        if file.is_symlink() or not file.is_file():
            continue
        octets = file.read_bytes()
        if b"\0" in octets[:8192]:
            continue
        text = octets.decode("utf-8", "replace")
        faults += check_words(path, text)
        if path.suffix != ".md":
            continue
        faults += check_links(root, path, text)
        faults += check_spaces(path, text)
        try:
            wanted = regenerate(file.parent, text)
        except KeyError as error:
            faults.append(Fault(path, 1, f"nothing generates the section {error}"))
            continue
        if wanted != text:
            if write:
                file.write_text(wanted, encoding="utf-8")
            else:
                faults.append(Fault(path, 1, "a generated section is out of date; ./dev docs mends it"))
    return faults


def main() -> int:
    """Prints every fault; 1 when there is one."""
    arguments = argparse.ArgumentParser(description="Checks the documentation.")
    arguments.add_argument("--write", action="store_true", help="write the generated sections again")
    chosen = arguments.parse_args()
    faults = check(Path(__file__).resolve().parent.parent, write=chosen.write)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

"""Finding a sink's code and making its binding: every mistake is answered in words."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lonedot.message.edits import Effect
from lonedot.sinks.bindings import (
    DEFAULT_PRIORITY,
    Binding,
    OnDamage,
    OnError,
    Role,
    firing_order,
    guid_for,
)
from lonedot.sinks.load import SinkNotLoaded, bind, load_file, load_import, offered_as
from lonedot.sinks.sink import Sink, sink
from lonedot.sinks.verdicts import Next
from lonedot.sinks.view import Message
from tests.unit.sinks.making import binding

X_RECIPIENT = "lonedot.sinks.builtin.x_recipient:x_recipient"
ONE = """
from lonedot import Edit, Message, Next, sink

@sink("Stamp", priority=12, effects={"header"})
def stamp(message: Message) -> Next:
    return Next(edits=[Edit.add_field("X-Stamp", "yes")])
"""
TWO = (
    ONE
    + """
@sink("Other")
def other(message: Message) -> Next:
    return Next()
"""
)


def nothing(message: Message) -> Next:
    return Next()


PLAIN = sink("Plain")(nothing)
SCANNER = sink("Scanner", role="protective", effects={Effect.BODY}, rule="RCPT TO=*@a.example")(nothing)


# -- files and modules ---------------------------------------------------------------------------------


def test_a_built_in_by_its_path() -> None:
    found = load_import(X_RECIPIENT)
    assert (found.name, found.priority, found.effects) == ("X-Recipient", 28010, frozenset({Effect.HEADER}))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("lonedot.sinks", "names no attribute: write `package.module:attribute`"),
        ("lonedot.sinks:", "names no attribute"),
        ("lonedot.nothing:x", "cannot import 'lonedot.nothing': ModuleNotFoundError"),
        (":x", "cannot import ''"),
        ("lonedot.sinks.view:nothing", "has no 'nothing'"),
        ("lonedot.sinks.view:Message", "is not a sink: decorate the function or class with @sink"),
    ],
)
def test_an_import_path_that_leads_nowhere(path: str, words: str) -> None:
    with pytest.raises(SinkNotLoaded, match=re.escape(words)):
        load_import(path)


def test_a_file_with_one_sink_needs_no_name(tmp_path: Path) -> None:
    file = tmp_path / "stamp.py"
    file.write_text(ONE)
    assert load_file(file).name == "Stamp"


def test_a_file_with_several_sinks_needs_one(tmp_path: Path) -> None:
    file = tmp_path / "stamps.py"
    file.write_text(TWO)
    assert load_file(file, "other").name == "Other"
    with pytest.raises(SinkNotLoaded, match=r"exactly one @sink.*found: Other, Stamp"):
        load_file(file)


@pytest.mark.parametrize(
    ("name", "text", "attribute", "words"),
    [
        ("empty.py", "", "", "found: none"),
        ("torn.py", "def (", "", "does not load: SyntaxError"),
        ("raises.py", "1 / 0", "", "does not load: ZeroDivisionError"),
        ("exits.py", "raise SystemExit(2)", "", "does not load: SystemExit"),
        ("needs.py", "import no_such_package", "", "does not load: ModuleNotFoundError"),
        ("stamp.txt", ONE, "", "its name must end in .py"),
        ("stamp.py", ONE, "stump", "has no 'stump'"),
        ("stamp.py", ONE, "Next", "is not a sink"),
    ],
)
def test_a_file_that_is_no_sink(tmp_path: Path, name: str, text: str, attribute: str, words: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(SinkNotLoaded, match=re.escape(words)) as caught:
        load_file(file, attribute)
    assert name in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(SinkNotLoaded, match="there is no file"):
        load_file(tmp_path / "gone.py")


def test_two_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    for folder, name in (("a", "Stamp"), ("b", "Other stamp")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "stamp.py").write_text(ONE.replace("Stamp", name))
    assert load_file(tmp_path / "a" / "stamp.py").name == "Stamp"
    assert load_file(tmp_path / "b" / "stamp.py").name == "Other stamp"


# -- the decorator -------------------------------------------------------------------------------------


def test_a_sink_is_still_its_function() -> None:
    assert PLAIN.function is nothing
    assert PLAIN(None) == Next()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: sink("S", on="departure"), "there is no event 'departure'; there are: connect,"),
        (lambda: sink("S", priority=-1), "priority -1 is not in 0 … 32767"),
        (lambda: sink("S", priority=32768), "priority 32768"),
        (lambda: sink("S", effects={"headers"}), "'headers' is not a valid Effect"),
        (lambda: sink("S", role="cosmetics"), "'cosmetics' is not a valid Role"),
        (lambda: sink("S", on_damage="mend"), "'mend' is not a valid OnDamage"),
        (lambda: sink("S", on_error="retry"), "'retry' is not a valid OnError"),
        (
            lambda: sink("S", rule="TO=*"),
            "rule 'TO=*' at event 'arrival' names a command that only event 'verb'",
        ),
    ],
)
def test_a_declaration_that_cannot_be(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        make()


# -- bindings ------------------------------------------------------------------------------------------


def test_the_sinks_own_defaults() -> None:
    bound = bind(PLAIN, sink_class="here:PLAIN")
    assert (bound.name, bound.guid) == ("Plain", guid_for("Plain"))
    assert (bound.priority, bound.rule, bound.effects) == (DEFAULT_PRIORITY, None, frozenset())
    assert (bound.role, bound.on_damage, bound.on_error) == (Role.COSMETIC, OnDamage.UNDO, OnError.DEFER)
    assert bound.settings == {}
    scanner = bind(SCANNER, sink_class="here:SCANNER")
    assert (scanner.role, scanner.on_damage) == (Role.PROTECTIVE, OnDamage.HOLD)
    assert str(scanner.rule) == "RCPT TO=*@a.example"


def test_the_configuration_says_otherwise() -> None:
    bound = bind(
        SCANNER,
        sink_class="here:SCANNER",
        name="My scanner",
        guid="{0}",
        priority=0,
        rule="",
        effects=["header"],
        role="cosmetic",
        on_damage="repair",
        on_error="skip",
        settings={"limit": 3},
    )
    assert (bound.name, bound.guid, bound.priority, bound.rule) == ("My scanner", "{0}", 0, None)
    assert bound.effects == frozenset({Effect.HEADER})
    assert (bound.role, bound.on_damage, bound.on_error) == (Role.COSMETIC, OnDamage.REPAIR, OnError.SKIP)
    assert bound.settings == {"limit": 3}


@pytest.mark.parametrize(
    ("given", "role", "on_damage", "on_error", "words"),
    [
        (SCANNER, None, "undo", None, "on_damage = 'undo' with role 'protective'"),
        (SCANNER, None, "repair", None, "use 'hold' or 'reject'"),
        (PLAIN, "protective", "undo", None, "holds or rejects"),
        (SCANNER, None, None, "skip", "would let mail past a scanner that failed"),
        (sink("S", on_damage="undo")(nothing), "protective", None, None, "on_damage = 'undo'"),
        (sink("S", on_error="skip")(nothing), "protective", None, None, "on_error = 'skip'"),
        (PLAIN, "protector", None, None, "'protector' is not a valid Role"),
    ],
)
def test_a_protective_sink_is_never_weakened(
    given: Sink, role: str | None, on_damage: str | None, on_error: str | None, words: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        bind(given, sink_class="x", role=role, on_damage=on_damage, on_error=on_error)


def test_a_faulty_rule_is_a_fault_of_the_binding() -> None:
    with pytest.raises(ValueError, match="names a command that only event 'verb' is asked about"):
        bind(PLAIN, sink_class="x", rule="TO=*")


def test_firing_order_is_total() -> None:
    def at(priority: int, name: str, guid: str = "") -> Binding:
        made = bind(PLAIN, sink_class="x", name=name, priority=priority, guid=guid)
        assert made.priority == priority
        return made

    bindings = [at(5, "b"), at(5, "A", "{2}"), at(5, "a", "{1}"), at(0, "z"), at(32767, "a")]
    expected = [(0, "z"), (5, "a"), (5, "A"), (5, "b"), (32767, "a")]
    for order in (bindings, bindings[::-1]):
        assert [(b.priority, b.name) for b in firing_order(order)] == expected


def test_a_guid_is_the_same_for_the_same_name() -> None:
    assert guid_for("x") == guid_for("x") != guid_for("y")
    assert re.fullmatch(r"\{[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}\}", guid_for("x"))
    assert binding(nothing, "x").guid == guid_for("x")


def test_changed_code_is_taken_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "one.py"
    names = []
    for name in ("First", "Other"):  # of one length, in one second
        file.write_text(ONE.replace("Stamp", name))
        os.utime(file, (1_800_000_000, 1_800_000_000))
        names.append(load_file(file).name)
    assert names == ["First", "Other"]
    assert list(tmp_path.iterdir()) == [file]


# --- sinks that packages offer -------------------------------------------------------------------


@pytest.fixture
def offering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Installs a package that offers sinks, as its metadata would say it."""

    def install(entry_points: str) -> None:
        info = tmp_path / "acme_mail-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-mail\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[lonedot.sinks]\n{entry_points}\n")
        monkeypatch.syspath_prepend(str(tmp_path))

    return install


def test_a_sink_that_a_package_offers(offering: Callable[[str], None]) -> None:
    offering(f"acme-stamp = {X_RECIPIENT}")
    assert offered_as("acme-stamp") == (X_RECIPIENT,)
    assert load_import("acme-stamp") is load_import(X_RECIPIENT)


@pytest.mark.parametrize(
    ("entry_points", "words"),
    [
        ("other = a.b:c", "no installed package offers a sink 'acme-stamp'"),
        ("acme-stamp = no_such_package_here:x", "cannot import 'no_such_package_here'"),
        ("acme-stamp = acme-stamp", "'acme-stamp:' names no attribute"),
        ("acme-stamp = os:path", "'os:path' is not a sink"),
    ],
)
def test_an_offer_that_leads_nowhere(offering: Callable[[str], None], entry_points: str, words: str) -> None:
    offering(entry_points)
    with pytest.raises(SinkNotLoaded, match=re.escape(words)):
        load_import("acme-stamp")

"""The registry file: every field, and every fault with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.config.faults import Severity
from lonedot.config.load import examine, load
from lonedot.config.registry import (
    BindingTable,
    ExaminedRegistry,
    beside,
    examine_registry,
    examine_registry_octets,
)
from lonedot.config.tables import keys_of
from lonedot.message.edits import Effect
from lonedot.sinks.bindings import Isolation, Mode, OnDamage, OnError, Part, Role, guid_for
from lonedot.sinks.events import Event
from lonedot.sinks.registry import Origin, Row, Source, Status, derived_guid

SINK = 'sink = "lonedot.sinks.builtin.x_recipient:x_recipient"'
WHOLE = """\
[[source]]
number = 2
name = "second"

[[binding]]
guid = "fb65c4dc-e468-11d1-aa67-00c04fa345f6"
name = "everything"
source = 2
event = "OnRcptCommand"
sink = "any.class"
status = "disabled"
priority = 0
rule = "RCPT TO=*"
reads = ["envelope", "header"]
effects = ["header", "body"]
role = "protective"
on_damage = "reject"
on_error = "hold"
isolation = "process"
deadline = "2s"
memory = "128 MiB"
user = "nobody"
mode = "shadow"
split = false
maximum_faults = 20
group = "g"

[binding.source_properties]
ScriptName = "a.vbs"

[binding.sink_properties]
Header = "X-A"
limit = 3
"""


def examined(text: str, folder: Path = Path()) -> ExaminedRegistry:
    return examine_registry_octets(text.encode(), folder / "sinks.toml")


def binding(lines: str) -> str:
    return f'[[binding]]\nname = "a"\n{lines}\n'


def faults(text: str) -> list[str]:
    return [
        f"{fault.line}:{fault.column} {fault.severity.value} {fault.where}: {fault.what}; {fault.do}"
        for fault in examined(text).faults
    ]


def row(text: str) -> Row:
    found = examined(text)
    assert found.registry is not None, found.faults
    return found.registry.rows[0]


def test_every_field() -> None:
    found = examined(WHOLE)
    assert found.faults == ()
    assert found.registry is not None
    assert found.registry.sources == (Source(1, "smtpsvc 1"), Source(2, "second"))
    assert found.registry.rows == (
        Row(
            guid="{FB65C4DC-E468-11D1-AA67-00C04FA345F6}",
            name="everything",
            sink="any.class",
            event=Event.RCPT,
            source=2,
            status=Status.DISABLED,
            priority=0,
            rule="RCPT TO=*",
            reads=(Part.ENVELOPE, Part.HEADER),
            effects=(Effect.HEADER, Effect.BODY),
            role=Role.PROTECTIVE,
            on_damage=OnDamage.REJECT,
            on_error=OnError.HOLD,
            isolation=Isolation.PROCESS,
            deadline_seconds=2.0,
            memory_octets=128 * 1024 * 1024,
            user="nobody",
            mode=Mode.SHADOW,
            split=False,
            maximum_faults=20,
            group="g",
            source_properties={"ScriptName": "a.vbs"},
            sink_properties={"Header": "X-A", "limit": 3},
            origin=Origin.REGISTRY,
        ),
    )
    assert found.lines == {"{FB65C4DC-E468-11D1-AA67-00C04FA345F6}": 5}


def test_the_whole_example_has_every_key() -> None:
    assert all(f"\n{key} =" in WHOLE or f"[binding.{key}]" in WHOLE for key in keys_of(BindingTable))


def test_what_is_not_said_is_left_to_the_code() -> None:
    found = row(binding(SINK))
    said = (found.event, found.priority, found.rule, found.reads, found.effects, found.role, found.split)
    assert said == (None,) * 7
    assert (found.on_damage, found.on_error) == (None, None)
    assert (found.guid, found.source, found.is_enabled) == (guid_for("a"), 1, True)


def test_an_empty_registry_and_one_that_is_not_there(tmp_path: Path) -> None:
    assert examined("").registry == examine_registry(tmp_path / "none.toml").registry
    assert examined("").registry is not None


class TestBags:
    @pytest.mark.parametrize("names", [("Rule", "Priority"), ("rule", "priority"), ("RULE", "pRIORITY")])
    def test_rule_and_priority_by_their_old_names(self, names: tuple[str, str]) -> None:
        bag = f'source_properties = {{ {names[0]} = "MAIL FROM=*", {names[1]} = 7, Other = 1 }}'
        found = row(binding(f"{SINK}\n{bag}"))
        assert (found.rule, found.priority, found.source_properties) == ("MAIL FROM=*", 7, {"Other": 1})

    def test_both_names_at_once(self) -> None:
        assert faults(binding(f"{SINK}\npriority = 3\nsource_properties = {{ Priority = 3 }}")) == [
            "5:23 fault binding 1: source_properties.Priority: stands beside priority; "
            "they are the same: keep one of the two"
        ]

    def test_the_string_that_an_old_sample_sets(self) -> None:
        assert faults(binding(f'{SINK}\n[binding.source_properties]\nPriority = "40000"')) == [
            '5:1 fault binding 1: source_properties.Priority: "40000" is not a whole number; '
            "write a number from 0 to 32767"
        ]

    def test_two_names_that_differ_in_case_alone(self) -> None:
        (fault,) = faults(binding(f"{SINK}\nsink_properties = {{ Header = 1, header = 2 }}"))
        assert "header and Header are the same name" in fault

    def test_what_is_no_plain_value(self) -> None:
        (fault,) = faults(binding(f"{SINK}\nsink_properties = {{ a = [1] }}"))
        assert fault.startswith("4:1 fault binding 1: sink_properties: a is a list")


class TestFaults:
    @pytest.mark.parametrize(
        ("lines", "fault"),
        [
            (f"{SINK}\npriority = 32768", "4:1 fault binding 1: priority: 32768 is out of range"),
            (f"{SINK}\npriority = -1", "4:1 fault binding 1: priority: -1 is out of range"),
            (f'{SINK}\npriority = "5"', '4:1 fault binding 1: priority: "5" is not a whole number'),
            (f"{SINK}\npriority = true", "4:1 fault binding 1: priority: true is not a whole number"),
            (f'{SINK}\nevent = "OnNothing"', '4:1 fault binding 1: event: "OnNothing" is not an event'),
            (f'{SINK}\nrule = "HELO=x"', "4:1 fault binding 1: rule: "),
            (f'{SINK}\neffects = ["header", "soul"]', "4:22 fault binding 1: effects: "),
            (f'{SINK}\nreads = ["soul"]', "4:10 fault binding 1: reads: "),
            (f'{SINK}\nstatus = "on"', '4:1 fault binding 1: status: "on" is not one of the choices'),
            (f'{SINK}\nguid = "{{}}"', '4:1 fault binding 1: guid: "{}" is not a GUID'),
            (f"{SINK}\nsource = 2", "4:1 fault binding 1: source: there is no source 2"),
            (f"{SINK}\nmaximum_faults = -1", "4:1 fault binding 1: maximum_faults: -1 is out of range"),
            (f'{SINK}\nisolation = "jail"', '4:1 fault binding 1: isolation: "jail"'),
            (
                f'{SINK}\nrole = "protective"\non_damage = "undo"',
                "5:1 fault binding 1: on_damage: undo lets mail pass",
            ),
            (
                f'{SINK}\nrole = "protective"\non_error = "skip"',
                "5:1 fault binding 1: on_error: skip lets mail pass",
            ),
            (
                f"{SINK}\nprioritty = 5",
                "4:1 fault binding 1: prioritty: is not a key that exists here; did you mean",
            ),
            (
                'sink = "CDO.SS Sink"',
                '3:1 fault binding 1: sink: "CDO.SS Sink" is neither an import path nor',
            ),
            ('sink = "nowhere.to_be:found"', "3:1 fault binding 1: sink: there is no package nowhere"),
            ('sink = "gone.py:stamp"', f"3:1 fault binding 1: sink: {Path.cwd() / 'gone.py'} does not exist"),
            ("priority = 5", "1:1 fault binding 1: sink: is missing"),
        ],
    )
    def test_each_by_its_line(self, lines: str, fault: str) -> None:
        (found,) = faults(binding(lines))
        assert found.startswith(fault)

    def test_what_is_disabled_may_name_a_class_of_another_system(self) -> None:
        found = row(binding('sink = "XRecipientList.AddXHeaders"\nstatus = "disabled"'))
        assert found.sink == "XRecipientList.AddXHeaders"

    def test_a_name_twice(self) -> None:
        (fault,) = faults(binding(SINK) + f'[[binding]]\nname = "A"\n{SINK}\n')
        assert fault.startswith('5:1 fault binding 2: name: "A" is also the name of binding 1')

    def test_a_name_at_two_events_is_two_bindings(self) -> None:
        text = binding(SINK) + f'[[binding]]\nname = "a"\nevent = "end-of-data"\n{SINK}\n'
        found = examined(text).registry
        assert found is not None
        assert [one.guid for one in found.rows] == [guid_for("a"), derived_guid("a", Event.END_OF_DATA)]

    def test_a_guid_twice(self) -> None:
        (fault,) = faults(binding(SINK) + f'[[binding]]\nname = "b"\n{SINK}\nguid = "{guid_for("a")}"\n')
        assert "is also the GUID of binding 1" in fault

    def test_a_source_twice(self) -> None:
        (fault,) = faults("[[source]]\nnumber = 1\n[[source]]\nnumber = 1\n")
        assert fault.startswith("4:1 fault source 2: number: source 1 stands twice")

    def test_of_a_registry_alone_nobody_knows_which_sources_take_mail(self) -> None:
        found = examined("[[source]]\nnumber = 2\n" + binding(f"{SINK}\nsource = 2"))
        assert found.faults == () and found.registry is not None

    def test_a_table_that_does_not_belong_here(self) -> None:
        (fault,) = faults("[[bindings]]\n")
        assert fault.startswith("1:1 fault bindings: is not a table that exists here; did you mean binding?")

    def test_what_is_no_toml(self) -> None:
        (fault,) = faults("[[binding]]\nname = \n")
        assert fault.startswith("2:")

    def test_a_file_that_anybody_may_write(self, tmp_path: Path) -> None:
        path = tmp_path / "sinks.toml"
        path.write_text("")
        path.chmod(0o666)
        (fault,) = examine_registry(path).faults
        assert "anybody may write it (mode 0666)" in fault.what and fault.do == f"run chmod o-w {path}"

    def test_a_folder_in_its_place(self, tmp_path: Path) -> None:
        found = examine_registry(tmp_path)
        assert found.registry is None and "cannot be read" in found.faults[0].what


class TestBesideTheConfiguration:
    CONFIG = """
[server]
hostname = "relay.example.com"
registry = "sinks.toml"
[[listener]]
address = "127.0.0.1:2525"
[[route]]
to = "*"
smarthost = "127.0.0.1:2526"
[[sink]]
name = "stamp"
import = "lonedot.sinks.builtin.x_recipient:x_recipient"
"""

    def check(self, folder: Path, registry: str, config: str = CONFIG) -> list[str]:
        (folder / "lonedot.toml").write_text(config)
        (folder / "sinks.toml").write_text(registry)
        found = examine(folder / "lonedot.toml").faults
        return [str(fault) for fault in found if fault.file.endswith("sinks.toml")]

    def test_check_names_the_faults_of_the_registry_by_its_own_lines(self, tmp_path: Path) -> None:
        (fault,) = self.check(tmp_path, binding(f"{SINK}\npriority = 99999"))
        assert fault.startswith(f"{tmp_path / 'sinks.toml'}:4:1: fault: binding 1: priority: 99999 is out of")
        assert examine(tmp_path / "lonedot.toml").config is None
        assert examine(tmp_path / "lonedot.toml", with_registry=False).config is not None

    def test_names_and_guids_are_shared(self, tmp_path: Path) -> None:
        (fault,) = self.check(tmp_path, f'[[binding]]\nname = "Stamp"\n{SINK}\n')
        assert '"Stamp" is also the name of [[sink]] stamp' in fault
        (fault,) = self.check(tmp_path, f'[[binding]]\nname = "b"\nguid = "{guid_for("stamp")}"\n{SINK}\n')
        assert "is also the GUID of [[sink]] stamp" in fault

    def test_sources_of_the_configuration_are_those_of_the_registry(self, tmp_path: Path) -> None:
        of_two = binding(f"{SINK}\nsource = 2")
        (fault,) = self.check(tmp_path, of_two)
        assert "there is no source 2" in fault
        (fault,) = self.check(tmp_path, "[[source]]\nnumber = 2\n" + of_two)
        assert "warning: binding 1: source: no listener and no Pickup belong to source 2" in fault
        taken = {"[[listener]]": '[[listener]]\nsource = 2\naddress = "127.0.0.1:2527"\n[[listener]]'}
        for old, new in taken.items():
            config = self.CONFIG.replace(old, new) + '[[source]]\nnumber = 2\nname = "devices"\n'
            assert self.check(tmp_path, of_two, config) == []
        found = load(tmp_path / "lonedot.toml")
        named = '[[source]]\nnumber = 2\nname = "other"\n[[source]]\nnumber = 3\nname = "third"\n'
        registry = examine_registry_octets(named.encode(), tmp_path / "sinks.toml", beside(found)).registry
        assert registry is not None
        assert registry.sources == (Source(1, "smtpsvc 1"), Source(2, "devices"), Source(3, "third"))


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_the_octets_are_there_is_a_registry_or_a_fault(octets: bytes) -> None:
    found = examine_registry_octets(octets, Path("sinks.toml"))
    assert (found.registry is None) == any(fault.severity is Severity.FAULT for fault in found.faults)

"""The built-in sinks as they say of themselves: what each does, where it is bound, its settings, a first configuration.

Rules a change here must keep:
1. Nothing is written twice: names come from the entry points, defaults from the decorator, settings from their type,
   and words from the docstrings in the source. A sink that is added is listed without a change here.
2. `FIRST_SETTINGS` alone is kept by hand: what has no default needs an example.
"""

from __future__ import annotations

import ast
import enum
import functools
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType

import msgspec

import lonedot.sinks.builtin
from lonedot.message.edits import Effect
from lonedot.sinks.bindings import OnDamage, OnError, Part, Role, Setting
from lonedot.sinks.events import Event
from lonedot.sinks.load import GROUP
from lonedot.sinks.sink import Sink, declared_by

__all__ = ["FIRST_SETTINGS", "BuiltIn", "SettingOf", "built_ins", "table"]

FIRST_SETTINGS: Mapping[str, Mapping[str, Setting]] = {
    "address-fence": {"table": "deny * board@example.com"},
    "antivirus": {"scanners": "unix:/run/clamav/clamd.ctl"},
    "archive": {"maildir": "/var/mail/archive"},
    "archive-address": {"address": "archive@example.com"},
    "disclaimer": {"text": "Example Ltd, 1 High Street, Exampleton"},
    "dkim": {"domain": "example.com", "selector": "s1", "key": "/etc/lonedot/dkim-s1.pem"},
    "header-edit": {"edits": "remove X-Mailer"},
    "http": {"url": "https://filters.example.com/mail"},
    "intersite": {"folder": "/var/spool/intersite"},
    "milter": {"address": "unix:/run/rspamd/milter.sock"},
    "milter-session": {"address": "unix:/run/rspamd/milter.sock"},
    "program": {"command": "/usr/local/lib/filters/house-rules"},
    "rate-limit": {"limit": 100},
    "rate-limit-octets": {"limit": 104857600},
}
"""By the name of a sink, settings with which it can be bound, where those that it has by default are not enough."""

_TYPES: Mapping[type[object], str] = {
    msgspec.inspect.StrType: "text",
    msgspec.inspect.IntType: "whole number",
    msgspec.inspect.FloatType: "number",
    msgspec.inspect.BoolType: "true or false",
}


class SettingOf(msgspec.Struct, frozen=True, kw_only=True):
    """One setting of a sink."""

    name: str
    type: str
    """In words."""
    choices: tuple[str, ...] = ()
    """The texts that it may be, where they are counted."""
    is_required: bool
    default: Setting | None = None
    meaning: str = ""
    """As its type says; empty where the name says all."""


class BuiltIn(msgspec.Struct, frozen=True, kw_only=True):
    """One built-in sink, with the defaults of its bindings."""

    name: str
    """What to write as `import`: a short name, or the path of one that has none."""
    code: str
    """`package.module:attribute`."""
    title: str
    """The display name of a binding that is given none."""
    about: str
    """A sentence."""
    description: str
    """What it says of itself, in paragraphs."""
    event: Event
    priority: int
    rule: str
    reads: tuple[Part, ...]
    effects: tuple[Effect, ...]
    role: Role
    on_damage: OnDamage | None
    """None: what its role says."""
    on_error: OnError
    split: bool
    settings: tuple[SettingOf, ...]
    first: str
    """A first configuration, as TOML."""
    page: str
    """Where the documentation tells more."""


@functools.cache
def built_ins() -> tuple[BuiltIn, ...]:
    """All of them, by name. Their modules are imported; nothing is asked of any backend."""
    short = _short_names()
    found = [
        _described(sink, module, attribute, short)
        for module in _modules()
        for attribute, sink in _declared(module)
    ]
    return tuple(sorted(found, key=lambda one: one.name))


def table(_folder: Path) -> str:
    """All of them as a table in Markdown, with links from the folder of their pages."""
    lines = ["| `import` | at | role | effects | what it is |", "|---|---|---|---|---|"]
    for one in built_ins():
        effects = ", ".join(effect.value for effect in one.effects) or "none"
        page = one.page.rpartition("/")[2]
        about = one.about.replace("|", "\\|")
        lines.append(
            f"| [`{one.name}`]({page}) | `{one.event.value}` | {one.role.value} | {effects} | {about} |"
        )
    return "\n".join([*lines, ""])


# --- where they are -------------------------------------------------------------------------------


def _modules() -> Iterator[ModuleType]:
    package = lonedot.sinks.builtin
    for found in pkgutil.iter_modules(package.__path__):
        yield importlib.import_module(f"{package.__name__}.{found.name}")


def _declared(module: ModuleType) -> Iterator[tuple[str, Sink]]:
    """The sinks that the module itself declares, in the order of its source."""
    for node in _tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            sink = declared_by(getattr(module, node.name, None))
            if sink is not None:
                yield node.name, sink


def _short_names() -> Mapping[str, str]:
    """Code to the name that it is offered under."""
    return {point.value: point.name for point in metadata.entry_points(group=GROUP)}


# --- what they say --------------------------------------------------------------------------------


def _described(sink: Sink, module: ModuleType, attribute: str, short: Mapping[str, str]) -> BuiltIn:
    code = f"{module.__name__}:{attribute}"
    name = short.get(code, code)
    stem = module.__name__.rpartition(".")[2]
    names = [declared for declared, _ in _declared(module)]
    # The words of the module are of the sink that has its name, or of the first.
    main = next((declared for declared in names if declared.casefold() == stem), names[0])
    described = _docstring(module, "" if attribute == main else attribute)
    settings = tuple(_settings(sink.settings))
    return BuiltIn(
        name=name,
        code=code,
        title=sink.name,
        about=_first_sentence(described),
        description=described,
        event=sink.event,
        priority=sink.priority,
        rule=sink.rule,
        reads=tuple(part for part in Part if part in sink.reads),
        effects=tuple(effect for effect in Effect if effect in sink.effects),
        role=sink.role,
        on_damage=sink.on_damage,
        on_error=sink.on_error,
        split=sink.split,
        settings=settings,
        first=_first(sink.name, name),
        page=f"docs/sinks/{stem}.md",
    )


def _first_sentence(words: str) -> str:
    """Of the first paragraph, without the name in front of a colon where one stands there, with a full stop."""
    paragraph = " ".join(words.partition("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!])\s", paragraph, maxsplit=1)[0].rstrip(".:")
    return f"{sentence}."


def _first(title: str, name: str) -> str:
    lines = ["[[sink]]", f"name = {_toml(title)}", f"import = {_toml(name)}"]
    settings = FIRST_SETTINGS.get(name)
    if settings:
        inner = ", ".join(f"{key} = {_toml(value)}" for key, value in settings.items())
        lines.append(f"settings = {{ {inner} }}")
    return "\n".join([*lines, ""])


def _toml(value: Setting) -> str:
    return msgspec.json.encode(value).decode()  # a JSON text, number or truth value is one of TOML too


def _settings(kind: type[object] | None) -> Iterator[SettingOf]:
    if kind is None or not issubclass(kind, msgspec.Struct):
        return
    meanings = _meanings(kind)
    shape = msgspec.inspect.type_info(kind)
    assert isinstance(shape, msgspec.inspect.StructType)
    for field in shape.fields:
        words, choices = _type_in_words(field.type)
        default = None if field.required else field.default
        yield SettingOf(
            name=field.encode_name,
            type=words,
            choices=choices,
            is_required=field.required,
            default=default.value if isinstance(default, enum.Enum) else default,
            meaning=meanings.get(field.name, ""),
        )


def _type_in_words(shape: msgspec.inspect.Type) -> tuple[str, tuple[str, ...]]:
    match shape:
        case msgspec.inspect.EnumType(cls=cls):
            return "text", tuple(str(member.value) for member in cls)
        case msgspec.inspect.LiteralType(values=values):
            return "text", tuple(str(value) for value in values)
        case msgspec.inspect.UnionType(types=types):
            kinds = [_type_in_words(one)[0] for one in types if not isinstance(one, msgspec.inspect.NoneType)]
            return " or ".join(kinds), ()
        case _:
            return _TYPES[type(shape)], ()


# --- the source -----------------------------------------------------------------------------------


@functools.cache
def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def _docstring(module: ModuleType, attribute: str) -> str:
    """Of the module, or of a function or class in it."""
    nodes: Iterable[ast.AST] = [_tree(module)]
    if attribute:
        nodes = [node for node in _tree(module).body if getattr(node, "name", "") == attribute]
    for node in nodes:
        assert isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        return ast.get_docstring(node) or ""
    return ""


def _meanings(kind: type[object]) -> Mapping[str, str]:
    """The texts that stand behind the fields of a class."""
    tree = _tree(sys.modules[kind.__module__])
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.ClassDef) and node.name == kind.__name__):
            continue
        for field, behind in zip(node.body, node.body[1:], strict=False):
            match field, behind:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[name] = " ".join(text.split())
                case _:
                    pass
    return found

"""Who has the bindings: makes snapshots of configuration and registry, and changes the registry.

Rules:
1. A snapshot is built whole (file judged, code of every enabled binding loaded) before anything is written or taken.
2. The relay takes a snapshot in one assignment; nothing else is told. A message keeps the one it began with.
3. Code is loaded once and kept; a reload loads it anew. Files and code are read in a thread, one change at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from lonedot.admin.sinks import Bindings, Taken, is_selected, listed, with_events, with_standing
from lonedot.admin.values import AdminError
from lonedot.app.settings import binding_from
from lonedot.app.standing import StandingDesk
from lonedot.config.faults import Severity
from lonedot.config.model import Config
from lonedot.config.registry import (
    ALONE,
    ExaminedRegistry,
    beside,
    examine_registry,
    examine_registry_octets,
)
from lonedot.config.values import Unfit
from lonedot.observability import log
from lonedot.observability.clock import SystemClock
from lonedot.sinks.bindings import Binding, firing_order
from lonedot.sinks.events import Event
from lonedot.sinks.load import SinkNotLoaded
from lonedot.sinks.registry import Add, Change, Origin, Registry, Row, Selected, Source, Status, Switch
from lonedot.sinks.registry_file import RegistryFault, RegistryFile
from lonedot.sinks.registry_text import CannotChange, apply_changes
from lonedot.sinks.sink import Sink
from lonedot.sinks.standing import Measure
from lonedot.spool.interface import SpoolLocked
from lonedot.spool.lock import SpoolLock

__all__ = ["FreshBindings", "RegistryKeeper", "Snapshot"]


class Snapshot(msgspec.Struct, frozen=True):
    """What is in force: immutable, known by its revision."""

    registry: Registry
    bindings: tuple[Binding, ...]
    """Enabled ones of configuration and registry, in firing order."""
    revision: str
    """Of both."""


class FreshBindings(msgspec.Struct, frozen=True):
    """A snapshot that is built and not yet in force, with its code."""

    snapshot: Snapshot
    code: dict[str, Sink]
    bound: dict[bytes, Binding]
    config: Config | None
    path: Path | None


class RegistryKeeper:
    """Has the registry of one relay, or a registry file alone. Satisfies `admin.sinks.Keeper`.

    Args:
        config: whose `[[sink]]` tables fire beside the registry; None for a registry file alone.
        path: of the registry; None when the configuration names none.
        given: bindings in place of those of the configuration.
        take: is handed each snapshot that comes into force; None when no relay runs here.
        standing: of the relay that runs here. Without a relay it is read from the spool, and changed under its lock.
    """

    def __init__(
        self,
        config: Config | None,
        path: Path | None,
        *,
        given: Sequence[Binding] | None = None,
        take: Callable[[Snapshot], None] | None = None,
        standing: StandingDesk | None = None,
    ) -> None:
        self.path = path
        self.take = take
        self._standing = standing
        self._config = config
        self._given = given
        self._code: dict[str, Sink] = {}
        self._bound: dict[bytes, Binding] = {}
        self._events: dict[tuple[str, str], Event] = {}
        """By GUID and code, the event that the code says: also of what has been disabled since."""
        self._current: Snapshot | None = None
        self._changing = asyncio.Lock()

    # -- snapshots -----------------------------------------------------------------------------------

    def load(self) -> Snapshot:
        """The snapshot of what the files say now; blocks.

        Raises:
            AdminError: the registry has a fault, or code does not load.
        """
        self._current = self._build(self._examine(None))
        self._use(self._current)
        return self._current

    def take_again(self) -> None:
        """Other bindings are in force than before, though nobody changed one."""
        if self.take is not None and self._current is not None:
            self.take(self._current)

    def _use(self, snapshot: Snapshot) -> None:
        """Tell the standing which bindings there are."""
        if self._standing is not None:
            rows = self._rows(snapshot.registry)
            self._standing.use(snapshot.bindings, [row.guid for row in rows])

    def _rows(self, registry: Registry) -> tuple[Row, ...]:
        return (*self._rows_of_config(), *registry.rows)

    def _said(self, rows: Iterable[Row]) -> dict[str, Event]:
        """By GUID, the events that the code of bindings says, as far as it was loaded."""
        known = self._events
        return {row.guid: known[row.guid, row.sink] for row in rows if (row.guid, row.sink) in known}

    def _rows_of_config(self) -> tuple[Row, ...]:
        return tuple([sink.row for sink in self._config.sinks]) if self._config is not None else ()

    def _examine(self, octets: bytes | None) -> ExaminedRegistry:
        other = beside(self._config) if self._config is not None else ALONE
        if self.path is None:
            sources = tuple([Source(source.number, source.shown) for source in other.sources])
            return ExaminedRegistry(Registry(sources), (), {})
        if octets is None:
            return examine_registry(self.path, other)
        return examine_registry_octets(octets, self.path, other)

    def _build(self, found: ExaminedRegistry) -> Snapshot:
        if found.registry is None:
            fault = next(fault for fault in found.faults if fault.severity is Severity.FAULT)
            where = f"{fault.file}:{fault.line}" if fault.line else fault.file
            what = f"{fault.where}: {fault.what}" if fault.where else f"the registry {fault.what}"
            raise AdminError(what, where, fault.do)
        others = self._given
        if others is None:
            others = [self._bind(row, found) for row in self._rows_of_config() if row.is_enabled]
        made = [self._bind(row, found) for row in found.registry.rows if row.is_enabled]
        revision = self._config.revision if self._config is not None else ""
        if self.path is not None:
            revision = f"{revision}+{found.registry.revision}"
        return Snapshot(found.registry, firing_order([*others, *made]), revision)

    def _bind(self, row: Row, found: ExaminedRegistry) -> Binding:
        # A row that stays as it was stays the same binding: a process of its own goes on.
        key = msgspec.json.encode(row)
        if key not in self._bound:
            path = self.path
            if row.origin is Origin.CONFIG:
                assert self._config is not None
                path = self._config.file
            assert path is not None
            try:
                bound = self._bound[key] = binding_from(row, path.absolute().parent, self._code)
                self._events[row.guid, row.sink] = bound.event
            except (SinkNotLoaded, ValueError, OSError, Unfit) as error:
                line = found.lines.get(row.guid, 0) if row.origin is Origin.REGISTRY else 0
                where = f"{path}:{line}" if line else str(path)
                do = "mend it, or disable the binding"
                raise AdminError(str(error), f"{where}: binding {row.name!r}", do) from error
        return self._bound[key]

    def binding_of(self, guid: str) -> Binding:
        """The binding of that GUID with its code, also one that is disabled.

        Raises:
            AdminError: there is none, or its code does not load.
        """
        found = self._examine(None)
        for row in self._rows(found.registry or Registry()):
            if row.guid == guid:
                return self._bind(row, found)
        raise AdminError(f"there is no binding {guid}", "", "run lonedot sinks list")

    # -- what admin asks -----------------------------------------------------------------------------

    async def bindings(self) -> Bindings:
        if self._current is not None:
            snapshot, unloaded = self._current, ""
        else:
            snapshot, unloaded = await asyncio.to_thread(self._for_listing)
        desk = self._standing
        if desk is None:
            desk = await asyncio.to_thread(self._standing_on_disk)
        written = self._rows(snapshot.registry)
        rows = listed(written, snapshot.bindings, self._said(written))
        return Bindings(
            running=self.take is not None,
            registry=str(self.path) if self.path is not None else "",
            revision=snapshot.revision,
            registry_revision=snapshot.registry.revision,
            sources=snapshot.registry.sources,
            bindings=tuple([with_standing(row, desk.of(row.guid)) for row in rows]),
            unloaded=unloaded,
        )

    def _for_listing(self) -> tuple[Snapshot, str]:
        """What the files say; code that does not load keeps nobody from looking."""
        found = self._examine(None)
        unloaded = "a registry file alone is listed without running its code"
        if self._config is not None or found.registry is None:
            try:
                return self._build(found), ""
            except AdminError as error:
                unloaded = str(error)
                if found.registry is None:
                    raise
        return Snapshot(found.registry, (), found.registry.revision), unloaded

    async def apply(self, changes: Sequence[Change], uid: int) -> Taken:
        async with self._changing:
            left: tuple[Change, ...] = tuple(changes)
            called_again: tuple[Row, ...] = ()
            if any(isinstance(change, Switch) and change.status is Status.ENABLED for change in left):
                left, called_again = self._called_again(left)
            if left or not called_again:
                taken, snapshot = await asyncio.to_thread(self._change, left, uid)
            else:
                # All that was asked is state: the file stays as it is.
                current = self._current
                snapshot = current if current is not None else await asyncio.to_thread(self._build_from_file)
                revision = snapshot.registry.revision
                taken = Taken(before=revision, after=revision, running=self.take is not None)
            done = await self._clear(called_again)
            self._put_in_force(snapshot, uid)
        return msgspec.structs.replace(taken, done=(*done, *taken.done))

    def _standing_on_disk(self) -> StandingDesk:
        """As the last relay left it; a registry file alone has none."""
        if self._config is None:
            return StandingDesk(Path(os.devnull), SystemClock())
        desk = StandingDesk(self._config.server.paths.root, SystemClock())
        desk.load()
        return desk

    def _called_again(self, changes: tuple[Change, ...]) -> tuple[tuple[Change, ...], tuple[Row, ...]]:
        """Enabling a binding clears what stands against it: the changes that the file still needs, and those rows."""
        snapshot = self._current or self._for_listing()[0]
        written = self._rows(snapshot.registry)
        known = with_events(written, self._said(written))
        standing = self._standing or self._standing_on_disk()
        left: list[Change] = []
        found: dict[str, Row] = {}
        for change in changes:
            if not isinstance(change, Switch) or change.status is not Status.ENABLED:
                left.append(change)
                continue
            which = change.which
            rows = [row for row in known if standing.of(row.guid) is not None]
            chosen = {row.guid: row for row in rows if is_selected(row, which)}
            found |= chosen
            # Of what was switched off by itself and is enabled in its file, the file stays as it is.
            settled = {
                guid for guid, row in chosen.items() if row.is_enabled and _has_measure(standing, guid)
            }
            of_group = [row for row in known if which.group and row.group == which.group]
            names = [
                name
                for name in which.names
                if not any(is_selected(found[guid], Selected((name,))) for guid in settled)
            ]
            group = "" if of_group and all(row.guid in settled for row in of_group) else which.group
            if names or group:
                kept = msgspec.structs.replace(which, names=tuple(names), group=group)
                left.append(Switch(kept, Status.ENABLED))
        return tuple(left), tuple(found.values())

    async def _clear(self, rows: Sequence[Row]) -> tuple[str, ...]:
        """Forget what stands against these, durably; a line for each that was switched off.

        Raises:
            AdminError: it cannot be written, or a relay has the spool by now.
        """
        if not rows:
            return ()
        guids = [row.guid for row in rows]
        try:
            if self._standing is not None:
                gone = self._standing.clear(guids)
                await self._standing.save()
            else:
                assert self._config is not None
                lock = SpoolLock(self._config.server.paths.lock)
                try:
                    desk = self._standing_on_disk()
                    gone = desk.clear(guids)
                    await desk.save()
                finally:
                    lock.release()
        except SpoolLocked as error:
            raise AdminError(
                str(error), "", "a relay has started meanwhile: give the command again"
            ) from error
        except OSError as error:
            raise AdminError(f"the state of the bindings cannot be written: {error}") from error
        return tuple(
            f"enabled {one.name!r} {one.guid}: it had {_DID[one.measure]} after {one.in_words}"
            for one in gone
            if one.measure is not Measure.NONE
        )

    async def reload(self, uid: int) -> Taken:
        """Take files and code as they are now."""
        return self.commit(await self.prepare(), uid)

    async def prepare(self, config: Config | None = None) -> FreshBindings:
        """Files and code as they are now; with `config`, its bindings and the registry that it names.

        Raises:
            AdminError: the registry has a fault, or code does not load.
        """
        async with self._changing:
            kept = self._code, self._bound, self._config, self.path
            self._code, self._bound = {}, {}
            if config is not None:
                self._config, self.path = config, config.server.registry
            try:
                snapshot = await asyncio.to_thread(self._build_from_file)
                return FreshBindings(snapshot, self._code, self._bound, self._config, self.path)
            finally:
                self._code, self._bound, self._config, self.path = kept

    def commit(self, fresh: FreshBindings, uid: int) -> Taken:
        """Take what was prepared."""
        before = self._current.registry.revision if self._current is not None else ""
        self._code, self._bound = fresh.code, fresh.bound
        self._config, self.path = fresh.config, fresh.path
        self._put_in_force(fresh.snapshot, uid)
        return Taken(before=before, after=fresh.snapshot.registry.revision, running=self.take is not None)

    async def take_file(self, uid: int) -> None:
        """Take the registry as another worker has written it; code that is loaded stays."""
        async with self._changing:
            self._put_in_force(await asyncio.to_thread(self._build_from_file), uid)

    @property
    def revision(self) -> str:
        """Of what is in force; empty before anything is."""
        return self._current.revision if self._current is not None else ""

    def _build_from_file(self) -> Snapshot:
        return self._build(self._examine(None))

    def _change(self, changes: tuple[Change, ...], uid: int) -> tuple[Taken, Snapshot]:
        """Judge, load, write; in a thread."""
        if self.path is None:
            raise AdminError(
                "the configuration names no registry",
                str(self._config.file) if self._config is not None else "",
                'write registry = "sinks.toml" in [server] and start the relay again',
            )
        file = RegistryFile(self.path)
        try:
            with file.locked():
                octets = file.read()
                found = self._examine(octets)
                old = found.registry
                if self._current is None and any(_asks_event(change) for change in changes):
                    # Nothing is loaded yet, and only code tells the events that the file leaves open.
                    with contextlib.suppress(AdminError):
                        self._build(found)
                before = old.revision if old is not None else ""
                said = self._said(self._rows(old)) if old is not None else {}
                edited = apply_changes(octets.decode("utf-8"), changes, said)
                written = edited.text.encode("utf-8")
                snapshot = self._build(self._examine(written))
                after = snapshot.registry.revision
                if written != octets:
                    file.replace(written, edited.done, before, after, os.geteuid() if uid < 0 else uid)
        except CannotChange as error:
            raise AdminError(error.what, str(self.path), error.do) from error
        except RegistryFault as error:
            raise AdminError(error.what, error.where, error.do) from error
        except UnicodeDecodeError as error:
            raise AdminError("the registry is not UTF-8", str(self.path), "save it as UTF-8") from error
        taken = Taken(done=edited.done, before=before, after=after, running=self.take is not None)
        return taken, snapshot

    def _put_in_force(self, snapshot: Snapshot, uid: int) -> None:
        self._current = snapshot
        # What is bound no longer is not kept: a registry may be changed for years.
        kept = {id(binding) for binding in snapshot.bindings}
        self._bound = {key: bound for key, bound in self._bound.items() if id(bound) in kept}
        codes = {(row.guid, row.sink) for row in self._rows(snapshot.registry)}
        self._events = {key: event for key, event in self._events.items() if key in codes}
        self._use(snapshot)
        if self.take is not None:
            self.take(snapshot)
            log.event("sinks.taken", revision=snapshot.revision, uid=uid)


_DID = {
    Measure.NONE: "",
    Measure.OFF: "switched itself off",
    Measure.HOLDS: "begun to hold messages",
}


def _asks_event(change: Change) -> bool:
    return not isinstance(change, Add) and change.which.event is not None


def _has_measure(standing: StandingDesk, guid: str) -> bool:
    known = standing.of(guid)
    return known is not None and known.measure is not Measure.NONE

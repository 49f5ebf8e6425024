"""The processes and tasks of all bindings that ask for one: started, shared and ended as the registry says.

Rules: bindings share a process when they are the same binding with the same code and limits; what is no longer in
force ends when it is idle, never under a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from lonedot.sinks.bindings import Binding, Isolation
from lonedot.sinks.calls import Answer, Call
from lonedot.sinks.inquiry import HopCall
from lonedot.sinks.process import ProcessHost
from lonedot.sinks.protocol import Question
from lonedot.sinks.tasks import TaskHost

__all__ = ["Hosts"]

END_SECONDS = 5.0


class _Identity(msgspec.Struct, frozen=True):
    """What makes two bindings share a process."""

    guid: str
    sink_class: str
    memory_octets: int
    user: str
    isolation: Isolation


class Hosts:
    """The processes and tasks of all bindings that ask for one. Calling it calls the sink."""

    def __init__(self) -> None:
        self._hosts: dict[_Identity, ProcessHost | TaskHost] = {}
        self._leaving: list[ProcessHost | TaskHost] = []
        self._is_closed = False

    def __call__(self, call: Call | Question | HopCall) -> asyncio.Future[Answer]:
        return self.host(call.binding).call(call)

    def host(self, binding: Binding) -> ProcessHost | TaskHost:
        identity = _Identity(
            binding.guid, binding.sink_class, binding.memory_octets, binding.user, binding.isolation
        )
        host = self._hosts.get(identity)
        if host is None:
            is_task = binding.isolation is Isolation.TASK
            host = self._hosts[identity] = TaskHost(binding) if is_task else ProcessHost(binding)
            if self._is_closed:
                host.close()
        return host

    def use(self, bindings: Iterable[Binding]) -> None:
        """These are in force: start their processes, and end those of others that are idle; likewise tasks.

        A binding that was made anew gets a new process, for its code may have changed.
        """
        used: list[ProcessHost | TaskHost] = []
        for binding in bindings:
            if binding.isolation is not Isolation.INLINE:
                host = self.host(binding)
                used.append(host)
                if host.binding is not binding:
                    host.take(binding)
                host.warm()
        for identity, host in list(self._hosts.items()):
            if host.is_idle and host not in used:
                host.close()
                self._leaving = [left for left in self._leaving if not left.ended.is_set()]
                self._leaving.append(self._hosts.pop(identity))

    async def close(self) -> None:
        """End all, and wait for their end; calls that wait are cancelled."""
        self._is_closed = True
        hosts = [*self._hosts.values(), *self._leaving]
        for host in hosts:
            host.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                for host in hosts:
                    await host.ended.wait()
        except TimeoutError:
            pass  # the kernel does not give it back from a disk that does not answer

"""The one place that builds and connects concrete parts: from a configuration to a running relay."""

from lonedot.app.relay import AppFault, Relay

__all__ = ["AppFault", "Relay"]

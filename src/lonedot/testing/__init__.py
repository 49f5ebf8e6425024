"""Public doubles and fixtures for tests: a whole relay, a spool in memory, a disk that fails. Only tests import it."""

"""Logs and the clock. Every room may use this one; it knows only the terms."""

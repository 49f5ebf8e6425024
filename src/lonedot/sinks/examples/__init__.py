"""Registries to look at."""

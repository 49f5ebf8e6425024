"""Durable custody: a message accepted here is on disk, and stays until it is settled."""

"""Reads what was recorded and says what happened. Nothing here writes to the spool.

Front door: `record` (a stored message as plain values), `why` (its journey), `tell` (the journey in sentences).
"""

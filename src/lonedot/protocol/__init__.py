"""SMTP without I/O: octets in, events out; decisions in, octets out.

No socket, clock, log or await here, so one machine serves the network, tests, fuzzing, replay and captures.
"""

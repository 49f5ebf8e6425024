"""What happened, kept outside custody: transcripts and the event log, in files by day.

Losing evidence never loses mail: nothing here raises into the path of a message, and no promise to a client waits
for it. Reading it is `diagnosis`.
"""

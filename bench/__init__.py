"""The benchmarks: Lonedot beside Postfix on the same machine in the same run. See bench/README.md.

Rules:
1. A speed is only ever told as a ratio to the peer measured in the same run; plain figures only explain it.
2. Generator and receiver are Postfix's own test programs, smtp-source and smtp-sink, not tools of ours.
3. What differs between the two sides is the relay. File system, load, sizes and settling are the same.
"""

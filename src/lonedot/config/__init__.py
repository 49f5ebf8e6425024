"""The configuration: its values, how a file becomes them, and every fault of a file by line.

Front door: `load` and `examine` in `load`, the values in `model`, `Fault` and `ConfigFaults` in `faults`.
"""

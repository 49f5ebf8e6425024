"""Captures of a network as TCP streams: files (pcap, pcapng), then packets (link layers, IP), then streams (TCP).

Each stage takes what a stranger wrote: nothing here raises but `CaptureFault` of `files`, and every buffer is bounded.
"""

"""Bitrates: downlink estimation, layer allocation, upload limits. Pure.

Here: state machines whose clock is an argument. Not here: packets and sockets.
Read estimator.py (the downlink), allocation.py (which layers fit), lastn.py (whose video), intake.py (upload
limits).
"""

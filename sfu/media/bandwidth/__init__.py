"""Bitrates: downlink estimation, layer allocation, upload limits. Pure.

Here: state machines whose clock is an argument. Not here: packets and sockets.
Read downlink.py (what an estimator does), send_side.py and estimator.py (with and without transport-wide feedback),
allocation.py (which layers fit), lastn.py (whose video), intake.py (upload limits).
"""

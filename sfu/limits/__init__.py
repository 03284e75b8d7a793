"""Limits per address that the control plane sets: how often, how many failures, how many lines in the log.

Here: bounded tables of counts, pure; the clock is an argument. Not here: the token bucket and the flood gate, which the
media plane uses too (sfu/buckets.py, sfu/flood.py), and limits on connections (sfu/web/slots.py).
Read rates.py, then refused.py, which writes why somebody was refused and stands on it.
"""
